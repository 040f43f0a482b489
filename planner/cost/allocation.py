"""KV capacity as vLLM allocates it: blocks, groups of layers, and requests that fit.

Closed forms in integers of what vLLM 0.33 computes at start-up. They are told, derived and worked
through in docs/kv-allocation.md. Every rank holds one pool of equal blocks; layers that cache alike
form groups; a request takes whole blocks from every group.

References
----------
vLLM 0.33.0 (PyPI): vllm/v1/core/kv_cache_planning.py, vllm/v1/core/kv_cache_utils.py,
vllm/v1/kv_cache_interface.py, vllm/platforms/interface.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from catalog.architecture.architecture import Architecture, CacheTerm, Layer

KERNEL_BLOCK_TOKENS = 16
"""Smallest block of vLLM's attention kernels [tokens]."""

MAMBA2_MODELS = frozenset({"nemotron_h", "bamba", "granitemoehybrid"})
"""Model types whose recurrent state is Mamba2's; the shapes of other states aren't checked."""


class NotCoveredError(ValueError):
    """The closed forms don't know how vLLM allocates this model or this split; nothing was estimated."""


class StorageFormat(Protocol):
    """What the forms need to know of a KV format; `catalog.schema.KvFormat` has it."""

    @property
    def k_bits(self) -> float:
        """Bits per element of K."""

    @property
    def v_bits(self) -> float:
        """Bits per element of V."""

    @property
    def scale_bytes_per_head(self) -> float:
        """Scales and zero points of K and V together, per token and KV head [bytes]."""

    @property
    def group_elements(self) -> int | None:
        """Elements that share a scale of one byte; None without block scaling."""

    @property
    def unquantised_edge_layers(self) -> int:
        """Layers that stay in the model's precision at each end."""


@dataclass(frozen=True, slots=True)
class KvCapacity:
    """What fits into the KV memory of one replica, counted as vLLM counts it."""

    blocks: int
    """Blocks of the pool on every rank."""
    tokens: int
    """Tokens of `concurrency` requests of the full length [tokens]."""
    concurrency: float
    """Requests of the full length that fit."""
    blocks_per_request: int
    """Blocks that one request of the full length takes, over all groups."""
    block_tokens: int
    """Tokens of a full-attention block of one rank, after the start-up alignment [tokens]."""
    bytes_per_block: int
    """Bytes of one block on the fullest pipeline stage [bytes]."""
    groups: tuple[int, ...]
    """Layers per group; a layer with an indexer counts twice."""

    @property
    def starts(self) -> bool:
        """Whether vLLM starts: one request of the full length fits beside the block it keeps for itself."""
        return self.blocks - 1 >= self.blocks_per_request


@dataclass(frozen=True, slots=True)
class _Cache:
    """One cached tensor family of one layer on one rank; equal ones (but for `layer`) may share a group."""

    layer: int
    keeps: Literal["all", "window", "chunk", "state"]
    span_tokens: int
    """Window or chunk [tokens]; 0 for the others."""
    shape: tuple[int, int, int]
    """KV heads on the rank, K and V dimension: what vLLM compares beside the bytes."""
    bytes_each: int
    """Bytes per token, or of the whole state [bytes]."""
    block_tokens: int = 0
    page_bytes: int = 0
    """Bytes of one block of this layer, padding included [bytes]."""

    @property
    def kind(self) -> tuple[object, ...]:
        """What layers of one group have in common."""
        return (self.keeps, self.span_tokens, self.shape, self.bytes_each, self.block_tokens, self.page_bytes)

    @property
    def paged(self) -> _Cache:
        """With the page that its block needs."""
        pages = 1 if self.keeps == "state" else self.block_tokens
        return replace(self, page_bytes=pages * self.bytes_each)


