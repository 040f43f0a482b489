"""What a catalog entry must say: one pydantic model per kind of entry.

Every entry carries its sources and the day on which somebody last checked them. Numbers with a
unit are strings in the files (``80 GiB``) and SI floats in memory. Unknown fields are refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from catalog.units import UNITS, parse_quantity, parse_tokens


def _read(kind: str) -> BeforeValidator:
    def read(value: object) -> float:
        return parse_quantity(value, kind)

    return BeforeValidator(read)


def _written(kind: str) -> WithJsonSchema:
    units = ", ".join(unit for unit in UNITS[kind] if unit)
    return WithJsonSchema({"type": "string", "description": f"a number with its unit: {units}"})


def _tokens(value: object) -> object:
    return parse_tokens(value)


def _text(value: object) -> object:
    # YAML reads a bare 8.0 as a number; versions and capabilities are text.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Bytes = Annotated[float, _read("bytes"), _written("bytes")]
BytesPerSecond = Annotated[float, _read("bytes/s"), _written("bytes/s")]
FlopsPerSecond = Annotated[float, _read("FLOP/s"), _written("FLOP/s")]
Watts = Annotated[float, _read("watts"), _written("watts")]
UsdPerHour = Annotated[float, _read("USD/h"), _written("USD/h")]
Tokens = Annotated[
    int,
    BeforeValidator(_tokens),
    WithJsonSchema({"type": ["string", "integer"], "description": "tokens: 128K, 131072"}),
]
Text = Annotated[str, BeforeValidator(_text)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]
Fraction = Annotated[float, Field(ge=0.0)]

Provenance = Literal["found", "secondary", "derived", "recalled", "measured"]
"""found: read in a primary source. secondary: read in somebody's quotation of it. derived: arithmetic
on found values. recalled: from memory, not verified; its interval is widened and it says so. measured:
on the user's own machine, by ``plan calibrate``."""

Task = Literal["mixed", "qa", "retrieval", "multiturn", "reasoning"]
Dimension = Literal["layer", "head", "token", "hidden", "attention", "weights", "offload"]


class Fact(BaseModel):
    """Base of everything in the catalog: immutable, and strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Source(Fact):
    """Where a fact comes from, and for which fields of the entry it speaks (empty: all of them)."""

    ref: str
    provenance: Provenance = "found"
    fields: tuple[str, ...] = ()
    note: str | None = None


class Entry(Fact):
    """What all catalog entries have: an id, sources, and the day they were checked."""

    id: Id
    name: str
    aliases: tuple[str, ...] = ()
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    checked: dt.date
    notes: str | None = None


# --------------------------------------------------------------------------- hardware


class Link(Fact):
    """A link of one GPU, per direction: what the standard promises and what copies reach."""

    kind: str
    nominal: BytesPerSecond
    effective: BytesPerSecond
    effective_both: BytesPerSecond | None = None
    """Both directions at once, added up, where the host caps the sum."""

    @model_validator(mode="after")
    def _no_faster_than_nominal(self) -> Link:
        if self.effective > self.nominal:
            raise ValueError("effective bandwidth exceeds nominal; a link is never faster than its standard")
        return self


class DenseFlops(Fact):
    """Dense peak throughput per precision, without structured sparsity. Absent: not supported in hardware."""

    bf16: FlopsPerSecond
    fp16: FlopsPerSecond | None = None
    tf32: FlopsPerSecond | None = None
    fp32: FlopsPerSecond | None = None
    int8: FlopsPerSecond | None = None
    fp8: FlopsPerSecond | None = None
    fp4: FlopsPerSecond | None = None


class Hardware(Entry):
    """One GPU model."""

    vendor: Literal["nvidia", "amd", "other"]
    generation: str
    compute_capability: Text
    form_factor: str
    hbm: Bytes
    hbm_bandwidth: BytesPerSecond
    flops: DenseFlops
    gpu_link: Link | None
    pcie: Link
    tdp: Watts | None
    """None: not known."""


class Nvme(Fact):
    """Local NVMe of a node, all drives together."""

    capacity: Bytes
    read: BytesPerSecond
    write: BytesPerSecond


class Nic(Fact):
    """Network of a node for GPU traffic, all ports together, per direction."""

    kind: str
    bandwidth: BytesPerSecond


class Node(Entry):
    """One server: its GPUs, host memory, disks and links."""

    hardware: Id
    gpus: Annotated[int, Field(ge=1)]
    gpu_topology: Literal["nvswitch", "nvlink-pairs", "nvlink-mesh", "xgmi-mesh", "pcie", "none"]
    gpus_per_pcie_uplink: Annotated[int, Field(ge=1)]
    host_memory: Bytes
    nvme: Nvme | None = None
    nic: Nic | None = None
    default_for: tuple[Id, ...] = ()
    """Hardware ids for which this node is assumed when a cluster names only GPUs."""


class Price(Entry):
    """One dated offer: dollars per GPU and hour."""

    provider: str
    hardware: Id
    node: Id | None = None
    gpus: Annotated[int, Field(ge=1)]
    """GPUs in the smallest unit of this offer."""
    usd_per_gpu_hour: UsdPerHour
    kind: Literal["on-demand", "reserved", "spot"]
    observed: dt.date
    region: str | None = None


# --------------------------------------------------------------------------- models


class Model(Entry):
    """One checkpoint: its Hugging Face ``config.json``, verbatim, and what the file doesn't say."""

    hf_id: str
    context_tokens: Tokens
    """The window that the model was trained or officially extended for."""
    config: dict[str, Any]


