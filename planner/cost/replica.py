"""One replica: a model split over GPUs, as coefficients of what each pipeline stage stores and computes.

Everything here is a scalar per GPU of a stage; `memory`, `compute` and `session` apply it to arrays
of candidates. Uncompressed caches are in the engine's own precision (bf16 unless the term says so).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from catalog.architecture import Architecture, CacheTerm, Layer

V = TypeVar("V")

TermKey = tuple[int | None, bool, int, int | None, bool]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one replica is split. GPUs of a replica: tp * pp * pcp."""

    tp: int = 1
    pp: int = 1
    dcp: int = 1
    pcp: int = 1
    ep: int = 1
    weights: str = "w_bf16"

    @property
    def gpus(self) -> int:
        """GPUs of one replica; decode context parallelism reuses the tensor-parallel ones."""
        return self.tp * self.pp * self.pcp


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """What a weight precision does to bytes and to the rate of the linear layers."""

    bytes_ratio: float = 1.0
    """Bytes of the layers' linear weights over those in bf16."""
    experts_only: bool = False
    """True where only routed experts are stored in the format."""
    flops_precision: str = "bf16"


@dataclass(frozen=True, slots=True)
class TermCost:
    """Equal cache terms of a stage, added up, per GPU."""

    window_tokens: int | None
    chunked: bool
    stride_tokens: int
    cap_entries: int | None
    compressible: bool
    stored_bytes: float
    """Per cached entry [bytes]."""
    read_bytes: float
    """Per attended entry and decode step [bytes]."""
    prefix_bytes: float
    """Per entry of the prefix and prefill chunk: every rank attends to the whole prefix [bytes]."""
    decode_flops: float
    """Per query token and attended entry [FLOP]."""
    prefill_flops: float
    """Per query token and attended entry [FLOP]."""
    expand_flops: float
    """Per prefix token and chunk [FLOP]."""

    @property
    def full(self) -> bool:
        """Whether the term grows with the context without bound."""
        return self.window_tokens is None


