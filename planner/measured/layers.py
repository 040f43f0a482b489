"""Operations of one pipeline stage, per GPU: what a split model multiplies, attends, moves and exchanges.

Shapes of the matrix products come from the parameter counts of `catalog.architecture.Layer`: queries,
keys and values in one product, then the output, gate and up in one, then down. What doesn't follow
this pattern (low-rank projections, recurrences) is taken as products of the same total size.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

from catalog.architecture import Architecture, CacheTerm, Experts, Layer
from planner.cost.replica import Shape, WeightFormat, each_layer, query_ranks, stage_layers

FUSED_KERNELS = 4.0
"""Elementwise kernels of one layer in an engine that fuses: two add-and-norms, rotary positions, activation."""


@dataclass(frozen=True, slots=True)
class Product:
    """Equal matrix products of a stage."""

    inputs: float
    outputs: float
    quantised: bool
    count: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Equal attention layers of a stage, per GPU."""

    count: int
    query_heads: float
    kv_heads: float
    window_tokens: int | None
    chunked: bool
    stride_tokens: int
    cap_entries: int | None
    compressible: bool
    read_bytes: float
    """Per attended entry of one layer [bytes]."""
    query_bytes: float
    """Queries and outputs of one token and layer [bytes]."""
    decode_flops: float
    """Per query token and attended entry of one layer [FLOP]."""
    pair_dim: float
    """Elements of a key and of a value, on average, as prefill multiplies them."""
    expand_flops: float

    @property
    def full(self) -> bool:
        """Whether the cache grows with the context without bound."""
        return self.window_tokens is None


@dataclass(frozen=True, slots=True)
class RoutedExperts:
    """Equal layers of routed experts of a stage, per GPU."""

    count: int
    experts: int
    active: int
    share: float
    """Share of the experts (expert parallelism) that one GPU holds whole."""
    elements: float
    """Weight elements of one expert on this GPU."""
    batch_factor: float
    """Replicas whose tokens the experts serve."""


@dataclass(frozen=True, slots=True)
class StageOperations:
    """One pipeline stage, per GPU."""

    layers: int
    products: tuple[Product, ...]
    head: Product | None
    attention: tuple[Attention, ...]
    experts: tuple[RoutedExperts, ...]
    moved_bytes: float
    """Elementwise traffic per token [bytes]."""
    state_bytes: float
    """Recurrent state per sequence [bytes]."""
    scan_flops: float
    """Recurrence per token [FLOP]."""
    all_reduces: int
    hidden: int
    vocabulary: float
    shape: Shape
    bytes_ratio: float
    """Bytes of quantised weights over those in 16 bits."""


@lru_cache(maxsize=4096)
def stage_operations(architecture: Architecture, shape: Shape, weights: WeightFormat) -> tuple[StageOperations, ...]:
    """Operations of each distinct pipeline stage; equal stages are kept once."""
    stages: list[StageOperations] = []
    first = 0
    counts = stage_layers(len(architecture.layers), shape.pp)
    for index, count in enumerate(counts):
        layers = architecture.layers[first : first + count]
        first += count
        stage = _stage(architecture, layers, shape, weights, index == shape.pp - 1)
        if stage not in stages:
            stages.append(stage)
    return tuple(stages)