# --------------------------------------------------------------------------- techniques


class Linear(Fact):
    """``min(1, slope + const_tokens / n)`` of the uncompressed amount at n tokens."""

    slope: Fraction
    const_tokens: Fraction = 0.0
    provenance: Provenance = "found"
    note: str | None = None


class PrefillEffect(Fact):
    """Factors on the prefill FLOPs of the linear layers and of attention."""

    linear: Fraction = 1.0
    attention: Fraction = 1.0
    note: str | None = None


class TimeOverhead(Fact):
    """Measured extra time of a technique, beyond its bytes and FLOPs: a factor on the time of the phase."""

    decode: Annotated[float, Field(gt=0)] | None = None
    prefill: Annotated[float, Field(gt=0)] | None = None
    provenance: Provenance
    source: str
    note: str | None = None


class Loss(Fact):
    """Relative quality loss in percent: mean and standard deviation. Negative means better."""

    mean_pct: float
    std_pct: Annotated[float, Field(ge=0)]


class Prior(Loss):
    """The prior of a technique at one strength; per task where the evidence differs by task."""

    by_task: dict[Literal["qa", "retrieval", "multiturn", "reasoning"], Loss] = {}
    confidence: Literal["exact", "high", "medium", "low"]
    context_tokens: Tokens | None = None
    """The longest context among the evidence behind this prior; beyond it nobody measured. Short tasks,
    and claims that name no length, count as 4K; LongBench as 10K, its mean. None: holds at any length."""
    how: str


class Evidence(Fact):
    """One published figure behind a prior."""

    benchmark: str
    model: str | None = None
    context: Text | None = None
    workload: str | None = None
    baseline: float | None = None
    compressed: float | None = None
    rel_loss_pct: float | None = None
    source: str
    provenance: Provenance
    used_in_prior: bool = True
    note: str | None = None


class Point(Fact):
    """One strength of a technique: a point of its curve."""

    id: Id
    """Short name of this point, unique in the catalog, as used by ``--techniques``."""
    strength: float | None
    shortlisted: bool = False
    storage: Linear = Linear(slope=1.0)
    reads: Linear = Linear(slope=1.0)
    prefill: PrefillEffect = PrefillEffect()
    weight_bytes: Fraction = 1.0
    weight_compute: Literal["bf16", "fp8", "int8", "fp4"] = "bf16"
    """Precision in which the linear layers are multiplied (weight-only formats multiply in bf16)."""
    overhead: TimeOverhead | None = None
    prior: Prior | None
    """None: no source, no prior; such a point can be priced but not planned."""
    evidence: tuple[Evidence, ...] = ()
    needle: str | None = None
    notes: str | None = None


class EngineSupport(Fact):
    """Who runs a technique, how it is switched on, and on which GPUs."""

    engine: Id
    status: Literal["ships", "fork", "experimental"]
    setting: str | None = None
    points: tuple[Id, ...] = ()
    """Points to which this applies; empty: all points of the technique."""
    compute_capabilities: tuple[Text, ...] = ()
    """Empty: every GPU on which the engine runs."""
    provenance: Provenance = "found"
    source: str | None = None
    note: str | None = None


class Paper(Fact):
    """The publication that introduced a technique."""

    title: str
    year: int | None = None
    arxiv: Text | None = None
    provenance: Provenance = "found"


