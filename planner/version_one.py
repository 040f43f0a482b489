"""Plans of schema version 1, read as what they say in version 2.

Version 1 knew one service, no percentiles, and times with every cap full only. What it didn't say is null.
"""

from __future__ import annotations

from typing import Any, Literal

from planner.decision import Decision
from planner.plan import (
    Constraint,
    Document,
    GroupIntervals,
    GroupMetrics,
    HbmBytes,
    Infeasible,
    Interval,
    Intervals,
    Latency,
    LatencyIntervals,
    Load,
    Metrics,
    Objective,
    Provenance,
    ServiceIntervals,
    ServiceMetrics,
    Times,
    TimesIntervals,
)
from planner.service import Part, Service

_ROWS = {"tpot_s": "itl_full_s", "ttft_cold_s": "ttft_full_s", "ttft_warm_s": "warm_ttft_full_s"}
"""Constraint of version 1 -> its name now."""


class _Metrics(Part):
    """Metrics of version 1."""

    concurrency: int
    users: float
    sessions_per_hour: float
    interactions_per_hour: float
    prefill_s: float
    decode_s: float
    step_s: float
    tpot_s: float
    tpot_mean_s: float | None = None
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
    window_loss_mean: float = 0.0
    window_loss_at_confidence: float = 0.0
    usd_per_hour: float | None
    usd_per_interaction: float | None
    usd_per_million_output_tokens: float | None
    cost_ratio_vs_4k: float | None = None
    gpus_used: int
    gpus_idle: int


class _Objective(Part):
    """Objective of version 1."""

    name: str
    value: float
    bound: float
    gap: float


class _Provenance(Provenance):
    """Provenance of version 1."""

    warnings: tuple[str, ...] = ()


class PlanOfVersionOne(Part):
    """A plan as version 1 wrote it."""

    schema_version: Literal[1]
    status: Literal["optimal", "feasible", "infeasible", "evaluated"]
    request: dict[str, Any]
    objective: _Objective | None = None
    decision: Service | None = None
    metrics: _Metrics | None = None
    intervals: dict[str, Interval] | None = None
    constraints: tuple[Constraint, ...] = ()
    infeasible: Infeasible | None = None
    provenance: _Provenance

    def document(self) -> Document:
        """Say the same in version 2."""
        decision = None if self.decision is None else Decision.anywhere([self.decision])
        goal = self.objective
        provenance = self.provenance
        return Document(
            status=self.status,
            request=self.request,
            objective=None
            if goal is None
            else Objective(name=goal.name, value=goal.value, best=goal.value, bound=goal.bound, gap=goal.gap),
            decision=decision,
            metrics=None if self.metrics is None or decision is None else self._metrics(self.metrics, decision),
            intervals=None if self.intervals is None or decision is None else self._intervals(self.intervals, decision),
            constraints=tuple(
                row.model_copy(update={"name": _ROWS.get(row.name, row.name)}) for row in self.constraints
            ),
            infeasible=self.infeasible,
            warnings=provenance.warnings,
            provenance=Provenance(**{name: getattr(provenance, name) for name in Provenance.model_fields}),
        )

    def _metrics(self, told: _Metrics, decision: Decision) -> Metrics:
        same = {name: getattr(told, name) for name in Metrics.model_fields if name in _Metrics.model_fields}
        latency = self._latency(told)
        service = ServiceMetrics(
            groups=tuple(group.id for group in decision.groups),
            concurrency=told.concurrency,
            users=told.users,
            interactions_per_hour=told.interactions_per_hour,
            latency=latency,
            quality_loss_at_confidence=told.quality_loss_at_confidence,
        )
        return Metrics(
            **same,
            load=Load(users=told.users, requests_per_hour=told.interactions_per_hour),
            latency=latency,
            services=(service,),
            groups=tuple(
                GroupMetrics(
                    step_s=None if group.role == "prefill" else told.step_s,
                    hbm_bytes_per_gpu=None if group.role == "prefill" else told.hbm_bytes_per_gpu,
                    ddr_bytes=told.ddr_bytes if place == 0 else 0.0,
                    nvme_bytes=told.nvme_bytes if place == 0 else 0.0,
                )
                for place, group in enumerate(decision.groups)
            ),
        )

    def _latency(self, told: _Metrics) -> Latency:
        more = self._output_tokens - 1
        warm_s = told.ttft_warm_s if self._has_later_questions else None
        gap = Times(full=told.tpot_s if more > 0 else None)
        return Latency(
            ttft_s=Times(full=told.ttft_cold_s),
            warm_ttft_s=Times(full=warm_s),
            tpot_s=gap,
            itl_s=gap,
            e2e_s=Times(full=told.ttft_cold_s + more * told.tpot_s),
            warm_e2e_s=Times(full=None if warm_s is None else warm_s + more * told.tpot_s),
        )

    def _intervals(self, told: dict[str, Interval], decision: Decision) -> Intervals:
        gap = TimesIntervals(full=told.get("tpot_s") if self._output_tokens > 1 else None)
        warm = told.get("ttft_warm_s") if self._has_later_questions else None
        latency = LatencyIntervals(
            ttft_s=TimesIntervals(full=told.get("ttft_cold_s")),
            warm_ttft_s=TimesIntervals(full=warm),
            tpot_s=gap,
            itl_s=gap,
        )
        same = {name: ends for name, ends in told.items() if name in Intervals.model_fields}
        users, served = told.get("users"), told.get("interactions_per_hour")
        return Intervals(
            **same,
            latency=latency,
            services=(ServiceIntervals(users=users, interactions_per_hour=served, latency=latency),),
            groups=tuple(
                GroupIntervals(step_s=None if group.role == "prefill" else told.get("step_s"))
                for group in decision.groups
            ),
        )

    @property
    def _output_tokens(self) -> int:
        return int(self.request.get("output_tokens", 250))

    @property
    def _has_later_questions(self) -> bool:
        return int(self.request.get("rounds", 5)) > 1