def vllm_capacity(
    architecture: Architecture,
    *,
    available_bytes: int,
    max_model_len: int,
    max_num_batched_tokens: int,
    kv_format: StorageFormat | None = None,
    tp: int = 1,
    pp: int = 1,
    dcp: int = 1,
    block_tokens: int = 16,
    aligned: bool = True,
    prefix_caching: bool = True,
) -> KvCapacity:
    """KV blocks, tokens and concurrency of one replica of vLLM.

    Parameters
    ----------
    architecture
        The model.
    available_bytes
        Bytes for KV on each rank, after weights and activations; the smallest, if ranks differ [bytes].
    max_model_len
        Longest request, prompt and answer [tokens].
    max_num_batched_tokens
        Tokens of one step; windows and chunks keep that many more per step in flight [tokens].
    kv_format
        Quantised format; None keeps the cache in the model's own precision.
    tp, pp, dcp
        Tensor, pipeline and decode-context parallel sizes; dcp splits the tokens inside tp.
    block_tokens
        ``--block-size``; what the attention backend prefers if the flag is absent (docs) [tokens].
    aligned
        Whether block sizes are enlarged as at vLLM's start-up, so that an attention page covers a
        recurrent state, or a quantised page an unquantised one. False: the planner's own arithmetic.
    prefix_caching
        Whether finished states are kept for later rounds: three blocks per state group, else one.

    Raises
    ------
    NotCoveredError
        For caches and splits whose allocation isn't known here (DeepSeek-V4, delta-rule states, ...).
    """
    sizes = (available_bytes, max_model_len, max_num_batched_tokens, tp, pp, dcp, block_tokens)
    if min(sizes[1:]) < 1 or available_bytes < 0:
        raise ValueError(f"sizes must be positive, got {sizes}; give bytes, tokens and ranks of at least 1")
    caches = _caches(architecture, kv_format, tp)
    _check_split(architecture, caches, tp, dcp)
    block = _aligned_block(architecture, caches, block_tokens) if aligned else block_tokens
    groups = _groups([replace(cache, block_tokens=block).paged for cache in caches])
    per_block = _stage_bytes_per_block(groups, pipeline_stages(len(architecture.layers), pp))
    in_flight = (pp + 1) * max_num_batched_tokens
    need = sum(_blocks_per_request(group[0], max_model_len, in_flight, dcp, prefix_caching) for group in groups)
    blocks = available_bytes // per_block
    concurrency = blocks / need
    return KvCapacity(
        blocks=blocks,
        tokens=int(concurrency * max_model_len),
        concurrency=concurrency,
        blocks_per_request=need,
        block_tokens=block,
        bytes_per_block=per_block,
        groups=tuple(len(group) for group in groups),
    )


def pipeline_stages(layers: int, pp: int) -> tuple[range, ...]:
    """Layers of each pipeline stage as vLLM cuts them: a remainder goes to the stages before the last.

    >>> [len(stage) for stage in pipeline_stages(80, 3)]
    [27, 27, 26]
    >>> [len(stage) for stage in pipeline_stages(61, 4)]
    [15, 15, 16, 15]
    """
    if pp > layers:
        raise NotCoveredError(f"{layers} layers can't be cut into {pp} stages; use pp <= {layers}")
    counts = [layers // pp] * pp
    for i in range(2, layers % pp + 2):
        counts[-i] += 1
    starts = [sum(counts[:i]) for i in range(pp)]
    return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))


def bytes_per_token_head(k_dim: int, v_dim: int, kv_format: StorageFormat) -> int:
    """Bytes of K and V of one token and KV head, scales included, rounded up to an even number [bytes].

    Parameters
    ----------
    k_dim, v_dim
        Elements of K and of V [elements].
    kv_format
        Bits and scales.
    """
    size = math.ceil(k_dim * kv_format.k_bits / 8) + math.ceil(v_dim * kv_format.v_bits / 8)
    if kv_format.group_elements:
        size += math.ceil(k_dim / kv_format.group_elements) + math.ceil(v_dim / kv_format.group_elements)
    size += math.ceil(kv_format.scale_bytes_per_head)
    return size + size % 2


