"""The answer: the decision, its metrics, its constraints with slack, and where it all comes from.

The JSON of a document is the project's contract, version 2 (``planner/schema/plan.json``). What isn't
computed is null: one round has no later question, an answer of one token no TPOT.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import CoreSchema

from planner.decision import Decision
from planner.service import Part, Service

SCHEMA_VERSION = 2


class HbmBytes(Part):
    """The parts of HBM on the fullest GPU [bytes]."""

    weights: float
    kv: float
    workspace: float
    overhead: float
    limit: float

    @property
    def used(self) -> float:
        """All parts together [bytes]."""
        return self.weights + self.kv + self.workspace + self.overhead


class Times(Part):
    """One latency, seven times [s]. A plan never gives a time without saying which of these it is."""

    idle: float | None = None
    """One user alone on an idle replica."""
    full: float | None = None
    """Every cap full: the largest foreign chunk in each step, and before a first token one mixed step, or one
    whole foreign prefill where prefills aren't throttled."""
    mean: float | None = None
    """This and the percentiles: over requests, under the plan's own load."""
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latency(Part):
    """What a user waits for."""

    ttft_s: Times = Times()
    """The first token of a session's document."""
    warm_ttft_s: Times = Times()
    """The first token of a later question's answer."""
    tpot_s: Times = Times()
    """A request's time per output token, (E2E - TTFT)/(tokens - 1)."""
    itl_s: Times = Times()
    """A single gap between two tokens."""
    e2e_s: Times = Times()
    """A whole request that opens a session (idle, full); over all requests (the others)."""
    warm_e2e_s: Times = Times()
    """A whole later request."""


class Load(Part):
    """Under which load the times of `Times.mean` and the percentiles are."""

    arrivals: Literal["closed", "poisson"] = "closed"
    """``closed``: each user opens a new document when a session ends."""
    users: float
    requests_per_hour: float
    assumed: Literal["own", "asked"] = "own"
    """``own``: the plan's own promise; ``asked``: the users or the rate of the request."""


class ServiceMetrics(Part):
    """One service of a decision."""

    groups: tuple[str, ...]
    concurrency: int
    """Sessions that fit in its HBM."""
    users: float
    interactions_per_hour: float
    latency: Latency
    quality_loss_at_confidence: float


class GroupMetrics(Part):
    """One group of a decision, in the order of `planner.decision.Decision.groups`."""

    step_s: float | None
    """A quiet decode step at its decode cap; None for a prefill group."""
    hbm_bytes_per_gpu: HbmBytes | None
    """On the fullest GPU; None for a prefill group."""
    ddr_bytes: float
    """Over the group."""
    nvme_bytes: float
    spare_replicas: int = Field(default=0, exclude_if=lambda count: count == 0)
    """Of its replicas in reserve: they may fail, and what they serve isn't promised; left out where none is."""


_TIME = re.compile(r"(ttft|warm_ttft|tpot|itl|e2e|warm_e2e)_(idle|full|mean|p50|p90|p95|p99)_s")