@dataclass(frozen=True, slots=True)
class ExpertCost:
    """Routed experts of a stage, per GPU."""

    layers: int
    count: int
    active: int
    local_bytes: float
    """All local experts of the stage [bytes]."""
    batch_factor: float
    """Tokens routed to a GPU's experts come from so many replicas (attention-DP with EP)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage, per GPU."""

    terms: tuple[TermCost, ...]
    state_bytes: float
    """Recurrent state per session [bytes]."""
    weight_bytes: float
    """All weights that the GPU holds [bytes]."""
    dense_read_bytes: float
    """Weights that every step reads: all but input embedding, vision tower and routed experts [bytes]."""
    head_read_bytes: float
    """Of these, the output head, which prefill needs once per prompt [bytes]."""
    linear_flops: float
    """Per token, without the head [FLOP]."""
    head_flops: float
    """Per token that is sampled [FLOP]."""
    scan_flops: float
    """Recurrence per token [FLOP]."""
    experts: tuple[ExpertCost, ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """A split model: its distinct stages (equal ones are kept once)."""

    shape: Shape
    stages: tuple[Stage, ...]
    linear_precision: str


def stage_layers(layers: int, pp: int) -> tuple[int, ...]:
    """Split layers over stages as vLLM does: a remainder goes to the stages before the last, from the back.

    >>> stage_layers(61, 4), stage_layers(80, 2)
    ((15, 15, 16, 15), (40, 40))
    """
    counts = [layers // pp] * pp
    for extra in range(layers % pp):
        counts[-(extra + 2)] += 1
    return tuple(counts)


def shape_problems(architecture: Architecture, shape: Shape, replicas: int = 1) -> list[str]:
    """Say why a model can't be split so; an empty list means that it can.

    The rules are those of engines: heads divide over tensor parallelism, decode context
    parallelism only uses ranks that would hold copies, experts spread over whole replicas.
    """
    problems = []
    if architecture.query_heads % shape.tp:
        near = ", ".join(str(tp) for tp in range(1, 65) if architecture.query_heads % tp == 0)
        problems.append(f"tp {shape.tp} doesn't divide {architecture.query_heads} query heads; use one of {near}")
    else:
        problems += _kv_head_problems(architecture, shape.tp)
    if shape.pp > len(architecture.layers):
        problems.append(f"pp {shape.pp} exceeds the {len(architecture.layers)} layers; use fewer stages")
    if shape.dcp > 1:
        heads = max((t.kv_heads for la in architecture.layers for t in la.cache if t.window_tokens is None), default=1)
        most = max(1, shape.tp // heads)
        if shape.tp % shape.dcp or shape.dcp > most:
            problems.append(
                f"dcp {shape.dcp} needs a divisor of tp {shape.tp} up to tp / KV heads = {most}: it shards only "
                "over ranks that would hold copies of the cache"
            )
    if shape.ep > 1:
        if not any(la.experts for la in architecture.layers):
            problems.append(f"ep {shape.ep}: the model has no experts; leave ep at 1")
        elif shape.ep % shape.tp or replicas % (shape.ep // shape.tp):
            problems.append(f"ep {shape.ep} must be tp {shape.tp} times a divisor of the {replicas} replicas")
        elif any(la.experts and la.experts.count % shape.ep for la in architecture.layers):
            problems.append(f"ep {shape.ep} doesn't divide the number of experts")
    return problems


def _kv_head_problems(architecture: Architecture, tp: int) -> list[str]:
    kv_heads = sorted({layer.kv_heads for layer in architecture.layers if layer.cache})
    clashing = [heads for heads in kv_heads if max(heads, tp) % min(heads, tp)]
    return [f"tp {tp} and {heads} KV heads: one must divide the other; use a tp that does" for heads in clashing[:1]]


def each_layer(layers: Sequence[Layer], of: Callable[[Layer], V]) -> list[V]:
    """What a function says of each layer, asked once where the same layer repeats."""
    known = {key: of(layer) for key, layer in {id(layer): layer for layer in layers}.items()}
    return [known[id(layer)] for layer in layers]


@lru_cache(maxsize=4096)
def shard(architecture: Architecture, shape: Shape, weights: WeightFormat) -> Replica:
    """Split a model over one replica and return its stages' coefficients."""
    stages: list[Stage] = []
    first = 0
    counts = stage_layers(len(architecture.layers), shape.pp)
    for index, count in enumerate(counts):
        layers = architecture.layers[first : first + count]
        first += count
        stage = _stage(architecture, layers, shape, weights, index == 0, index == shape.pp - 1)
        if stage not in stages:
            stages.append(stage)
    return Replica(shape, tuple(stages), weights.flops_precision)


def _stage(
    architecture: Architecture, layers: tuple[Layer, ...], shape: Shape, weights: WeightFormat, first: bool, last: bool
) -> Stage:
    dense_params = sum(each_layer(layers, lambda layer: _local_params(layer, shape.tp)))
    dense_bytes = 2.0 * dense_params * (1.0 if weights.experts_only else weights.bytes_ratio)
    experts = _experts(layers, shape, weights)
    embedding = 2.0 * architecture.embedding_params / shape.tp if first else 0.0
    other = 2.0 * architecture.other_params / shape.tp if first else 0.0
    head = 2.0 * architecture.head_params / shape.tp if last else 0.0
    final = 2.0 * architecture.final_params if last else 0.0
    # A tied head is the embedding: stored once where one stage has both, read as the head.
    stored_head = 0.0 if architecture.tied and first and last else head
    active = dense_params + sum(each_layer(layers, _active_expert_params)) / shape.tp
    return Stage(
        terms=_terms(layers, shape),
        state_bytes=sum(each_layer(layers, lambda layer: layer.state_bytes / min(shape.tp, layer.state_heads))),
        weight_bytes=dense_bytes + sum(e.local_bytes for e in experts) + embedding + other + stored_head + final,
        dense_read_bytes=dense_bytes + head + final,
        head_read_bytes=head,
        linear_flops=2.0 * active,
        head_flops=2.0 * architecture.head_params / shape.tp if last else 0.0,
        scan_flops=sum(layer.scan_flops for layer in layers) / shape.tp,
        experts=experts,
    )


def _local_params(layer: Layer, tp: int) -> float:
    """Parameters of a layer, without routed experts, on one rank: K and V replicate beyond the KV heads."""
    kv_share = _head_share(layer.kv_heads, tp)
    return layer.sharded_params / tp + layer.kv_params * kv_share + layer.replicated_params


def _head_share(heads: int, tp: int) -> float:
    """Share of the KV heads that one rank holds: at least one head each."""
    return max(1, -(-heads // tp)) / heads


def _active_expert_params(layer: Layer) -> int:
    return layer.experts.active * layer.experts.params_each if layer.experts else 0


def _experts(layers: tuple[Layer, ...], shape: Shape, weights: WeightFormat) -> tuple[ExpertCost, ...]:
    spread = shape.ep if shape.ep > 1 else shape.tp
    merged: dict[tuple[int, int], tuple[int, float]] = {}
    for layer in layers:
        if layer.experts is None:
            continue
        key = (layer.experts.count, layer.experts.active)
        number, local = merged.get(key, (0, 0.0))
        added = 2.0 * weights.bytes_ratio * layer.experts.count * layer.experts.params_each / spread
        merged[key] = (number + 1, local + added)
    factor = shape.ep / shape.tp if shape.ep > 1 else 1.0
    return tuple(
        ExpertCost(number, count, active, local, factor) for (count, active), (number, local) in merged.items()
    )


def _terms(layers: tuple[Layer, ...], shape: Shape) -> tuple[TermCost, ...]:
    merged: dict[TermKey, list[float]] = {}
    for terms in each_layer(layers, lambda layer: [(_term_key(t), _term_per_gpu(t, shape)) for t in layer.cache]):
        for key, values in terms:
            sums = merged.setdefault(key, [0.0] * 6)
            for index, value in enumerate(values):
                sums[index] += value
    return tuple(TermCost(*key, *sums) for key, sums in merged.items())


def _term_key(term: CacheTerm) -> TermKey:
    """What caches have in common that are counted together, as the first fields of `TermCost`."""
    return (term.window_tokens, term.kind == "chunked", term.stride_tokens, term.read_cap_tokens, term.compressible)


def query_ranks(term: CacheTerm, shape: Shape) -> int:
    """GPUs over which a cache's query heads are split."""
    # Indexers score with all their heads on every rank, as their weights are on every rank.
    return shape.tp if term.compressible else 1


def _term_per_gpu(term: CacheTerm, shape: Shape) -> tuple[float, ...]:
    share = term.element_bytes * _head_share(term.kv_heads, shape.tp)
    # Context parallelism shards the tokens of caches that grow; windows stay whole.
    tokens = shape.dcp * shape.pcp if term.window_tokens is None else 1
    ranks = query_ranks(term, shape)
    return (
        term.stored_elements * share / tokens,
        term.read_elements * share / tokens,
        term.read_elements * share,
        term.decode_flops / ranks / (shape.pcp if term.window_tokens is None else 1),
        term.prefill_flops / ranks,
        term.expand_flops / ranks,
    )
