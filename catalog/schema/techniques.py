"""Compression techniques and the curves of their strengths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from catalog.schema.base import Dimension, Entry, Fact, Fraction, Id, Provenance, Text, Tokens


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