class Metrics(Part):
    """What a decision gives. Per cluster unless the name says otherwise; SI units.

    Of several services, users, throughput, money and GPUs are sums; times and losses are the worst service's.
    """

    load: Load
    concurrency: int
    users: float
    gpus_used: int
    gpus_idle: int
    power_w: float | None = None
    """Board power of the GPUs in use; None where the catalog has none for the GPU."""
    sessions_per_hour: float
    interactions_per_hour: float
    latency: Latency
    services: tuple[ServiceMetrics, ...]
    prefill_s: float
    """The document alone on an idle replica."""
    decode_s: float
    """A whole answer in quiet steps at the decode cap."""
    switch_s: float
    """One full cache out plus one full in, also when nothing is swapped."""
    kv_bytes_per_session: float
    """Logical, at the document's length."""
    kv_ratio: float
    """That over the same checkpoint in bf16 without techniques."""
    quality_loss_mean: float
    quality_loss_at_confidence: float
    window_loss_mean: float
    """Loss from running beyond the trained window: no decision changes it, and the budget doesn't hold it."""
    window_loss_at_confidence: float
    usd_per_hour: float | None
    usd_per_interaction: float | None
    usd_per_million_output_tokens: float | None
    cost_ratio_vs_4k: float | None
    groups: tuple[GroupMetrics, ...]

    def named(self, name: str) -> float | None:
        """Return the number that the name of a constraint or an objective stands for: ``itl_full_s``, ``users``."""
        found = _TIME.fullmatch(name)
        value = getattr(getattr(self.latency, f"{found[1]}_s"), found[2]) if found else getattr(self, name)
        return None if value is None else float(value)

    @property
    def latency_s(self) -> float:
        """What ``--objective latency`` is about: a later question's whole answer; with one round the only one [s]."""
        later = self.latency.warm_e2e_s.full
        return (self.latency.e2e_s.full or 0.0) if later is None else later

    @property
    def step_s(self) -> float:
        """The slowest group's quiet decode step at its decode cap [s]."""
        return max(group.step_s for group in self.groups if group.step_s is not None)

    @property
    def ddr_bytes(self) -> float:
        """Of all groups [bytes]."""
        return sum(group.ddr_bytes for group in self.groups)

    @property
    def nvme_bytes(self) -> float:
        """Of all groups [bytes]."""
        return sum(group.nvme_bytes for group in self.groups)

    @property
    def hbm_bytes_per_gpu(self) -> HbmBytes:
        """The parts of HBM of the group that leaves the least of it free."""
        told = [group.hbm_bytes_per_gpu for group in self.groups if group.hbm_bytes_per_gpu is not None]
        return max(told, key=lambda hbm: hbm.used / hbm.limit)


Interval = tuple[float, float]
"""Low and high end of an 80 % interval, in the unit of the metric."""


class _Ends(Part):
    """Intervals of some metrics, by the metrics' names; in JSON only those that exist."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Tell the fields, none of which has to be there."""
        whole = {name: value for name, value in core_schema.items() if name != "serialization"}
        schema = handler.resolve_ref_schema(handler(whole))
        schema.pop("required", None)
        return schema

    @model_serializer(mode="wrap")
    def _those_that_exist(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value not in (None, {})}


class TimesIntervals(_Ends):
    """Intervals of `Times`."""

    idle: Interval | None = None
    full: Interval | None = None
    mean: Interval | None = None
    p50: Interval | None = None
    p90: Interval | None = None
    p95: Interval | None = None
    p99: Interval | None = None


class LatencyIntervals(_Ends):
    """Intervals of `Latency`."""

    ttft_s: TimesIntervals = TimesIntervals()
    warm_ttft_s: TimesIntervals = TimesIntervals()
    tpot_s: TimesIntervals = TimesIntervals()
    itl_s: TimesIntervals = TimesIntervals()
    e2e_s: TimesIntervals = TimesIntervals()
    warm_e2e_s: TimesIntervals = TimesIntervals()


class ServiceIntervals(_Ends):
    """Intervals of `ServiceMetrics`."""

    users: Interval | None = None
    interactions_per_hour: Interval | None = None
    latency: LatencyIntervals = LatencyIntervals()


class GroupIntervals(_Ends):
    """Intervals of `GroupMetrics`."""

    step_s: Interval | None = None


class Intervals(_Ends):
    """Intervals of `Metrics`."""

    users: Interval | None = None
    sessions_per_hour: Interval | None = None
    interactions_per_hour: Interval | None = None
    latency: LatencyIntervals = LatencyIntervals()
    services: tuple[ServiceIntervals, ...] = ()
    prefill_s: Interval | None = None
    decode_s: Interval | None = None
    switch_s: Interval | None = None
    usd_per_interaction: Interval | None = None
    groups: tuple[GroupIntervals, ...] = ()

    def named(self, name: str) -> Interval | None:
        """Return the interval of what `Metrics.named` returns; None where it has none."""
        found = _TIME.fullmatch(name)
        ends: Interval | None = (
            getattr(getattr(self.latency, f"{found[1]}_s"), found[2]) if found else getattr(self, name, None)
        )
        return ends


