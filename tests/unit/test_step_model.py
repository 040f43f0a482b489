"""Steps composed of operations, and whole requests against published measurements."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.errors import CatalogError
from catalog.load import open_catalog
from catalog.schema import Hardware, Measurement
from planner.cost import compute
from planner.cost.efficiency import PEAK
from planner.cost.replica import Shape, WeightFormat, shape_problems, shard
from planner.measured.accuracy import BUILT_IN_POINTS, Accuracy, accuracy, document
from planner.measured.batch import Batch, request_s, uncompressed
from planner.measured.machine import Machine, machine
from planner.measured.points import COLUMNS, deployment_of, engine_of, read_points, weights_of
from planner.measured.step import _PLACES, _WEIGHTS, NODES
from planner.measured.times import StepTimes
from tests.cost_models import CONFIGS, model

ROUND = 1 - 1e-9
ONE, BF16 = Shape(), WeightFormat()
ENGINES = ["vllm", "sglang", "tensorrt-llm", "gpt-fast"]
GPUS = ["a100-sxm-80gb", "h100-sxm-80gb", "l40s"]


@cache
def rates(engine: str = "vllm", hardware: str = "a100-sxm-80gb", version: str = "") -> Machine:
    catalog = open_catalog()
    return machine(catalog, catalog.get(Hardware, hardware), engine, version)


@cache
def report() -> Accuracy:
    return accuracy(open_catalog(), read_points(BUILT_IN_POINTS))


def times(kind: str = "gqa", shape: Shape = ONE, weights: WeightFormat = BF16, **of: str) -> StepTimes:
    return StepTimes.of(model(kind), shape, weights, rates(**of))


# --------------------------------------------------------------------------- steps


@given(
    kind=st.sampled_from(sorted(CONFIGS)),
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2]),
    engine=st.sampled_from(ENGINES),
    gpu=st.sampled_from(GPUS),
    sequences=st.integers(1, 256),
    tokens=st.integers(16, 1_000_000),
    size=st.sampled_from([64.0, 512.0, 2048.0, 1e6]),
)
# An indexer scores with all its heads on every rank.
@example("indexer", 4, 1, "vllm", "a100-sxm-80gb", 1, 100_474, 1e6)
def test_nothing_is_faster_than_at_the_peak(
    kind: str, tp: int, pp: int, engine: str, gpu: str, sequences: int, tokens: int, size: float
) -> None:
    shape = Shape(tp=tp, pp=pp)
    if shape_problems(model(kind), shape):
        return
    measured = StepTimes.of(model(kind), shape, WeightFormat(), rates(engine, gpu))
    hardware = open_catalog().get(Hardware, gpu)
    peak = compute.rates(hardware.flops.bf16, hardware.flops.bf16, hardware.hbm_bandwidth, PEAK)
    stages = shard(model(kind), shape, WeightFormat()).stages
    left, b, n = uncompressed(np.array([float(tokens)])), np.array([float(sequences)]), float(tokens)
    micro = np.ceil(b / pp)
    step = pp * max(float(compute.decode_step_s(s, peak, micro, n, left)[0]) for s in stages)
    assert float(measured.step_s(b, n, left)[0]) >= step * ROUND
    sizes = np.array([min(size, n)])
    prefill = max(float(compute.prefill_s(s, peak, 0.0, n, sizes, left)[0]) for s in stages)
    assert float(measured.prefill_s(0.0, n, sizes, left)[0][0]) >= prefill * 0.999


@given(st.integers(1, 255), st.sampled_from(sorted(CONFIGS)))
def test_a_larger_batch_and_a_longer_cache_take_longer(sequences: int, kind: str) -> None:
    found = times(kind)
    b = np.array([float(sequences), float(sequences + 1)])
    steps = found.step_s(b, 8192.0, uncompressed(np.full(2, 8192.0)))
    # Waves of attention blocks may end: a step may be a little shorter with one sequence more.
    assert steps[1] >= 0.9 * steps[0]
    lengths = np.array([8192.0, 9000.0])
    longer = found.step_s(np.full(2, float(sequences)), lengths, uncompressed(lengths))
    assert longer[1] >= longer[0]


def test_a_decode_step_is_nearly_linear_in_what_compression_leaves() -> None:
    found = times(shape=Shape(tp=4))
    left = uncompressed(np.full(3, 131_072.0))
    left = replace(left, read_tokens=np.array([0.25, 0.5, 0.75]) * 131_072.0)
    low, middle, high = found.step_s(np.full(3, 16.0), 131_072.0, left)
    assert high - middle == pytest.approx(middle - low, rel=0.02)
    assert low < middle


def test_chunks_add_up_to_the_prefill() -> None:
    found = times()
    sizes = [2048.0, 1999.0]
    for size in sizes:
        one = np.array([size])
        left = uncompressed(np.array([65_536.0]))
        starts = np.arange(0.0, 65_536.0, size)
        ends = np.minimum(starts + size, 65_536.0)
        exact = sum(
            float(found.chunk_s(np.array([end - start]), start, left)[0])
            for start, end in zip(starts, ends, strict=True)
        )
        busy, latency = found.prefill_s(0.0, 65_536.0, one, left)
        assert busy[0] == pytest.approx(exact, rel=0.01)
        assert latency[0] == busy[0]


def test_small_chunks_cost_more_time_than_large_ones() -> None:
    found = times(shape=Shape(tp=8))
    left = uncompressed(np.full(3, 131_072.0))
    busy, _ = found.prefill_s(0.0, 131_072.0, np.array([256.0, 2048.0, 16_384.0]), left)
    assert busy[0] > busy[1] > busy[2]


def test_weight_only_int4_saves_bytes_but_no_prefill() -> None:
    full, int4 = times(), times(weights=WeightFormat(bytes_ratio=4.25 / 16))
    one, left = np.array([1.0]), uncompressed(np.array([4096.0]))
    assert int4.step_s(one, 4096.0, left)[0] < 0.6 * full.step_s(one, 4096.0, left)[0]
    size = np.array([4096.0])
    assert int4.chunk_s(size, 0.0, left)[0] >= full.chunk_s(size, 0.0, left)[0]


def test_eight_bit_multiplication_halves_prefill() -> None:
    full, w8a8 = times(), times(weights=WeightFormat(bytes_ratio=0.5, flops_precision="int8"))
    size, left = np.array([4096.0]), uncompressed(np.array([4096.0]))
    ratio = w8a8.chunk_s(size, 0.0, left)[0] / full.chunk_s(size, 0.0, left)[0]
    assert 0.45 < ratio < 0.75


def test_old_engines_wait_for_their_host() -> None:
    one, left = np.array([1.0]), uncompressed(np.array([512.0]))
    shape = Shape(tp=8)
    old = times(shape=shape, version="0.1").step_s(one, 512.0, left)[0]
    new = times(shape=shape, version="0.14").step_s(one, 512.0, left)[0]
    assert old > 3 * new


# --------------------------------------------------------------------------- batches


def test_a_batch_beyond_the_cache_runs_in_waves() -> None:
    points = {p.id: p for p in read_points(BUILT_IN_POINTS)}
    deployment, batch = deployment_of(open_catalog(), points["ANL-018"])
    assert batch.sequences * (batch.input_tokens + batch.output_tokens) > deployment.capacity_tokens
    roomy = request_s(replace(deployment, capacity_tokens=1e9), batch)
    assert request_s(deployment, batch) > 1.3 * roomy
    tight = request_s(replace(deployment, capacity_tokens=0.0), Batch(3, 128, 16))
    assert tight == pytest.approx(3 * request_s(deployment, Batch(1, 128, 16)))


# --------------------------------------------------------------------------- points


def test_every_published_point_is_priced_or_has_a_reason() -> None:
    points = read_points(BUILT_IN_POINTS)
    found = report()
    assert len(found.judged) + len(found.unpriced) == len(points) == 324
    assert found.fitted == len(found.judged)
    told = document(found)
    assert told["n"] == len(found.judged)
    assert set(told) >= {"n", "mape", "median_ape", "p90_ape", "bias", "coverage_80", "by_source", "points"}


def test_fits_still_describe_their_own_points() -> None:
    # No measure of accuracy: a guard against changes that break the model.
    modern = [j for j in report().judged if j.point.hardware.startswith("a100") and "Splitwise" not in j.point.source]
    errors = np.abs([one.error for one in modern])
    assert errors.mean() < 0.08
    assert np.median(errors) < 0.05
    assert 0.72 < np.mean([one.covered for one in report().judged]) < 0.95


def test_eras_and_their_errors_are_facts() -> None:
    steps = [m for m in open_catalog().all(Measurement) if m.operation == "step"]
    assert {"vllm", "tensorrt-llm", "any"} <= {m.engine for m in steps}
    for step in steps:
        assert 0.05 < step.parameters["spread"] < 0.6, step.id


def test_names_that_sources_use() -> None:
    assert engine_of("HF transformers + FlashAttention-2", "2024 (CUDA 12.3)") == ("transformers", "2024 (CUDA 12.3)")
    assert engine_of("TensorRT-LLM", "2024 (vLLM 0.5-0.6 / TRT-LLM 0.1x)") == ("tensorrt-llm", "0.1")
    assert engine_of("vLLM", "2023") == ("vllm", "0.2")
    assert weights_of("fp16/bf16") == ("bf16", 16.0)
    assert weights_of("int4 (GPTQ)")[0] == "int4"
    assert weights_of("W8A8-INT8") == ("w8a8", 8.0)


ROW = dict.fromkeys(COLUMNS, "") | {
    "id": "X-1", "source": "mine", "engine": "vLLM", "engine_version": "0.14", "model": "m", "params_b": "8.03",
    "layers": "32", "hidden": "4096", "q_heads": "32", "kv_heads": "8", "head_dim": "128", "ffn": "14336",
    "vocab": "128256", "gpu": "a100-sxm-80gb", "gpus": "1", "tp": "1", "pp": "1", "weight_dtype": "bf16",
    "kv_dtype": "bf16", "batch": "1", "input_tokens": "1024", "output_tokens": "128", "metric": "e2e_s", "value": "1.5",
}  # fmt: skip


def written(path: Path, **changes: str) -> Path:
    row = ROW | changes
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu": "z9000"}, "z9000"),
        ({"tp": "3"}, "tp 3"),
        ({"layers": "many"}, "layers"),
        ({"weight_dtype": "ternary"}, "ternary"),
        ({"id": "RCL-1"}, "recalled"),
        ({"params_b": "x"}, "params_b"),
        ({"batch": "nan"}, "batch"),
        ({"ffn": "inf"}, "ffn"),
    ],
)
def test_what_cannot_be_priced_is_listed_with_the_reason(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    found = accuracy(open_catalog(), read_points(written(tmp_path / "points.csv", **changes)))
    assert not found.judged
    assert reason in found.unpriced[0].reason


@pytest.mark.parametrize(("changes", "word"), [({"metric": "speed"}, "metric"), ({"value": "-1"}, "value")])
def test_a_row_without_a_measurement_is_refused(tmp_path: Path, changes: dict[str, str], word: str) -> None:
    with pytest.raises(CatalogError, match=word):
        read_points(written(tmp_path / "points.csv", **changes))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("id,metric\nX,e2e_s\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="no column source"):
        read_points(path)


def test_llama_from_inline_dimensions_is_llama(tmp_path: Path) -> None:
    (point,) = read_points(written(tmp_path / "points.csv"))
    deployment, batch = deployment_of(open_catalog(), point)
    own = StepTimes.of(model("gqa"), Shape(), WeightFormat(), deployment.machine)
    assert deployment.stages[0].products == own.stages[0].stage.products
    assert batch.output_tokens == 128


def test_the_places_and_weights_are_those_of_gauss_and_legendre() -> None:
    places, weights = np.polynomial.legendre.leggauss(NODES)
    assert _PLACES.tolist() == places.tolist()
    assert _WEIGHTS.tolist() == weights.tolist()