class Technique(Entry):
    """One compression technique, with the curve of its strengths."""

    dimension: Dimension
    tier: Literal["ships", "fork", "research", "native"]
    paper: Paper | None = None
    training: str
    requires_native_model: bool = False
    """A property of the checkpoint: it can't be switched on for a model that lacks it, and a model that
    has it is already priced with it from its ``config.json``, so that its factors are never applied twice."""
    evicts_tokens: bool = False
    """Scores the tokens of a cache and drops some. A fixed pattern of whole heads or layers doesn't count."""
    evicts_while_decoding: bool = False
    """The budget bounds generated tokens too, not only the prompt."""
    query_aware: bool = False
    """What is kept depends on the question, so that another question finds it missing."""
    per_head_budgets: bool = False
    """Heads or layers keep different numbers of tokens, which a uniform paged cache can't free."""
    prefix_cache_safe: bool = True
    strength_means: str | None = None
    """What the number in ``strength`` is: ``tokens kept``, ``share of heads kept``, ``bits``."""
    models_shown: str | None = None
    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    engines: tuple[EngineSupport, ...] = ()
    incompatible_with: tuple[str, ...] = ()
    stackable_with: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


Feature = Literal[
    "prefix_reuse",
    "multiple_rounds",
    "chunked_prefill",
    "tensor_parallel",
    "paged_kv",
    "pages_above_one_token",
    "fused_attention",
    "cuda_graphs",
    "offload",
    "disaggregated",
]
"""What a deployment does. ``prefix_reuse``: the cache of one request serves others with the same prefix.
``multiple_rounds``: the cache of one round, kept or swapped, serves the next question; a plan that drops
and recomputes it doesn't have this feature."""


class Selector(Fact):
    """Which techniques, models or deployments a compatibility rule speaks of.

    All fields given must hold; a field with several values holds if any of them does. The first
    group speaks of one chosen technique, the second of what surrounds it. An empty selector holds
    for every plan.
    """

    dimensions: tuple[Dimension, ...] = ()
    techniques: tuple[Id, ...] = ()
    points: tuple[Id, ...] = ()
    evicts_tokens: bool | None = None
    query_aware: bool | None = None
    per_head_budgets: bool | None = None
    prefix_cache_safe: bool | None = None

    attention: tuple[Literal["mha", "gqa", "mqa", "mla", "sliding", "chunked", "linear", "sparse"], ...] = ()
    models: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9._+*-]*$")], ...] = ()
    """Model ids; ``*`` stands for any text, as in ``qwen2.5-7b*``."""
    engines: tuple[Id, ...] = ()
    attention_backends: tuple[str, ...] = ()
    """Names that the engine itself gives its attention kernels, e.g. ``TRITON_ATTN``."""
    hardware_generations: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()


class Rule(Entry):
    """One compatibility rule between two techniques, or a technique and its surroundings.

    A rule is symmetric: it applies where one part of a plan matches ``a`` and another matches
    ``b``, in either order. A technique never clashes with itself.

    - ``exclusive``: never together.
    - ``bundle``: ``a`` already contains ``b``, which would be counted twice: never together either.
    - ``caution``, ``note``: allowed, and told to the user.
    - ``ok``: allowed and measured or argued so; overrides no other rule.
    """

    a: Selector
    b: Selector
    verdict: Literal["exclusive", "caution", "ok", "note", "bundle"]
    why: str
    surcharge: Loss | None = None
    """Extra loss when a and b are stacked."""


# --------------------------------------------------------------------------- engines


class KvFormat(Fact):
    """How an engine stores K and V: bits, scales, and which GPUs and attention kinds it takes."""

    option: str
    """The value of the engine's own setting, e.g. ``int8_per_token_head``."""
    technique_point: Id
    """The catalog point (dimension hidden) that this format realises."""
    k_bits: Annotated[float, Field(gt=0)]
    v_bits: Annotated[float, Field(gt=0)]
    scale_bytes_per_head: Fraction = 0.0
    """Scales and zero points, K and V together, per token and KV head."""
    group_elements: int | None = None
    """Block scaling: one scale byte per this many elements."""
    unquantised_edge_layers: int = 0
    """Layers kept in bf16 at each end of a dense model."""
    compute_capabilities: tuple[Text, ...]
    attention: tuple[str, ...]
    head_dims: tuple[int, ...] = ()
    """Head dimensions that the kernel takes; empty: every one."""
    attention_sinks: bool = True
    """Whether models with attention sinks (gpt-oss, MiMo) can use it."""
    backend: dict[str, str] = {}
    """Compute capability -> attention backend that the engine chooses."""
    note: str | None = None


