"""Measured end-to-end points: the CSV, and the deployment that each row describes.

A row names its model's dimensions inline, so the model needn't be in the catalog. ``prefill_s`` is the
prefill of the whole batch, ``tpot_s`` one decode step, ``e2e_s`` the whole request (docs/accuracy.md).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from catalog.architecture import Architecture, UnknownArchitectureError, read_config
from catalog.errors import CatalogError
from catalog.load import Catalog
from catalog.schema import Hardware
from planner.cost.replica import Shape, WeightFormat, shape_problems, shard
from planner.measured.batch import Batch, Deployment
from planner.measured.layers import stage_operations
from planner.measured.machine import machine, version_number
from planner.measured.step import Linear

METRICS = ("prefill_s", "tpot_s", "e2e_s")
COLUMNS = (
    *("id", "source", "engine", "engine_version", "model", "params_b", "layers", "hidden", "q_heads", "kv_heads"),
    *("head_dim", "ffn", "vocab", "gpu", "gpus", "tp", "pp", "weight_dtype", "kv_dtype", "batch", "input_tokens"),
    *("output_tokens", "metric", "value"),
)
DIMENSIONS = ("layers", "hidden", "q_heads", "kv_heads", "head_dim", "ffn", "vocab")
ENGINE_NAMES = (
    ("tensorrt", "tensorrt-llm"),
    ("trtllm", "tensorrt-llm"),
    ("trt-llm", "tensorrt-llm"),
    ("vllm", "vllm"),
    ("sglang", "sglang"),
    ("gpt-fast", "gpt-fast"),
    ("llama.cpp", "llama.cpp"),
    ("fastertransformer", "fastertransformer"),
    ("deepspeed", "deepspeed"),
    ("lmdeploy", "lmdeploy"),
    ("transformers", "transformers"),
)
"""Part of an engine's name as sources write it -> id."""
BITS = (
    (r"q4_k_m", "int4", 4.85),
    (r"(int4|w4|awq|gptq).*g32", "int4", 5.0),
    (r"int4|w4|awq|4bit", "int4", 4.25),
    (r"w8a8|smoothquant", "w8a8", 8.0),
    (r"fp8", "fp8", 8.0),
    (r"int8|w8|q8_0|8bit", "int8", 8.0),
    (r"bf16|fp16|f16|float16|^$", "bf16", 16.0),
)
"""Pattern of a weight type -> key of `Machine.gemm`, bits per weight with scales."""
RELEASED = {
    "vllm": {2023: "0.2", 2024: "0.5", 2025: "0.9", 2026: "0.20"},
    "tensorrt-llm": {2023: "0.5", 2024: "0.12", 2025: "1.0", 2026: "1.2"},
    "sglang": {2024: "0.3", 2025: "0.4", 2026: "0.5"},
}
"""Version of an engine in a year, where a source gives only that."""
CACHE_RATIOS = {"fp8": 0.5, "int8": 0.5, "fp8_e4m3": 0.5, "fp8_e5m2": 0.5}
UTILISATION = 0.9
"""Share of HBM that engines fill by default."""
WORKSPACE_BYTES = 2.0e9
"""Activations, graphs and context on each GPU [bytes]; vLLM and TensorRT-LLM take 1 to 5 GB."""


VLLM_CHUNKS_LONG, VLLM_ALWAYS_CHUNKS = 5.0, 8.0
"""Minor versions from which vLLM chunks prompts by default beyond 32K tokens, and always."""


SMALL_CHUNK, LARGE_CHUNK, LARGE_HBM = 2048, 8192, 70.0 * 2**30
"""Tokens per step of vLLM's server since it always chunks; the larger one on GPUs of 70 GiB and more but A100s."""


class PointError(ValueError):
    """A point can't be priced; the message says why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a deployment."""

    id: str
    source: str
    engine: str
    version: str
    model: str
    hardware: str
    metric: str
    value_s: float
    row: tuple[tuple[str, str], ...]

    def __getitem__(self, column: str) -> str:
        """The row's text in a column; empty if the file has none."""
        return dict(self.row).get(column, "")