def _stage(
    architecture: Architecture, layers: tuple[Layer, ...], shape: Shape, weights: WeightFormat, last: bool
) -> StageOperations:
    products: Counter[tuple[float, float, bool]] = Counter()
    attention: Counter[Attention] = Counter()
    experts: Counter[RoutedExperts] = Counter()
    moved = 0.0
    quantised = weights.bytes_ratio != 1.0 and not weights.experts_only
    products_of = each_layer(layers, lambda layer: _products(layer, architecture, shape.tp))
    terms_of = each_layer(layers, lambda layer: [_attention(t, layer, architecture, shape) for t in layer.cache])
    experts_of = each_layer(layers, lambda layer: _experts(layer.experts, shape) if layer.experts else None)
    for layer, inner, terms, routed in zip(layers, products_of, terms_of, experts_of, strict=True):
        for outputs, inputs in inner:
            products[(outputs, inputs, quantised)] += 1
        # Each norm reads and writes the residual stream twice; the others stream their product's side.
        moved += 16.0 * architecture.hidden_size + 3.0 * sum(outputs for outputs, _ in inner)
        for term in terms:
            attention[term] += 1
        if layer.experts is not None and routed is not None:
            experts[routed] += 1
            moved += 4.0 * layer.experts.active * layer.experts.params_each / architecture.hidden_size / shape.tp
    hidden = architecture.hidden_size
    head = Product(hidden, architecture.vocab_size / shape.tp, False, 1) if last else None
    return StageOperations(
        layers=len(layers),
        products=tuple(Product(k, n, q, count) for (n, k, q), count in products.items()),
        head=head,
        attention=tuple(replace(a, count=count) for a, count in attention.items()),
        experts=tuple(replace(e, count=count) for e, count in experts.items()),
        moved_bytes=moved,
        state_bytes=sum(each_layer(layers, lambda layer: layer.state_bytes / min(shape.tp, layer.state_heads))),
        scan_flops=sum(layer.scan_flops for layer in layers) / shape.tp,
        all_reduces=2 * len(layers),
        hidden=hidden,
        vocabulary=architecture.vocab_size / shape.tp if last else 0.0,
        shape=shape,
        bytes_ratio=weights.bytes_ratio,
    )


def _products(layer: Layer, architecture: Architecture, tp: int) -> list[tuple[float, float]]:
    """(outputs, inputs) of the layer's products on one GPU, the routed experts apart."""
    hidden = float(architecture.hidden_size)
    kv_out = layer.kv_params / hidden * max(1, -(-layer.kv_heads // tp)) / layer.kv_heads
    q_out, o_in = _query_sizes(layer, architecture)
    rest = layer.sharded_params - hidden * (q_out + o_in)
    if rest < -hidden:  # Narrower projections than heads: latent attention.
        q_out, o_in, rest = 0.0, 0.0, float(layer.sharded_params)
    products = []
    if q_out or kv_out:
        products.append((q_out / tp + kv_out, hidden))
    if o_in:
        products.append((hidden, o_in / tp))
    if rest > hidden:
        inner = rest / (3.0 * hidden)
        products += [(2.0 * inner / tp, hidden), (hidden, inner / tp)]
    if layer.replicated_params > 8 * hidden:
        products.append((layer.replicated_params / hidden, hidden))
    return products


def _query_sizes(layer: Layer, architecture: Architecture) -> tuple[float, float]:
    """Outputs of the query projection and inputs of the output projection, over all GPUs."""
    for term in layer.cache:
        if term.k_dim and term.v_dim:
            heads = term.prefill_flops / (2.0 * (term.k_dim + term.v_dim))
            return heads * term.k_dim, heads * term.v_dim
    return 0.0, 0.0


def _attention(term: CacheTerm, layer: Layer, architecture: Architecture, shape: Shape) -> Attention:
    # Context parallelism shards the tokens of caches that grow; windows stay whole.
    shards = shape.dcp * shape.pcp if term.window_tokens is None else 1
    ranks = query_ranks(term, shape)
    heads = architecture.query_heads
    if term.k_dim and term.v_dim:
        heads = round(term.prefill_flops / (2.0 * (term.k_dim + term.v_dim)))
    kv_heads = max(1.0, term.kv_heads / shape.tp)
    pair = term.prefill_flops / (4.0 * heads)
    return Attention(
        count=1,
        query_heads=heads / ranks,
        kv_heads=kv_heads,
        window_tokens=term.window_tokens,
        chunked=term.kind == "chunked",
        stride_tokens=term.stride_tokens,
        cap_entries=term.read_cap_tokens,
        compressible=term.compressible,
        read_bytes=term.read_elements * term.element_bytes * kv_heads / term.kv_heads / shards,
        query_bytes=4.0 * heads / ranks * pair,
        decode_flops=term.decode_flops / ranks / (shape.pcp if term.window_tokens is None else 1),
        pair_dim=pair,
        expand_flops=term.expand_flops / ranks,
    )


def _experts(experts: Experts, shape: Shape) -> RoutedExperts:
    whole = shape.ep > 1
    return RoutedExperts(
        count=1,
        experts=experts.count,
        active=experts.active,
        share=1.0 / shape.ep if whole else 1.0,
        elements=float(experts.params_each) / (1 if whole else shape.tp),
        batch_factor=shape.ep / shape.tp if whole else 1.0,
    )
