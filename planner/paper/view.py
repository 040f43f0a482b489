"""One model on one GPU type in the paper's view, and its four metrics from the project's own cost model.

The view differs from the cost model's defaults in inputs only: `PEAK` efficiency, rounded sizes, all
weights read and multiplied for every token (no separate embedding and head), and a coefficient of
attention. The arithmetic is that of `planner.cost`.

References
----------
Y. Fu 2024, arXiv 2405.08944.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from catalog.architecture import Architecture, Experts, Layer, read_config
from catalog.architecture.parts import Heads, attention
from catalog.load import Catalog
from catalog.schema import Hardware, Model, Node, Provenance
from planner.cost.compression import ATTENTION, HEAD, HIDDEN, LAYER, TOKEN, CompressionTable, compression_table
from planner.cost.compute import Rates, rates
from planner.cost.efficiency import PEAK
from planner.cost.memory import session_bytes
from planner.cost.price import Candidates, Priced, Setting, price
from planner.cost.replica import Shape as Split
from planner.cost.replica import Stage, WeightFormat, shard
from planner.cost.session import NONE
from planner.cost.workload import Workload
from planner.errors import InputError
from planner.paper.facts import ComparedModel, Shape, compared_models, conventions

EXACT_CAUSAL = 2.0
"""Coefficient of attention in the cost model: two FLOPs per multiplication and addition, half of the pairs."""
DIMENSIONS = {"layer": LAYER, "head": HEAD, "token": TOKEN, "hidden": HIDDEN, "attention": ATTENTION}
GIB = float(2**30)
_WEAKER: tuple[Provenance, ...] = ("found", "derived", "secondary", "recalled")
"""Each is weaker than the one before."""


@dataclass(frozen=True, slots=True)
class View:
    """A model on a GPU type, at theoretical peak."""

    architecture: Architecture
    hardware: Hardware
    node: Node
    output_tokens: int
    rounds: int = 1
    think_s: float = 0.0
    policy: int = NONE


@dataclass(frozen=True, slots=True)
class Metrics:
    """The paper's four metrics of one replica."""

    users: float
    """KV caches that fit beside the weights, with the fraction; negative if the weights don't fit."""
    concurrency: int
    """Whole users."""
    prefill_s: float
    decode_s: float
    switch_s: float


