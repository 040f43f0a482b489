"""The metrics of a decision: sums over its services, the worst service's times and losses, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.decision import Decision
from planner.plan import (
    GroupIntervals,
    GroupMetrics,
    Intervals,
    Latency,
    LatencyIntervals,
    Load,
    Metrics,
    ServiceIntervals,
    ServiceMetrics,
    Times,
    TimesIntervals,
)
from planner.price.figures import Figures
from planner.service import Part

_KINDS: dict[type[Part], type[Part]] = {
    Metrics: Intervals,
    Latency: LatencyIntervals,
    Times: TimesIntervals,
    ServiceMetrics: ServiceIntervals,
    GroupMetrics: GroupIntervals,
}
"""Metrics -> their intervals."""


def metrics_of(decision: Decision, figures: Sequence[Figures]) -> Metrics:
    """Tell the figures of a decision's services as its metrics: sums, and the worst service's times and losses."""
    interactions = sum(one.interactions_per_hour for one in figures)
    users = sum(one.users for one in figures)
    priced = [one.usd_per_hour for one in figures if one.usd_per_hour is not None]
    usd = sum(priced) if len(priced) == len(figures) else None
    paid = None if usd is None or interactions <= 0 else usd / interactions
    gpus = sum(one.gpus_used for one in figures)
    watts = [one.power_w for one in figures if one.power_w is not None]
    latencies = [_latency(one) for one in figures]
    services = [
        ServiceMetrics(
            groups=tuple(group.id for group in groups),
            concurrency=one.concurrency,
            users=one.users,
            interactions_per_hour=one.interactions_per_hour,
            latency=latency,
            quality_loss_at_confidence=one.quality_loss_at_confidence,
        )
        for groups, one, latency in zip(decision.groups_of_services, figures, latencies, strict=True)
    ]

    def worst(value: Callable[[Figures], float]) -> float:
        return max(value(one) for one in figures)

    return Metrics(
        load=Load(users=users, requests_per_hour=interactions),
        concurrency=sum(one.concurrency for one in figures),
        users=users,
        gpus_used=gpus,
        gpus_idle=figures[0].gpus_used + figures[0].gpus_idle - gpus,
        power_w=sum(watts) if len(watts) == len(figures) else None,
        sessions_per_hour=sum(one.sessions_per_hour for one in figures),
        interactions_per_hour=interactions,
        latency=_worst_latency(latencies),
        services=tuple(services),
        prefill_s=worst(lambda one: one.prefill_s),
        decode_s=worst(lambda one: one.decode_s),
        switch_s=worst(lambda one: one.switch_s),
        kv_bytes_per_session=worst(lambda one: one.kv_bytes_per_session),
        kv_ratio=worst(lambda one: one.kv_ratio),
        quality_loss_mean=worst(lambda one: one.quality_loss_mean),
        quality_loss_at_confidence=worst(lambda one: one.quality_loss_at_confidence),
        window_loss_mean=worst(lambda one: one.window_loss_mean),
        window_loss_at_confidence=worst(lambda one: one.window_loss_at_confidence),
        usd_per_hour=usd,
        usd_per_interaction=paid,
        usd_per_million_output_tokens=_usd_per_million_tokens(paid, figures[0].output_tokens),
        cost_ratio_vs_4k=None,
        groups=tuple(_groups(decision, figures)),
    )


def _usd_per_million_tokens(usd_per_interaction: float | None, tokens: int) -> float | None:
    return None if usd_per_interaction is None or tokens <= 0 else usd_per_interaction / tokens * 1e6


def _latency(figures: Figures) -> Latency:
    return Latency(
        ttft_s=Times(idle=figures.ttft_idle_s, full=figures.ttft_full_s),
        warm_ttft_s=Times(idle=figures.warm_ttft_idle_s, full=figures.warm_ttft_full_s),
        tpot_s=Times(idle=figures.tpot_idle_s, full=figures.tpot_full_s),
        itl_s=Times(idle=figures.tpot_idle_s, full=figures.tpot_full_s),
        e2e_s=Times(idle=figures.e2e_idle_s, full=figures.e2e_full_s),
        warm_e2e_s=Times(idle=figures.warm_e2e_idle_s, full=figures.warm_e2e_full_s),
    )


def _worst_latency(latencies: Sequence[Latency]) -> Latency:
    """Return every time of the service where it is longest; null where no service has it."""
    found = {}
    for name in Latency.model_fields:
        times = [getattr(latency, name) for latency in latencies]
        worst = {}
        for level in Times.model_fields:
            values = [value for one in times if (value := getattr(one, level)) is not None]
            worst[level] = max(values, default=None)
        found[name] = Times(**worst)
    return Latency(**found)


def _groups(decision: Decision, figures: Sequence[Figures]) -> list[GroupMetrics]:
    """Return the metrics of each group; a tier holds the caches of the group that prefills."""
    found: list[GroupMetrics] = []
    for groups, one in zip(decision.groups_of_services, figures, strict=True):
        for group in groups:
            decodes, holds = group.role != "prefill", group is groups[0]
            found.append(
                GroupMetrics(
                    step_s=one.step_s if decodes else None,
                    hbm_bytes_per_gpu=one.hbm_bytes_per_gpu if decodes else None,
                    ddr_bytes=one.ddr_bytes if holds else 0.0,
                    nvme_bytes=one.nvme_bytes if holds else 0.0,
                    spare_replicas=one.reserve.main if decodes else one.reserve.prefill,
                )
            )
    return found


def intervals_of(central: Metrics, ends: Sequence[Metrics]) -> Intervals | None:
    """Return the least and the most of every number that has an interval; None where no ends are known."""
    return Intervals.model_validate(_ends((central, *ends))) if ends else None


def _ends(parts: Sequence[Part]) -> dict[str, object]:
    kind = _KINDS[type(parts[0])]
    found: dict[str, object] = {}
    for name in kind.model_fields:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], Part):
            found[name] = _ends(values)
        elif isinstance(values[0], tuple):
            found[name] = tuple(_ends(each) for each in zip(*values, strict=True))
        elif values[0] is not None:
            known = [value for value in values if value is not None]
            found[name] = (min(known), max(known))
    return found
