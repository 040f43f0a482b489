"""The answer: the decision, its metrics, its constraints with slack, and where it all comes from.

`Decision` is also what a user writes by hand for ``plan evaluate``; what it leaves out has the
defaults below. The JSON of a document is the project's contract (``planner/schema/plan.json``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

DIMENSIONS = ("layer", "head", "token", "hidden", "attention")
"""The compression dimensions of a decision, in the order of every document."""

UNCOMPRESSED = {
    "layer": "layer_none",
    "head": "head_none",
    "token": "token_none",
    "hidden": "kv_bf16",
    "attention": "attn_dense",
}
"""Catalog point that means 'no technique' in each dimension."""

Count = Annotated[int, Field(ge=1, le=10**9)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Choice(_Document):
    """A technique and its strength; ``none`` is no technique."""

    technique: str = "none"
    strength: float | None = None
    point: str | None = None
    """Catalog id of the point, where technique and strength don't name one; plans always give it."""


class Compression(_Document):
    """One choice per dimension of the KV cache, and one for attention's reads and prefill."""

    layer: Choice = Choice()
    head: Choice = Choice()
    token: Choice = Choice()
    hidden: Choice = Choice()
    attention: Choice = Choice()


class Parallel(_Document):
    """How a model is split. ``tp`` None: over all GPUs of a node."""

    tp: Count | None = None
    pp: Count = 1
    dcp: Count = 1
    pcp: Count = 1
    ep: Count = 1
    replicas: Count = 1


class Batch(_Document):
    """What a replica works on at a time. None: as many sessions as fit; the prompt in one piece."""

    decode_sequences: Count = 1
    resident_sessions: Count | None = None
    prefill_chunk_tokens: Count | None = None
    prefill_throttled: bool = False
    """Long prefills yield to short ones (vLLM: long-prefill-token-threshold below the batched tokens)."""


class OffloadChoice(_Document):
    """Where the cache is between two rounds: in HBM (none), in a lower tier (swap), nowhere (recompute)."""

    policy: Literal["none", "swap", "recompute"] = "none"
    tier: Literal["ddr", "nvme"] | None = None


class Pool(_Document):
    """One pool of a disaggregated deployment."""

    parallel: Parallel = Parallel()
    batch: Batch = Batch()


class Pools(_Document):
    """Prefill and decode pools of a disaggregated deployment."""

    prefill: Pool
    decode: Pool


class Decision(_Document):
    """One deployment: everything that the planner may choose.

    What is left out means bf16 weights, no compression, tensor parallelism over all GPUs of a node,
    one decoding sequence, unchunked prefill and no offload.
    """

    engine: str = "any"
    weights: str = "bf16"
    compression: Compression = Compression()
    parallel: Parallel = Parallel()
    batch: Batch = Batch()
    serving: Literal["aggregated", "disaggregated"] = "aggregated"
    pools: Pools | None = None
    offload: OffloadChoice = OffloadChoice()


class HbmBytes(_Document):
    """The parts of HBM on the fullest GPU [bytes]."""

    weights: float
    kv: float
    workspace: float
    overhead: float
    limit: float


class Metrics(_Document):
    """What a decision gives. Per cluster unless the name says otherwise; SI units."""

    concurrency: int
    users: float
    sessions_per_hour: float
    interactions_per_hour: float
    prefill_s: float
    decode_s: float
    step_s: float
    tpot_s: float
    tpot_mean_s: float | None
    ttft_cold_s: float
    ttft_warm_s: float | None
    switch_s: float
    kv_bytes_per_session: float
    kv_ratio: float
    hbm_bytes_per_gpu: HbmBytes
    ddr_bytes: float
    nvme_bytes: float
    quality_loss_mean: float
    quality_loss_at_confidence: float
    window_loss_mean: float
    """Loss from running beyond the trained window: no decision changes it, and the budget doesn't hold it."""
    window_loss_at_confidence: float
    usd_per_hour: float | None
    usd_per_interaction: float | None
    usd_per_million_output_tokens: float | None
    cost_ratio_vs_4k: float | None
    gpus_used: int
    gpus_idle: int
    power_w: float | None = None
    """Board power of the GPUs in use; None where the catalog has none for the GPU."""


class Constraint(_Document):
    """One limit: what it allows, what the decision takes, and how much is left."""

    name: str
    limit: float
    value: float
    slack: float
    binding: bool


class Objective(_Document):
    """What was optimised, what was reached, and what no decision exceeds."""

    name: str
    value: float
    bound: float
    gap: float
    """Relative; 0 is a proof."""


UNDECIDED = "not decided in the time; give --time-limit more"


class Relaxation(_Document):
    """One limit that alone would make a plan possible."""

    limit: str
    """As the option of the command line: ``--max-latency``."""
    from_: str = Field(alias="from")
    to: str | None
    """The smallest change that is enough; None: this limit alone can't repair it, or `note` says it's undecided."""
    note: str | None = None

    @property
    def needed(self) -> str:
        """What would be enough, in words."""
        if self.to is None and self.note == UNDECIDED:
            return UNDECIDED
        return (self.to or "nothing is enough") + (f" ({self.note})" if self.note else "")


class Infeasible(_Document):
    """Why there is no plan."""

    conflicts: tuple[tuple[str, ...], ...]
    """Limits that clash: impossible together, possible without any one of them."""
    relaxations: tuple[Relaxation, ...]


class SourceNote(_Document):
    """Where a fact that shaped the answer comes from."""

    entry: str
    ref: str
    provenance: str


class Provenance(_Document):
    """What produced the document."""

    solver: str | None = None
    """Who chose: ``pricing`` (exact prices of all that bounds leave), ``cpsat``, ``exhaustive`` or ``frontier``."""
    catalog_hash: str
    efficiency: str
    bounded_by: str | None
    """The bound that throughput meets first: gpu, hbm, ddr, nvme, pcie, link or serial."""
    weights_choice: str | None = None
    """Where quantised weights come from: published, made while they are loaded, or to be made first."""
    model_choice: str | None = None
    """Which model was taken, and why, where the request names none."""
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sources: tuple[SourceNote, ...] = ()


Interval = tuple[float, float]
"""Low and high end of an 80 % interval, in the unit of the metric."""

PREDICTED = (
    *("prefill_s", "decode_s", "step_s", "tpot_s", "tpot_mean_s", "ttft_cold_s", "ttft_warm_s", "switch_s"),
    *("interactions_per_hour", "sessions_per_hour", "users", "usd_per_interaction"),
)
"""Metrics that carry an interval."""


class Document(_Document):
    """A priced decision, as ``--format json`` prints it."""

    schema_version: int = SCHEMA_VERSION
    status: Literal["optimal", "feasible", "infeasible", "evaluated"]
    request: dict[str, Any]
    objective: Objective | None = None
    decision: Decision | None = None
    metrics: Metrics | None = None
    intervals: dict[str, Interval] | None = None
    """80 % interval of every predicted time and throughput, by the name of its metric; None at theoretical peak."""
    constraints: tuple[Constraint, ...] = ()
    infeasible: Infeasible | None = None
    provenance: Provenance