class Constraint(Part):
    """One limit: what it allows, what the decision takes, and how much is left. The unit is in the name."""

    name: str
    limit: float
    value: float
    slack: float
    binding: bool | None
    """Whether more of it would make the objective better; None: time left it undecided."""


class Objective(Part):
    """What was optimised, what the plan shown reaches, and what no decision exceeds."""

    name: str
    value: float
    """Of the plan shown."""
    best: float
    """Of the best plan found."""
    bound: float
    """No decision exceeds it."""
    gap: float
    """Between `best` and `bound`, relative; 0 is a proof."""
    chosen_by: Literal["optimum", "tolerance", "confirmation", "time"] = "optimum"
    """Why the plan shown was chosen among the best."""


class Confirmed(Part):
    """What a simulation of the plan found."""

    by: Literal["simulation", "none"] = "none"
    verdict: Literal["held", "refuted", "undecided"] | None = None
    arrivals: str | None = None
    users: float | None = None
    router: str | None = None
    sessions: int | None = None
    replications: int | None = None
    seed: int | None = None
    share_of_promise: float | None = None
    latency: Latency | None = None
    refuted: tuple[str, ...] = ()
    """Names of limits that the simulation broke."""


class Alternative(Part):
    """Another plan for the same request, and what it is better at."""

    why: str
    decision: Decision
    metrics: Metrics


UNDECIDED = "not decided in the time; give --time-limit more"


class Relaxation(Part):
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


class Infeasible(Part):
    """Why there is no plan."""

    conflicts: tuple[tuple[str, ...], ...]
    """Limits that clash: impossible together, possible without any one of them."""
    relaxations: tuple[Relaxation, ...]


class SourceNote(Part):
    """Where a fact that shaped the answer comes from."""

    entry: str
    ref: str
    provenance: str


class Provenance(Part):
    """What produced the document."""

    solver: str | None = None
    """Who chose: ``cpsat`` composed the cluster, ``rules`` where that failed, ``exhaustive`` or ``frontier``."""
    search: dict[str, int] | None = None
    """What it was chosen among: operating ``points``; ``columns``, ``variables`` and ``rows`` of the composition."""
    catalog_hash: str
    efficiency: str
    bounded_by: str | None
    """The bound that throughput meets first: gpu, hbm, ddr, nvme, pcie, link or serial."""
    weights_choice: str | None = None
    """Where quantised weights come from: published, made while they are loaded, or to be made first."""
    cluster_choice: str | None = None
    """How many GPUs were taken, and whether fewer do, where the request leaves it open."""
    model_choice: str | None = None
    """Which model was taken, and why, where the request names none."""
    assumptions: tuple[str, ...] = ()
    sources: tuple[SourceNote, ...] = ()


class Document(Part):
    """A priced decision, as ``--format json`` prints it."""

    schema_version: int = SCHEMA_VERSION
    status: Literal["optimal", "feasible", "infeasible", "evaluated"]
    request: dict[str, Any]
    objective: Objective | None = None
    decision: Decision | None = None
    metrics: Metrics | None = None
    intervals: Intervals | None = None
    """80 % intervals of `metrics`, leaf by leaf where a number has one; None at theoretical peak."""
    confirmed: Confirmed = Confirmed()
    alternatives: tuple[Alternative, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    infeasible: Infeasible | None = None
    warnings: tuple[str, ...] = ()
    """Whatever can break a stated limit or promise."""
    provenance: Provenance

    @property
    def service(self) -> Service | None:
        """The only service of the decision; None without a decision.

        Raises
        ------
        InputError
            If there are several.
        """
        return None if self.decision is None else self.decision.service
