"""The sub-layers that decoder layers are made of: attention, feed-forward, experts.

A family's reader combines `Part`s into `catalog.architecture.Layer`s with `layer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.architecture.architecture import AttentionKind, CacheTerm, Experts, Layer
from catalog.architecture.fields import Fields


@dataclass(frozen=True, slots=True)
class Part:
    """Parameters, caches and state of one sub-layer; the fields mean what they mean in `Layer`."""

    sharded: int = 0
    kv: int = 0
    replicated: int = 0
    cache: tuple[CacheTerm, ...] = ()
    kv_heads: int = 1
    experts: Experts | None = None
    state_bytes: float = 0.0
    conv_state_bytes: float = 0.0
    state_heads: int = 1
    state_groups: int = 0
    group_state_bytes: float = 0.0
    scan_flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of one attention layer."""

    hidden: int
    query: int
    kv: int
    k_dim: int
    v_dim: int

    @property
    def kind(self) -> AttentionKind:
        """``mha``, ``gqa`` or ``mqa``."""
        if self.kv == self.query:
            return "mha"
        return "mqa" if self.kv == 1 else "gqa"


def layer(*parts: Part, norms: int = 0) -> Layer:
    """One decoder layer of these sub-layers, with `norms` parameters of its own normalisations."""
    experts = next((part.experts for part in parts if part.experts), None)
    return Layer(
        cache=tuple(term for part in parts for term in part.cache),
        sharded_params=sum(part.sharded for part in parts),
        kv_params=sum(part.kv for part in parts),
        replicated_params=norms + sum(part.replicated for part in parts),
        kv_heads=max(part.kv_heads for part in parts),
        experts=experts,
        state_bytes=sum(part.state_bytes for part in parts),
        conv_state_bytes=sum(part.conv_state_bytes for part in parts),
        state_heads=max(part.state_heads for part in parts),
        state_groups=max(part.state_groups for part in parts),
        group_state_bytes=sum(part.group_state_bytes for part in parts),
        scan_flops=sum(part.scan_flops for part in parts),
    )