class WeightFormat(Fact):
    """A weight precision that an engine loads, and on which GPUs."""

    technique_point: Id
    setting: str | None = None
    compute_capabilities: tuple[Text, ...]
    note: str | None = None


class CheckpointFormat(Fact):
    """Weights that a checkpoint's makers quantised, as an engine runs them on some GPUs."""

    quant_method: str
    """As ``quantization_config.quant_method`` of the checkpoint has it: ``fp8``, ``compressed-tensors``, ..."""
    algorithm: str | None = None
    """What of the method, where it has several: ``FP8``, ``NVFP4``, ``W8A8-INT8``, ``W4A16``. None: all of them."""
    point: Id | None = None
    """The catalog point of the weights that this is; None: no technique of the catalog has this precision."""
    compute_capabilities: tuple[Text, ...]
    weight_only: bool
    """True: only bytes shrink, products are made in bf16 after the weights are unpacked (Marlin)."""
    note: str | None = None


class Parallelism(Fact):
    """Which ways of splitting a model an engine has."""

    tensor: bool = True
    pipeline: bool = False
    decode_context: bool = False
    prefill_context: bool = False
    expert: bool = False
    attention_data: bool = False
    note: str | None = None


class Offload(Fact):
    """A tier below HBM into which an engine moves KV between rounds."""

    tier: Literal["ddr", "nvme"]
    setting: str
    inclusive: bool
    """True: the copy stays in the tier for the whole session, also while the cache is in HBM."""
    link_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the link's rate that the engine's copies reach; None: nobody measured it."""
    note: str | None = None


class EngineMemory(Fact):
    """HBM that an engine takes on each GPU beside weights and caches."""

    workspace: Bytes
    """Activations of dense models in chunked prefill, whatever the context."""
    workspace_experts: Bytes
    """The same of mixtures of experts."""
    overhead: Bytes
    """Libraries, communication buffers, captured graphs."""


class Engine(Entry):
    """One serving engine at one version."""

    version: Text
    compute_capabilities: tuple[Text, ...]
    kv_block_tokens: Annotated[int, Field(ge=1)]
    hbm_utilisation: Annotated[float, Field(gt=0, le=1)]
    """Share of HBM that the engine takes by default."""
    memory: EngineMemory | None = None
    """None: not measured; the planner takes vLLM's."""
    parallelism: Parallelism
    chunked_prefill: bool
    continuous_batching: bool = True
    """False: a library that runs one batch at a time, not a server; planned only when named."""
    long_prefill_throttle: str | None = None
    disaggregated: str | None = None
    offload: tuple[Offload, ...] = ()
    attention: dict[str, tuple[Text, ...]]
    """Attention kind -> compute capabilities on which the engine runs it."""
    kv_formats: tuple[KvFormat, ...]
    weight_formats: tuple[WeightFormat, ...]
    checkpoint_formats: tuple[CheckpointFormat, ...] = ()
    """Ready quantised checkpoints by their method; one that isn't listed isn't known to load."""


# --------------------------------------------------------------------------- engine rules

Value = str | int | float | bool


class ConfigKey(Fact):
    """A condition on one key of ``config.json``; a model inside another (``text_config``) is looked into too."""

    key: str
    """A path with dots: ``dual_chunk_attention_config``, ``quantization_config.quant_method``."""
    present: bool | None = None
    """True: there and not null. False: missing or null."""
    values: tuple[Value, ...] = ()
    """The key has one of these."""
    above: float | None = None
    """The key is a number above this."""

    @model_validator(mode="after")
    def _says_something(self) -> ConfigKey:
        if self.present is None and not self.values and self.above is None:
            raise ValueError("says nothing of the key; give present, values or above")
        return self


class EngineCondition(Fact):
    """When a rule of an engine applies. All fields given must hold; of several values in one field, any."""

    architectures: tuple[str, ...] = ()
    """Names in the config's ``architectures``; ``*`` stands for any text."""
    implementation: Literal["native", "transformers"] | None = None
    """Whether the engine has the architecture itself or runs the class of Transformers."""
    config: tuple[ConfigKey, ...] = ()
    rope_types: tuple[str, ...] = ()
    """Some layers' positions are of one of these types."""
    rope_types_beside: tuple[str, ...] = ()
    """Some layers' positions are of a type that isn't among these."""
    attention: tuple[Literal["mha", "gqa", "mqa", "mla", "sliding", "chunked", "linear", "sparse"], ...] = ()
    """Kinds of attention, of which some layers have one."""
    attention_sinks: bool | None = None
    head_dims_beside: tuple[int, ...] = ()
    """Some layers' heads have a width that isn't among these [elements]."""
    head_dim_above: int | None = None
    """Some layers' heads are wider than this [elements]."""
    k_v_differ: bool | None = None
    """Keys are wider than values, or narrower."""
    compute_capabilities: tuple[Text, ...] = ()
    ctx_above: Tokens | None = None
    """The document is longer than this [tokens]."""
    beyond_declared: bool | None = None
    """The longest session is longer than the config's ``max_position_embeddings``."""