def rounded(catalog: Catalog, model: ComparedModel, attention_coefficient: float) -> Architecture:
    """A model whose parameters all are ordinary weights, as many as its rounded size.

    Parameters
    ----------
    catalog
        Where the model's config is, if it is named there.
    model
        The model.
    attention_coefficient
        FLOPs of prefill attention per token, layer, unit of width and context token.
    """
    if model.shape is None:
        config = read_config(catalog.get(Model, model.catalog or model.id).config)
        layers, heads, params = config.layers, config.query_heads, round(model.params or config.total_params)
    else:
        params, heads = round(model.params or 0.0), model.shape.query_heads
        layers = _shape_layers(model.shape, params)
    ordinary = params - sum(la.experts.count * la.experts.params_each for la in layers if la.experts)
    factor = attention_coefficient / EXACT_CAUSAL
    ends = [ordinary * i // len(layers) for i in range(len(layers) + 1)]
    same = tuple(
        replace(
            layer,
            cache=tuple(replace(term, prefill_flops=term.prefill_flops * factor) for term in layer.cache),
            sharded_params=ends[index + 1] - ends[index],
            kv_params=0,
            replicated_params=0,
        )
        for index, layer in enumerate(layers)
    )
    return Architecture("paper", same, 1, 1, heads, 0, 0, False, 0, 0, 10**9)


def shape_provenance(catalog: Catalog, model: ComparedModel) -> Provenance:
    """The weakest provenance among the sources of a model's shape."""
    if model.source is not None:
        return model.source.provenance
    sources = catalog.get(Model, model.catalog or model.id).sources
    speaking = [source.provenance for source in sources if not source.fields or "config" in source.fields]
    return max(speaking or [source.provenance for source in sources], key=_WEAKER.index)


def _shape_layers(shape: Shape, params: int) -> tuple[Layer, ...]:
    """Equal layers of this shape, with the routed experts that its active size implies."""
    width, experts = shape.query_heads * shape.head_dim, None
    # Of the attention only the cache and the FLOPs per attended token count, whatever the model's width.
    part = attention(Heads(width, shape.query_heads, shape.kv_heads, shape.head_dim, shape.head_dim))
    if shape.active_params is not None:
        idle = (params - shape.active_params) / (shape.experts - shape.active_experts)
        experts = Experts(shape.experts, shape.active_experts, round(idle / shape.layers))
    return (Layer(part.cache, 0, 0, 0, part.kv_heads, experts),) * shape.layers


def paper_view(
    catalog: Catalog,
    model: str | None = None,
    *,
    attention_coefficient: float | None = None,
    hbm_bandwidth: float | None = None,
    pcie: float | None = None,
) -> View:
    """A model on the paper's A100; what isn't given is the paper's convention.

    Parameters
    ----------
    catalog
        Facts.
    model
        Id of `planner.paper.facts.compared_models`.
    attention_coefficient
        See `rounded`.
    hbm_bandwidth
        [bytes/s]
    pcie
        Copies between HBM and DDR, each way [bytes/s].
    """
    told = conventions()
    hardware = catalog.get(Hardware, told.hardware)
    link = hardware.pcie.model_copy(update={"effective": told.pcie if pcie is None else pcie})
    bandwidth = told.hbm_bandwidth if hbm_bandwidth is None else hbm_bandwidth
    paper_gpu = hardware.model_copy(update={"hbm_bandwidth": bandwidth, "pcie": link})
    return on(catalog, paper_gpu, model, attention_coefficient)


def on(
    catalog: Catalog, hardware: Hardware, model: str | None = None, attention_coefficient: float | None = None
) -> View:
    """A model on any GPU type, by default with the paper's model and coefficient of attention.

    Raises
    ------
    InputError
        If the catalog has no server for the GPU nor for the paper's.
    """
    told = conventions()
    coefficient = told.attention_coefficient if attention_coefficient is None else attention_coefficient
    architecture = rounded(catalog, compared_models()[model or told.model], coefficient)
    node = catalog.default_node(hardware) or catalog.default_node(catalog.get(Hardware, told.hardware))
    if node is None:
        raise InputError(f"nodes: none is assumed for {told.hardware}; add default_for: [{told.hardware}] to one")
    return View(architecture, hardware, node, told.output_tokens)


def kept(*, prefill: float = 1.0, **shares: float) -> CompressionTable:
    """Compression that keeps a share of the cache per dimension, and costs a share of the prefill.

    Examples
    --------
    >>> kept(token=0.5).stored_tokens(1000, 1000)
    array([500.])
    """
    table = compression_table([[None] * len(DIMENSIONS)])
    for dimension, share in shares.items():
        table.storage_slope[DIMENSIONS[dimension]] = share
        table.reads_slope[DIMENSIONS[dimension]] = share
    table.prefill_linear[:] = prefill
    table.prefill_attention[:] = prefill
    return table


def stage_of(view: View, gpus: int = 1) -> Stage:
    """What each GPU of a replica stores and computes, split by tensor parallelism."""
    return shard(view.architecture, Split(tp=gpus), WeightFormat()).stages[0]


def rates_of(view: View) -> Rates:
    """What a GPU delivers at peak."""
    flops = view.hardware.flops.bf16
    return rates(flops, flops, view.hardware.hbm_bandwidth, PEAK)


def kv_bytes(view: View, tokens: int, compression: CompressionTable | None = None) -> float:
    """KV cache of one session [bytes]."""
    return float(session_bytes(stage_of(view), compression or kept(), tokens, tokens)[0])


def priced(view: View, tokens: int, gpus: int = 1, compression: CompressionTable | None = None) -> Priced:
    """One replica on ``gpus`` GPUs, decoding one session at a time, as the cost model prices it at peak."""
    work = Workload(tokens, view.rounds, 0, view.output_tokens, view.think_s)
    setting = Setting(
        architecture=view.architecture,
        hardware=view.hardware,
        node=view.node,
        gpus_per_node=gpus,
        cluster_gpus=gpus,
        workload=work,
        efficiency=PEAK,
        shapes=(Split(tp=gpus),),
        weight_formats={"w_bf16": WeightFormat()},
        compression=compression or kept(),
    )
    zero, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    candidates = Candidates(
        shape=zero,
        compression=zero,
        replicas=one,
        decode_sequences=one,
        resident_limit=zero,
        prefill_chunk=zero,
        throttled=zero.astype(np.bool_),
        policy=one * view.policy,
        tier=zero,
        prefill_shape=-one,
        prefill_replicas=zero,
        prefill_pool_chunk=zero,
        reserve_gpus=zero,
    )
    return price(setting, candidates)


def metrics(view: View, tokens: int, gpus: int = 1, compression: CompressionTable | None = None) -> Metrics:
    """The four metrics of one replica on ``gpus`` GPUs."""
    result = priced(view, tokens, gpus, compression)
    stage = stage_of(view, gpus)
    each = float(session_bytes(stage, compression or kept(), tokens, tokens)[0])
    return Metrics(
        users=(view.hardware.hbm - stage.weight_bytes) / each,
        concurrency=int(result.sessions_that_fit[0]),
        prefill_s=float(result.prefill_s[0]),
        decode_s=float(result.decode_s[0]),
        switch_s=float(result.switch_s[0]),
    )


def decode_s(view: View, cache_bytes: float) -> float:
    """Time of an answer over a cache of ``cache_bytes`` bytes [s]."""
    tokens = 10**6
    share = cache_bytes / kv_bytes(view, tokens)
    return float(priced(view, tokens, compression=kept(token=share)).decode_s[0])


def critical_tokens(view: View) -> float:
    """Tokens in a step at which multiplying the weights takes as long as reading them."""
    stage, rate = stage_of(view), rates_of(view)
    return stage.dense_read_bytes / stage.linear_flops * (rate.linear_flops_per_s / rate.hbm_bytes_per_s)


def always_memory_bound_tokens(view: View) -> float:
    """Context beyond which decoding is bound by HBM bandwidth at any batch [tokens].

    In the limit of large batches a sequence costs its own FLOPs and its own KV reads, and both grow
    with its context; the reads grow faster.
    """
    stage, rate = stage_of(view), rates_of(view)
    read_s = sum(term.read_bytes for term in stage.terms) / rate.hbm_bytes_per_s
    attention_s = sum(term.decode_flops for term in stage.terms) / rate.attention_flops_per_s
    return stage.linear_flops / rate.linear_flops_per_s / (read_s - attention_s)


def crossover_tokens(view: View) -> int:
    """Context from which prefilling takes longer than decoding the answer [tokens]."""

    def longer(tokens: int) -> bool:
        result = priced(view, tokens)
        return bool(result.prefill_s[0] >= result.decode_s[0])

    return first_where(longer, 10_000_000)


def first_where(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to ``most`` for which a monotonous property holds."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