def read_points(path: Path) -> list[Point]:
    """Read points from a CSV file in the schema of `COLUMNS`.

    Raises
    ------
    CatalogError
        If columns are missing or a row has no positive value; all problems at once.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError([f"{path}: can't be read as CSV: {error}; give a CSV file of points"]) from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise CatalogError([f"{path}: no column {', '.join(missing)}; the columns are {', '.join(COLUMNS)}"])
    problems: list[str] = []
    points = [point for number, row in enumerate(rows, 2) if (point := _point(row, f"{path}:{number}", problems))]
    if problems:
        raise CatalogError(problems)
    return points


def _point(row: Mapping[str, str], where: str, problems: list[str]) -> Point | None:
    if row["metric"] not in METRICS:
        problems.append(f"{where}: metric: {row['metric']!r}; use one of {', '.join(METRICS)}")
        return None
    try:
        value = float(row["value"])
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e9:
        problems.append(f"{where}: value: {row['value']!r}; give seconds, above 0")
        return None
    engine, version = engine_of(row["engine"], row["engine_version"])
    text = tuple((name, text or "") for name, text in row.items() if name)
    return Point(row["id"], row["source"], engine, version, row["model"], row["gpu"], row["metric"], value, text)


def engine_of(name: str, version: str) -> tuple[str, str]:
    """Id and version of an engine from the words of a source.

    >>> engine_of("trtllm", "1.0.0rc3"), engine_of("vLLM", "2024 (vLLM 0.5-0.6 / TRT-LLM 0.1x)")
    (('tensorrt-llm', '1.0.0rc3'), ('vllm', '0.5'))
    """
    lowered = name.lower()
    engine = next((known for part, known in ENGINE_NAMES if part in lowered), re.sub(r"[^a-z0-9]+", "-", lowered))
    part = {"tensorrt-llm": "trt-?llm|tensorrt-llm"}.get(engine, re.escape(engine))
    named = re.search(rf"(?:{part})\s*v?(\d+\.\d+)", version.lower())
    if named:
        return engine, named[1]
    year = re.search(r"\b(20[12]\d)\b", version)
    if year:
        return engine, RELEASED.get(engine, {}).get(int(year[1]), version)
    return engine, version


def weights_of(text: str) -> tuple[str, float]:
    """Key of `Machine.gemm` and bits per weight of a weight type as sources write it.

    Raises
    ------
    PointError
        If the type isn't known.
    """
    lowered = text.lower()
    for pattern, key, bits in BITS:
        if re.search(pattern, lowered):
            return key, bits
    raise PointError(f"weight_dtype {text!r} isn't known; use bf16, fp16, fp8, int8, w8a8, int4 or the like")


def architecture_of(point: Point) -> Architecture:
    """The point's model, from its inline dimensions.

    Raises
    ------
    PointError
        If they describe no decoder.
    """
    sizes = {name: _integer(point, name) for name in DIMENSIONS}
    return _architecture(tuple(sizes.items()), _number(point, "params_b"))


@lru_cache(maxsize=512)
def _architecture(sizes: tuple[tuple[str, int], ...], params_b: float) -> Architecture:
    size = dict(sizes)
    config: dict[str, object] = {
        "model_type": "llama",
        "num_hidden_layers": size["layers"],
        "hidden_size": size["hidden"],
        "num_attention_heads": size["q_heads"],
        "num_key_value_heads": size["kv_heads"],
        "head_dim": size["head_dim"],
        "intermediate_size": size["ffn"],
        "vocab_size": size["vocab"],
        "max_position_embeddings": 1 << 20,
    }
    try:
        dense = read_config(config, where="the point's dimensions")
        outside = size["layers"] * 3 * size["hidden"] * size["ffn"]
        if params_b * 1e9 > 2.0 * dense.total_params:
            # More parameters than a dense model of these dimensions has: experts, two of which a token uses.
            count = round((params_b * 1e9 - dense.total_params + outside) / outside)
            config |= {"model_type": "mixtral", "num_local_experts": count, "num_experts_per_tok": 2}
            return read_config(config, where="the point's dimensions")
        if params_b * 1e9 < 0.85 * dense.total_params:
            # Fewer: no gate. The same parameters in two products instead of three.
            spare = dense.total_params - params_b * 1e9
            inner = max(1, round(size["ffn"] - spare / (size["layers"] * 3 * size["hidden"])))
            return read_config(config | {"intermediate_size": inner}, where="the point's dimensions")
    except UnknownArchitectureError as error:
        raise PointError(str(error)) from error
    return dense


def _integer(point: Point, name: str) -> int:
    number = _number(point, name)
    if number != int(number) or number < 1:
        raise PointError(f"{name}: {point[name]!r}; give a whole number of at least 1")
    return int(number)


def _number(point: Point, name: str) -> float:
    try:
        number = float(point[name] or 0.0)
    except ValueError as error:
        raise PointError(f"{name}: {point[name]!r} isn't a number") from error
    if not math.isfinite(number):
        raise PointError(f"{name}: {point[name]!r}; give a finite number")
    return number


def deployment_of(catalog: Catalog, point: Point) -> tuple[Deployment, Batch]:
    """The deployment and the batch that a point describes.

    Raises
    ------
    PointError
        If the GPU isn't in the catalog or the model can't be split so.
    """
    if not catalog.has(Hardware, point.hardware):
        raise PointError(f"gpu {point.hardware!r} isn't in the catalog; see plan catalog list hardware")
    hardware = catalog.get(Hardware, point.hardware)
    architecture = architecture_of(point)
    weights, bits = weights_of(point["weight_dtype"])
    shape = Shape(tp=_integer(point, "tp"), pp=_integer(point, "pp"))
    problems = shape_problems(architecture, shape)
    if problems:
        raise PointError("; ".join(problems))
    stored = WeightFormat(bytes_ratio=bits / 16.0)
    ratio = CACHE_RATIOS.get(point["kv_dtype"].lower(), 1.0)
    deployment = Deployment(
        stages=stage_operations(architecture, shape, stored),
        machine=machine(catalog, hardware, point.engine, point.version),
        linear=Linear(weights),
        capacity_tokens=_capacity(architecture, shape, stored, hardware, ratio),
        cache_ratio=ratio,
    )
    batch = Batch(_integer(point, "batch"), _integer(point, "input_tokens"), _integer(point, "output_tokens"))
    return deployment, replace(batch, chunk_tokens=_chunk(point, batch, hardware))


def _chunk(point: Point, batch: Batch, hardware: Hardware) -> int:
    """Prompt tokens per step that the engine's version takes by default; 0: whole prompts [tokens]."""
    number = version_number(point.version)
    if point.engine == "vllm" and number is not None:
        if number >= VLLM_ALWAYS_CHUNKS:
            return LARGE_CHUNK if hardware.hbm >= LARGE_HBM and "a100" not in hardware.id else SMALL_CHUNK
        if number >= VLLM_CHUNKS_LONG and batch.input_tokens + batch.output_tokens > 32768:
            return 512
    return 0


def _capacity(
    architecture: Architecture, shape: Shape, weights: WeightFormat, hardware: Hardware, ratio: float
) -> float:
    """Tokens of KV cache that fit the fullest GPU [tokens]."""
    room = []
    for stage in shard(architecture, shape, weights).stages:
        free = hardware.hbm * UTILISATION - stage.weight_bytes - WORKSPACE_BYTES
        per_token = ratio * sum(term.stored_bytes / term.stride_tokens for term in stage.terms)
        room.append(max(free, 0.0) / max(per_token, 1e-9))
    return min(room)