class EngineRule(Entry):
    """What one engine does with a model, on a GPU, at a length: read in its code, or seen when it ran.

    - ``refuses``: it doesn't start.
    - ``ignores``: it starts and leaves out what the config asks for, so that answers are trustworthy only up
      to `trusted_tokens`.
    - ``excludes``: it can't keep KV in `kv_formats`.
    - ``forces``: attention runs in `backend`, whatever it would choose elsewhere.
    - ``needs``: it starts with `environment`, `flags`, `overrides` of the config, or `kv_cache_dtype`.
    - ``tells``: what an operator should know.
    """

    engine: Id
    since: Text | None = None
    """First version to which it applies; None: all before `until`."""
    until: Text | None = None
    """Last version to which it applies; None: the newest known."""
    when: EngineCondition
    verdict: Literal["refuses", "ignores", "excludes", "forces", "needs", "tells"]
    why: str
    """What the user reads: what the engine does, in its own words where it has some."""
    way_out: str | None = None
    evidence: Literal["ran", "read"]
    """ran: the engine's own code answered so. read: its source says so."""
    trusted_tokens: Tokens | None = None
    """Longest context with answers that the model was made for [tokens]."""
    trusted_key: str | None = None
    """Key of the config that says the same of each model."""
    kv_formats: tuple[str, ...] = ()
    """The engine's own names of KV formats that it can't use."""
    backend: str | None = None
    kv_cache_dtype: str | None = None
    """What to write for KV in the engine's own precision, where its usual word for it is refused."""
    environment: dict[str, str] = {}
    flags: dict[str, str] = {}
    overrides: dict[str, Any] = {}
    """Keys of the config that must be changed; null takes one away."""

    @model_validator(mode="after")
    def _does_what_it_says(self) -> EngineRule:
        settings = self.environment or self.flags or self.overrides or self.kv_cache_dtype
        wanted: dict[str, tuple[object, str]] = {
            "ignores": (self.trusted_tokens or self.trusted_key, "trusted_tokens or trusted_key"),
            "excludes": (self.kv_formats, "kv_formats"),
            "forces": (self.backend, "backend"),
            "needs": (settings, "environment, flags, overrides or kv_cache_dtype"),
        }
        given, names = wanted.get(self.verdict, (True, ""))
        if not given:
            raise ValueError(f"verdict {self.verdict} without {names}; say which")
        return self


# --------------------------------------------------------------------------- measurements


class FitError(Fact):
    """How far a fitted form was from measurements that the fit hadn't seen."""

    mape: Fraction
    """Mean of |prediction / measurement - 1|."""
    p90: Fraction
    bias: float
    points: Annotated[int, Field(ge=1)]
    held_out: str
    """What was held out."""


class Measurement(Entry):
    """Time of one operation on a GPU with an engine: the parameters of a form, its error and its range.

    The forms are in ``planner/measured``; times are in seconds, sizes in bytes, tokens and elements.
    """

    hardware: Id
    engine: Id
    engine_version: Text
    operation: Literal[
        "gemm", "experts", "prefill_attention", "decode_attention", "all_reduce", "elementwise", "step", "interval"
    ]
    weights: Literal["bf16", "fp8", "int8", "int4", "w8a8"] = "bf16"
    """Precision of the weights; w8a8 also multiplies in eight bits."""
    parameters: dict[str, float]
    table: dict[str, tuple[float, ...]] = {}
    error: FitError | None
    """None: not judged on anything held out."""
    valid: dict[str, tuple[float, float]] = {}
    """Range of each size on which the parameters were fitted; beyond it they are extrapolated."""


KINDS: dict[str, type[Entry]] = {
    "hardware": Hardware,
    "nodes": Node,
    "models": Model,
    "techniques": Technique,
    "rules": Rule,
    "engines": Engine,
    "engine_rules": EngineRule,
    "prices": Price,
    "measurements": Measurement,
}
"""Kind of entry, which is also its folder -> its schema."""

Reader = Callable[[str], Entry]
