"""Sharding, compression and efficiency of the cost model, each against numbers that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from catalog.architecture import read_config
from catalog.schema import Linear, Point, PrefillEffect, Source, Technique, TimeOverhead
from planner.cost.compression import CompressionTable, compression_table
from planner.cost.efficiency import PEAK, Efficiency
from planner.cost.memory import sessions_that_fit
from planner.cost.price import link_bytes_per_s, price
from planner.cost.replica import Shape, WeightFormat, shape_problems, shard, stage_layers
from planner.cost.session import BOUNDS, SWAP
from planner.cost.workload import Workload
from tests.cost_models import (
    CONFIGS,
    GEMMA,
    LLAMA_8B,
    YI,
    candidates,
    hardware,
    kept,
    model,
    server,
    setting,
    uncompressed,
)


def option(
    dimension: str, storage: Linear, *, overhead: TimeOverhead | None = None, **more: bool
) -> tuple[Technique, Point]:
    point = Point(
        id="p", strength=1.0, storage=storage, reads=storage, prefill=PrefillEffect(), prior=None, overhead=overhead
    )
    technique = Technique(
        id="t",
        name="T",
        sources=(Source(ref="test"),),
        checked="2026-11-25",
        dimension=dimension,
        tier="ships",
        training="none",
        points=(point,),
        **more,
    )
    return technique, point


def table(**options: tuple[Technique, Point]) -> CompressionTable:
    return compression_table([[options.get(name) for name in ("layer", "head", "token", "hidden", "attention")]])


def timed(decode: float | None, prefill: float | None) -> TimeOverhead:
    return TimeOverhead(decode=decode, prefill=prefill, provenance="found", source="test")


# ------------------------------------------------------------------------------- sharding


@pytest.mark.parametrize("kind", CONFIGS)
def test_one_gpu_holds_exactly_the_checkpoint(kind: str) -> None:
    a = model(kind)
    (stage,) = shard(a, Shape(), WeightFormat()).stages
    assert stage.weight_bytes == 2 * a.total_params
    assert stage.linear_flops == 2 * sum(layer.active_params for layer in a.layers)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("pp", [2, 3])
def test_stages_together_hold_the_checkpoint_and_a_tied_head_twice(kind: str, pp: int) -> None:
    a = model(kind)
    counts = stage_layers(len(a.layers), pp)
    assert sum(counts) == len(a.layers)
    stages = shard(a, Shape(pp=pp), WeightFormat()).stages
    if len(stages) == pp:
        held = sum(stage.weight_bytes for stage in stages)
        assert held == pytest.approx(2 * (a.total_params + (a.head_params if a.tied else 0)))


def test_kv_heads_replicate_beyond_their_number() -> None:
    per_gpu = [shard(model("gqa"), Shape(tp=tp), WeightFormat()).stages[0].terms[0].stored_bytes for tp in (1, 8, 16)]
    assert per_gpu == [131072, 131072 / 8, 131072 / 8]
    (latent,) = shard(model("mla"), Shape(tp=8), WeightFormat()).stages[0].terms
    assert latent.stored_bytes == 27 * 576 * 2


def test_context_parallelism_shards_growing_caches_but_not_what_a_chunk_reads_or_windows() -> None:
    growing, window = sorted(
        shard(model("sliding"), Shape(tp=16, dcp=1, pcp=2), WeightFormat()).stages[0].terms, key=lambda t: not t.full
    )
    plain, plain_window = sorted(
        shard(model("sliding"), Shape(tp=16), WeightFormat()).stages[0].terms, key=lambda t: not t.full
    )
    assert growing.stored_bytes == plain.stored_bytes / 2
    assert growing.prefix_bytes == plain.prefix_bytes == plain.read_bytes
    assert window.stored_bytes == plain_window.stored_bytes


def test_an_indexers_work_is_on_every_rank() -> None:
    one, eight = (shard(model("indexer"), Shape(tp=tp), WeightFormat()).stages[0].terms for tp in (1, 8))
    for whole, part in zip(one, eight, strict=True):
        assert part.prefill_flops == (whole.prefill_flops / 8 if whole.compressible else whole.prefill_flops)


def test_quantised_weights_are_smaller_but_embedding_and_head_are_not() -> None:
    a = read_config(LLAMA_8B)
    (stage,) = shard(a, Shape(), WeightFormat(bytes_ratio=0.5)).stages
    layers = sum(layer.params for layer in a.layers)
    assert stage.weight_bytes == 2 * (layers / 2 + a.embedding_params + a.head_params + a.final_params)


@pytest.mark.parametrize(
    ("kind", "shape", "replicas", "said"),
    [
        ("gqa", Shape(tp=3), 1, "tp 3 doesn't divide 32 query heads"),
        ("gqa", Shape(pp=99), 1, "pp 99 exceeds the 32 layers"),
        ("gqa", Shape(tp=8, dcp=2), 1, "tp / KV heads = 1"),
        ("gqa", Shape(tp=1, ep=2), 2, "no experts"),
        ("moe", Shape(tp=2, ep=3), 2, "ep 3 must be tp 2 times a divisor of the 2 replicas"),
        ("mla", Shape(tp=1, ep=48), 48, "doesn't divide the number of experts"),
    ],
)
def test_splits_that_engines_refuse_are_told(kind: str, shape: Shape, replicas: int, said: str) -> None:
    (problem,) = shape_problems(model(kind), shape, replicas)
    assert said in problem


def test_kv_heads_and_ranks_must_divide_each_other() -> None:
    a = read_config({**LLAMA_8B, "num_attention_heads": 24, "num_key_value_heads": 6, "head_dim": 128})
    assert shape_problems(a, Shape(tp=3)) == shape_problems(a, Shape(tp=12)) == []
    (problem,) = shape_problems(a, Shape(tp=4))
    assert "tp 4 and 6 KV heads" in problem


def test_splits_that_engines_take() -> None:
    assert shape_problems(model("mqa"), Shape(tp=8, dcp=8, pp=2, pcp=2)) == []
    assert shape_problems(model("moe"), Shape(tp=2, ep=8), 4) == []


# ---------------------------------------------------------------------------- compression


def test_slopes_multiply_and_budgets_shrink_with_later_slopes() -> None:
    half, quarter = option("token", Linear(slope=0.5)), option("hidden", Linear(slope=0.25))
    assert table(token=half, hidden=quarter).stored_tokens(8000, 8000) == [1000]
    budget = option("token", Linear(slope=0.0, const_tokens=1024))
    assert table(token=budget, hidden=quarter).stored_tokens(8000, 8000) == [256]
    assert table(token=budget).stored_tokens(500, 500) == [500]


def test_a_budget_is_not_cut_by_another_budget() -> None:
    evicting, selecting = (
        option(name, Linear(slope=0.0, const_tokens=n)) for name, n in (("token", 1024), ("attention", 2048))
    )
    both = table(token=evicting, attention=selecting)
    for tokens in (4000, 1_000_000):
        assert both.read_tokens(tokens, tokens) == [1024]
        assert both.attended_tokens(tokens, tokens) == [1024]


def test_generated_tokens_stay_unless_eviction_goes_on() -> None:
    linear = Linear(slope=0.1)
    assert table(token=option("token", linear)).stored_tokens(1000, 1200) == [300]
    assert table(token=option("token", linear, evicts_while_decoding=True)).stored_tokens(1000, 1200) == [120]


def test_quantised_entries_are_still_computed_with() -> None:
    quantised = table(hidden=option("hidden", Linear(slope=0.25)))
    assert quantised.read_tokens(1000, 1000) == [250]
    assert quantised.attended_tokens(1000, 1000) == [1000]


def test_metadata_takes_more_than_the_cache_alone() -> None:
    assert table(attention=option("attention", Linear(slope=1.0625))).stored_tokens(1600, 1600) == [1700]


def test_the_time_of_techniques_multiplies_where_the_view_counts_it() -> None:
    slow = table(hidden=option("hidden", Linear(slope=1.0), overhead=timed(2.0, 1.5)))
    both = table(
        hidden=option("hidden", Linear(slope=1.0), overhead=timed(2.0, 1.5)),
        token=option("token", Linear(slope=1.0), overhead=timed(1.1, None)),
    )
    assert (both.decode_time[0], both.prefill_time[0]) == (pytest.approx(2.2), 1.5)
    view = Efficiency("measured", technique_time=True)
    plain, priced = (
        price(setting(model("gqa"), 50_000, efficiency=view, compression=c), candidates(prefill_chunk=2048))
        for c in (uncompressed(), slow)
    )
    assert priced.step_s == pytest.approx(2.0 * plain.step_s)
    assert priced.prefill_s == pytest.approx(1.5 * plain.prefill_s)
    at_peak = price(setting(model("gqa"), 50_000, compression=slow), candidates(prefill_chunk=2048))
    assert (at_peak.step_s, at_peak.prefill_s) == (plain.step_s, plain.prefill_s)


def test_a_technique_that_claims_to_save_time_by_itself_does_not() -> None:
    assert table(hidden=option("hidden", Linear(slope=1.0), overhead=timed(0.5, 0.5))).decode_time == [1.0]


# --------------------------------------------------------------------- lengths and memory


def test_lengths_of_a_growing_session() -> None:
    work = Workload(1000, rounds=3, question_tokens=10, output_tokens=40, growth=True)
    assert (work.prompt_tokens, work.end_tokens) == (1010, 1150)
    assert work.decode_tokens == (1010 + 1060 + 1110) / 3 + 20
    assert work.warm_tokens == (1050 + 1100) / 2
    assert work.last_warm_tokens == 1100


def test_the_shared_prefix_is_stored_prefilled_and_swapped_once() -> None:
    a, table_ = read_config(YI), uncompressed()
    replica = shard(a, Shape(tp=2), WeightFormat())
    whole = sessions_that_fit(replica, table_, 80 * 2**30, 100_000, 100_000, 0)
    shared = sessions_that_fit(replica, table_, 80 * 2**30, 100_000, 100_000, 75_000)
    # 51.5 GB are free for sessions of 12.3 GB: 4; with 9.2 GB shared, 42.3 GB for 3.1 GB each: 13.
    assert (whole, shared) == (4, 13)
    plain, cut = (
        price(
            setting(a, 100_000, Shape(tp=2), shared_prefix_tokens=k),
            candidates(policy=SWAP, prefill_chunk=5000, throttled=True, decode_sequences=1),
        )
        for k in (0, 75_000)
    )
    assert cut.switch_s == plain.switch_s
    swap_s = 100_000 * 122_880 / 20e9
    assert plain.ttft_warm_s - cut.ttft_warm_s == pytest.approx(0.75 * swap_s, rel=1e-6)
    assert cut.prefill_s < 0.5 * plain.prefill_s


def test_the_fullest_gpu_never_holds_more_than_it_has() -> None:
    # The first stage has an embedding, the last one a head and a layer less: weights and KV peak on different GPUs.
    config = {**LLAMA_8B, "num_hidden_layers": 7}
    p = price(setting(read_config(config), 50_000, Shape(pp=2)), candidates())
    assert p.weights_bytes[0] + p.kv_bytes[0] <= 80 * 2**30
    assert p.kv_bytes[0] == p.sessions_that_fit[0] * 50_000 * 4096 * 4


def test_the_fullest_gpu_is_that_with_most_of_weights_and_kv_together() -> None:
    # Stages of 5 sliding layers, and of 3 with the only full one: more weights there, more KV here.
    a = read_config({**GEMMA, "num_hidden_layers": 9, "vocab_size": 32000})
    first, second = shard(a, Shape(pp=2), WeightFormat()).stages
    assert first.weight_bytes > second.weight_bytes
    short, long = (
        price(setting(a, ctx, Shape(pp=2)), candidates(resident_limit=limit))
        for ctx, limit in ((5000, 1), (100_000, 0))
    )
    assert short.weights_bytes[0] == first.weight_bytes
    assert short.kv_bytes[0] == 5 * 1024 * 8192
    assert long.weights_bytes[0] == second.weight_bytes
    assert long.kv_bytes[0] == long.sessions_that_fit[0] * (3 * 1024 + 100_000) * 8192


def test_a_prefill_reads_the_weights_per_chunk_and_the_head_once() -> None:
    a = model("gqa")
    gpu = hardware(flops=1e30, hbm_bandwidth=1e12)
    layers = 2 * (sum(layer.params for layer in a.layers) + a.final_params)
    head = 2 * a.head_params
    p = price(setting(a, 2000, gpu=gpu), candidates(prefill_chunk=[0, 1000]))
    assert p.prefill_s == pytest.approx([(layers + head) / 1e12, (2 * layers + head + 1000 * 131072) / 1e12])


def test_the_tier_holds_the_caches_of_all_users() -> None:
    p = price(setting(model("gqa"), 100_000, Shape(tp=2)), candidates(policy=SWAP, replicas=3, decode_sequences=2))
    assert p.tier_bytes[0] == pytest.approx(p.users[0] * 100_000 * 131072)
    assert price(setting(model("gqa"), 100_000, Shape(tp=2)), candidates()).tier_bytes[0] == 0


def test_what_does_not_fit_has_no_throughput_and_says_memory() -> None:
    p = price(setting(read_config(YI), 100_000), candidates())
    assert not p.fits[0]
    assert (p.interactions_per_hour[0], p.usd_per_interaction[0]) == (0.0, np.inf)
    assert BOUNDS[p.bound[0]] == "memory"
    crowded = price(setting(model("gqa"), 100_000), candidates(decode_sequences=5, resident_limit=5))
    assert not crowded.fits[0]


# ------------------------------------------------------------------------- links and views


def test_uplinks_are_shared_where_the_view_counts_it() -> None:
    tier = np.array([0, 1])
    into, out = link_bytes_per_s(setting(model("gqa"), 1000), tier)
    assert (into.tolist(), out.tolist()) == ([20e9, 2.5e9], [20e9, 1.25e9])
    into, _ = link_bytes_per_s(setting(model("gqa"), 1000, efficiency=Efficiency("x", shared_uplinks=True)), tier)
    assert into.tolist() == [10e9, 2.5e9]


def test_no_price_gives_no_dollars() -> None:
    s = setting(model("gqa"), 1000)
    free = type(s)(**{**{name: getattr(s, name) for name in s.__slots__}, "usd_per_gpu_hour": None})
    p = price(free, candidates())
    assert np.isnan(p.usd_per_hour[0])
    assert np.isnan(p.usd_per_interaction[0])
    assert p.interactions_per_hour[0] > 0


@pytest.mark.parametrize("value", [0.0, -1.0, 1.01, float("nan")])
def test_a_view_faster_than_the_roofline_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="hbm_bandwidth"):
        Efficiency("x", hbm_bandwidth=value)


def test_factors_of_a_view_slow_what_they_name() -> None:
    half = Efficiency("half", linear_flops=0.5, attention_flops=0.5, hbm_bandwidth=0.5, gpu_utilisation=0.5)
    peak, slow = (
        price(setting(model("mla"), 20_000, efficiency=v), candidates(resident_limit=1)) for v in (PEAK, half)
    )
    assert slow.step_s == pytest.approx(2 * peak.step_s)
    assert slow.prefill_s == pytest.approx(2 * peak.prefill_s)


def test_pricing_together_equals_pricing_alone() -> None:
    shapes = (Shape(), Shape(tp=2), Shape(pp=2), Shape(tp=2, pp=2))
    rng = np.random.default_rng(1)
    columns = {
        "shape": rng.integers(0, 4, 60),
        "decode_sequences": rng.integers(1, 5, 60),
        "prefill_chunk": rng.choice([0, 500, 3000], 60),
        "policy": rng.integers(0, 3, 60),
        "throttled": rng.random(60) < 0.5,
        "prefill_shape": rng.choice([-1, 0, 3], 60),
        "prefill_replicas": np.full(60, 2),
        "replicas": rng.integers(1, 3, 60),
    }
    s = setting(model("sliding"), 30_000, *shapes, efficiency=Efficiency("x", growth=True), compression=kept(0.5))
    together = price(s, candidates(**columns))
    for i in range(60):
        alone = price(s, candidates(**{name: values[i : i + 1] for name, values in columns.items()}))
        for field in together.__slots__:
            assert getattr(together, field)[i] == pytest.approx(getattr(alone, field)[0], rel=1e-12), field


def test_hardware_of_the_tests_is_the_papers() -> None:
    assert hardware().hbm == 85_899_345_920
    assert server().gpus_per_pcie_uplink == 2