def _caches(architecture: Architecture, kv_format: StorageFormat | None, tp: int) -> list[_Cache]:
    """Every cached tensor family of every layer, on one rank, quantised but for the edge layers."""
    last = len(architecture.layers)
    hybrid = any(layer.state_bytes for layer in architecture.layers)
    edge = 0 if kv_format is None or hybrid else min(kv_format.unquantised_edge_layers, last // 2)
    caches: list[_Cache] = []
    for index, layer in enumerate(architecture.layers):
        inner = edge <= index < last - edge
        for term in layer.cache:
            if term.stored_elements:
                caches.append(_attention_cache(index, term, kv_format if inner else None, tp))
        if layer.state_bytes:
            caches.append(_state_cache(architecture.model_type, index, layer, tp))
    if not caches:
        raise NotCoveredError(f"{architecture.model_type}: no layer caches anything")
    if edge and any(cache.keeps != "all" or cache.shape[0] == 0 for cache in caches):
        raise NotCoveredError(
            f"{architecture.model_type}: vLLM takes formats with unquantised edge layers for plain full attention only"
        )
    return caches


def _attention_cache(index: int, term: CacheTerm, kv_format: StorageFormat | None, tp: int) -> _Cache:
    if term.stride_tokens != 1:
        raise NotCoveredError(f"layer {index}: one entry per {term.stride_tokens} tokens; vLLM's layout isn't modelled")
    keeps: Literal["all", "window", "chunk"] = "all"
    if term.window_tokens:
        keeps = "chunk" if term.kind == "chunked" else "window"
    span = term.window_tokens or 0
    own = term.stored_elements * term.element_bytes
    if not term.compressible or not term.v_dim:
        if keeps != "all":
            raise NotCoveredError(f"layer {index}: a latent or indexer cache with a window isn't modelled")
        plain = kv_format is None or not term.compressible
        size = math.ceil(own) if plain or kv_format is None else _latent_bytes(index, term, kv_format)
        return _Cache(index, keeps, span, (0, int(term.stored_elements), 0), size)
    if max(tp, term.kv_heads) % min(tp, term.kv_heads):
        raise NotCoveredError(f"layer {index}: {term.kv_heads} KV heads don't divide over tp {tp}")
    heads = max(1, term.kv_heads // tp)
    if kv_format is None:
        each = math.ceil((term.k_dim + term.v_dim) * term.element_bytes)
    else:
        each = bytes_per_token_head(term.k_dim, term.v_dim, kv_format)
    return _Cache(index, keeps, span, (heads, term.k_dim, term.v_dim), heads * each)


def _latent_bytes(index: int, term: CacheTerm, kv_format: StorageFormat) -> int:
    if kv_format.k_bits not in (8, 16) or kv_format.group_elements:
        raise NotCoveredError(f"layer {index}: vLLM keeps an MLA latent in 16 or 8 bits, not {kv_format.k_bits:g}")
    return math.ceil(term.stored_elements * kv_format.k_bits / 8 + kv_format.scale_bytes_per_head)


def _state_cache(model_type: str, index: int, layer: Layer, tp: int) -> _Cache:
    if model_type not in MAMBA2_MODELS:
        raise NotCoveredError(f"{model_type}: only Mamba2 states ({', '.join(sorted(MAMBA2_MODELS))}) are modelled")
    copied = tp - layer.state_groups if layer.state_groups % tp else 0
    whole = int(layer.state_bytes + copied * layer.group_state_bytes)
    if layer.state_heads % tp or whole % tp:
        raise NotCoveredError(f"layer {index}: a state of {layer.state_heads} heads doesn't divide over tp {tp}")
    return _Cache(index, "state", 0, (layer.state_heads // tp, 0, 0), whole // tp)


def _check_split(architecture: Architecture, caches: Sequence[_Cache], tp: int, dcp: int) -> None:
    if any(not term.compressible and term.stored_elements for layer in architecture.layers for term in layer.cache):
        latent = all(cache.shape[0] == 0 for cache in caches)
        if not latent:
            raise NotCoveredError(f"{architecture.model_type}: an indexer beside K and V per head isn't modelled")
    if dcp == 1:
        return
    if any(cache.keeps != "all" for cache in caches):
        raise NotCoveredError("vLLM shards windows, chunks and states by no decode-context parallelism; use dcp 1")
    most = max(term.kv_heads for layer in architecture.layers for term in layer.cache)
    if tp % dcp or dcp > tp // most:
        raise NotCoveredError(f"dcp {dcp} must divide tp {tp} and be at most tp / KV heads = {tp // most}")


def _aligned_block(architecture: Architecture, caches: Sequence[_Cache], block_tokens: int) -> int:
    """Tokens per block once a page covers the largest state, or the widest unquantised page [tokens]."""
    tokens = [cache.bytes_each for cache in caches if cache.keeps != "state"]
    states = [cache.bytes_each for cache in caches if cache.keeps == "state"]
    if not tokens:
        return block_tokens
    step = max(KERNEL_BLOCK_TOKENS, block_tokens)
    if states:
        return max(block_tokens, step * -(-max(states) // (step * max(tokens))))
    plain = [cache for cache in caches if cache.shape[0]]
    if len({(cache.keeps, cache.shape) for cache in plain}) == 1 and len({cache.bytes_each for cache in plain}) > 1:
        # Quantised layers between unquantised edges: vLLM prices the former unpacked, one byte per element.
        heads, k_dim, v_dim = plain[0].shape
        page = max(tokens) * KERNEL_BLOCK_TOKENS
        return max(block_tokens, step * -(-page // (step * heads * (k_dim + v_dim))))
    return block_tokens


def _groups(caches: list[_Cache]) -> list[list[_Cache]]:
    """Layers that share one block table, as vLLM groups them."""
    if len({(cache.keeps, cache.span_tokens) for cache in caches}) == 1 and caches[0].keeps != "state":
        return [caches]
    page = max(cache.page_bytes for cache in caches)
    alike: dict[tuple[object, ...], list[_Cache]] = {}
    for cache in (_with_page(cache, page) for cache in caches):
        alike.setdefault(cache.kind, []).append(cache)
    counts = [len(bucket) for bucket in alike.values()]
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    groups: list[list[_Cache]] = []
    for bucket in alike.values():
        parts = -(-len(bucket) // size)
        groups += [bucket[i::parts] for i in range(parts)]
    return groups


def _with_page(cache: _Cache, page: int) -> _Cache:
    """The cache in blocks of `page` bytes: more tokens per block where they divide, else padding."""
    if cache.page_bytes == page:
        return cache
    if cache.keeps != "state" and page % cache.page_bytes == 0:
        return replace(cache, block_tokens=cache.block_tokens * (page // cache.page_bytes), page_bytes=page)
    if cache.shape[0] == 0:
        raise NotCoveredError(f"layer {cache.layer}: vLLM can't pad a latent page of {cache.page_bytes} B to {page} B")
    return replace(cache, page_bytes=page)


def _stage_bytes_per_block(groups: Sequence[Sequence[_Cache]], stages: Sequence[range]) -> int:
    """Bytes of one block where they are most: the widest group of the fullest stage [bytes]."""
    return max(sum(cache.page_bytes for cache in group if cache.layer in stage) for group in groups for stage in stages)


def _blocks_per_request(cache: _Cache, length: int, in_flight: int, dcp: int, prefix_caching: bool) -> int:
    """Blocks of one request of `length` tokens in the group of this cache."""
    if cache.keeps == "state":
        return 3 if prefix_caching else 1
    if cache.keeps == "window":
        return -(-min(cache.span_tokens - 1 + in_flight, length) // cache.block_tokens) + 1
    if cache.keeps == "chunk":
        return -(-min(cache.span_tokens + in_flight, length) // cache.block_tokens)
    share = -(-length // dcp)
    return -(-share // cache.block_tokens)