def read_heads(
    fields: Fields,
    hidden: int,
    *,
    kv_default: bool = False,
    dim: int | None = None,
    dim_names: tuple[str, ...] = ("head_dim",),
    query_names: tuple[str, ...] = ("num_attention_heads",),
) -> Heads:
    """Read query heads, KV heads and their dimension; the KV heads must divide the query heads.

    Parameters
    ----------
    fields
        The config.
    hidden
        Its hidden size.
    kv_default
        Whether a missing ``num_key_value_heads`` means one KV head per query head (the library's own
        default differs by family; where it is another number, the field is required).
    dim
        Head dimension where the file has none; None means hidden size / query heads.
    dim_names, query_names
        Spellings.
    """
    query = fields.count(*query_names, most=100_000)
    kv = fields.count("num_key_value_heads", default=query if kv_default else None, most=100_000)
    check_groups(fields, query, kv)
    sound = fields.sound("hidden_size", *query_names)
    if not fields.has(*dim_names) and dim is None and hidden % query and sound:
        fields.problem(query_names[0], f"{query} doesn't divide hidden_size {hidden}", "add head_dim or correct either")
    size = fields.count(*dim_names, default=dim or max(1, hidden // query), most=100_000)
    return Heads(hidden, query, kv, size, size)


def check_groups(fields: Fields, query: int, kv: int, name: str = "num_key_value_heads") -> None:
    """Note a problem unless `kv` KV heads divide `query` query heads."""
    if query % kv and fields.sound(name, "num_attention_heads"):
        fields.problem(name, f"{kv} KV heads don't divide {query} query heads", "correct either")


def attention(
    heads: Heads,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    q_norm: int = 0,
    k_norm: int = 0,
    gate: int = 0,
    window: int | None = None,
    chunk: int | None = None,
    v_weights: bool = True,
    reuses_cache: bool = False,
    read_cap: int | None = None,
) -> Part:
    """Softmax attention with its own K and V per KV head: MHA, GQA, MQA, windowed or chunked.

    Per token it caches kv_heads * (k_dim + v_dim) elements. A query token costs
    2 * query_heads * (k_dim + v_dim) FLOPs per attended token, in prefill as in decode: the scores
    (QK^T) and the weighted sum (AV), a multiplication and an addition each.

    Parameters
    ----------
    heads
        Shape.
    qkv_bias, out_bias
        Whether the projections have biases.
    q_norm, k_norm
        Parameters of the normalisations of queries and keys.
    gate
        Parameters of an output gate or of sinks, sharded over heads.
    window, chunk
        Tokens of a sliding window, or of an aligned chunk; at most one of them.
    v_weights
        False where V is computed with K's weights (it is cached all the same).
    reuses_cache
        True where the layer attends to an earlier layer's cache: it has no K and V and stores nothing.
    read_cap
        Tokens that an indexer lets a query attend to.
    """
    k_out, v_out = heads.kv * heads.k_dim, heads.kv * heads.v_dim
    flops = 2.0 * heads.query * (heads.k_dim + heads.v_dim)
    kind: AttentionKind = "sliding" if window else "chunked" if chunk else heads.kind
    term = CacheTerm(
        kind=kind,
        stored_elements=0.0 if reuses_cache else float(k_out + v_out),
        read_elements=float(k_out + v_out),
        kv_heads=heads.kv,
        decode_flops=flops,
        prefill_flops=flops,
        window_tokens=window or chunk,
        read_cap_tokens=read_cap,
        k_dim=heads.k_dim,
        v_dim=heads.v_dim,
    )
    rows = heads.hidden + int(qkv_bias)
    q_out = heads.query * heads.k_dim
    out = heads.query * heads.v_dim * heads.hidden
    return Part(
        sharded=q_out * rows + out + gate,
        kv=0 if reuses_cache else (k_out + (v_out if v_weights else 0)) * rows,
        replicated=q_norm + (0 if reuses_cache else k_norm) + (heads.hidden if out_bias else 0),
        cache=(term,),
        kv_heads=heads.kv,
    )


def feed_forward(hidden: int, inner: int, *, gated: bool = True, bias: bool = False) -> Part:
    """Dense feed-forward: gate, up and down projections, or only up and down."""
    ups = 2 if gated else 1
    return Part(sharded=(ups + 1) * hidden * inner + (ups * inner if bias else 0), replicated=hidden if bias else 0)


def experts(
    hidden: int,
    inner: int,
    count: int,
    active: int,
    *,
    shared: int = 0,
    shared_gate: bool = False,
    gated: bool = True,
    bias: bool = False,
    router_extra: int = 0,
    width: int | None = None,
) -> Part:
    """Routed experts with their router, and shared experts that every token passes through.

    Parameters
    ----------
    hidden, inner
        Model width and width of one routed expert.
    count, active
        Experts, and experts per token.
    shared
        Summed width of the shared experts, 0 for none.
    shared_gate
        Whether a scalar gate weighs the shared expert.
    gated, bias
        As in `feed_forward`; `bias` covers router and routed experts.
    router_extra
        Further router parameters.
    width
        Width at which the routed experts read and write where it is not `hidden` (latent experts);
        the two projections between them are counted with the router.
    """
    ups = 3 if gated else 2
    outer = hidden if width is None else width
    each = ups * outer * inner + (((ups - 1) * inner + outer) if bias else 0)
    router = count * hidden + (count if bias else 0) + router_extra
    latent = 0 if width is None else 2 * hidden * width
    return Part(
        sharded=ups * hidden * shared,
        replicated=router + latent + (hidden if shared_gate else 0),
        experts=Experts(count, active, each),
    )


def read_experts(fields: Fields, *names: str) -> tuple[int, int]:
    """Read the number of experts (spellings `names`) and of experts per token, at most as many."""
    count = fields.count(*names, most=1_000_000)
    active = fields.count(
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", most=1_000_000
    )
    if active > count:
        fields.problem("num_experts_per_tok", f"{active} of only {count} experts", "correct either")
    return count, active
