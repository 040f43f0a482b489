"""The figures of one priced service: flat, in SI units, before they are told as a document's metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.cost.price import Priced, Setting
from planner.cost.quality import LogLoss
from planner.plan import HbmBytes
from planner.price.reserve import Reserve
from planner.problem import Problem
from planner.service import Service

FULL, IDLE = 0, 1
"""Rows of a service's candidates: every cap full, and one user alone."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one service gives, over all its replicas unless the name says otherwise.

    Times with ``full`` in their name are those with every cap full, with ``idle`` those of one user alone.
    """

    concurrency: int
    users: float
    sessions_per_hour: float
    interactions_per_hour: float
    prefill_s: float
    decode_s: float
    step_s: float
    itl_full_s: float
    itl_idle_s: float
    tpot_mean_s: float | None
    """A decode step, stretched by what prefills take of the GPU at the service's own throughput."""
    ttft_full_s: float
    ttft_idle_s: float
    warm_ttft_full_s: float | None
    warm_ttft_idle_s: float | None
    switch_s: float
    kv_bytes_per_session: float
    kv_ratio: float
    hbm_bytes_per_gpu: HbmBytes
    """Of the replicas that decode."""
    ddr_bytes: float
    nvme_bytes: float
    quality_loss_mean: float
    quality_loss_at_confidence: float
    window_loss_mean: float
    window_loss_at_confidence: float
    usd_per_hour: float | None
    usd_per_interaction: float | None
    usd_per_million_output_tokens: float | None
    gpus_used: int
    reserve: Reserve
    """What isn't in the other figures, GPUs and what they cost apart."""
    power_w: float | None
    """Board power of the GPUs in use; None where the catalog has none for the GPU."""
    gpus_idle: int
    """Of the cluster, were this its only service."""
    output_tokens: int
    latency_s: float
    """What ``--objective latency`` minimises: a later question's whole answer, every cap full [s]."""

    @property
    def tpot_full_s(self) -> float | None:
        """A request's time per output token with every cap full; None for answers of one token [s]."""
        return self.itl_full_s if self.output_tokens > 1 else None

    @property
    def tpot_idle_s(self) -> float | None:
        """The same of one user alone [s]."""
        return self.itl_idle_s if self.output_tokens > 1 else None

    @property
    def e2e_full_s(self) -> float:
        """A whole request that opens a session, with every cap full [s]."""
        return self.ttft_full_s + (self.output_tokens - 1) * self.itl_full_s

    @property
    def e2e_idle_s(self) -> float:
        """The same of one user alone [s]."""
        return self.ttft_idle_s + (self.output_tokens - 1) * self.itl_idle_s

    @property
    def warm_e2e_full_s(self) -> float | None:
        """A whole later request, with every cap full; None where sessions have one round [s]."""
        first = self.warm_ttft_full_s
        return None if first is None else first + (self.output_tokens - 1) * self.itl_full_s

    @property
    def warm_e2e_idle_s(self) -> float | None:
        """The same of one user alone [s]."""
        first = self.warm_ttft_idle_s
        return None if first is None else first + (self.output_tokens - 1) * self.itl_idle_s


def figures_of(
    problem: Problem,
    service: Service,
    loss: LogLoss,
    setting: Setting,
    priced: Priced,
    kv_bytes_per_session: float,
    reserve: Reserve,
) -> Figures:
    """Read the figures of a service from its two priced candidates: `FULL` and `IDLE`."""
    request = problem.request

    def at(name: str, row: int = FULL) -> float:
        return float(getattr(priced, name)[row])

    def finite(name: str, row: int = FULL) -> float | None:
        value = at(name, row)
        return value if math.isfinite(value) else None

    later = request.rounds > 1
    whole = problem.architecture.kv_bytes(request.ctx)
    tier = service.offload.tier
    interactions = at("interactions_per_hour")
    tokens = interactions * request.output_tokens
    usd_per_hour = finite("usd_per_hour")
    return Figures(
        concurrency=int(at("concurrency")),
        users=at("users"),
        sessions_per_hour=3600.0 * at("sessions_per_s"),
        interactions_per_hour=interactions,
        prefill_s=at("prefill_s"),
        decode_s=at("decode_s"),
        step_s=at("step_s"),
        itl_full_s=at("tpot_s"),
        itl_idle_s=at("tpot_s", IDLE),
        tpot_mean_s=finite("tpot_mean_s"),
        ttft_full_s=at("ttft_cold_s"),
        ttft_idle_s=at("ttft_cold_s", IDLE),
        warm_ttft_full_s=finite("ttft_warm_s") if later else None,
        warm_ttft_idle_s=finite("ttft_warm_s", IDLE) if later else None,
        switch_s=at("switch_s"),
        kv_bytes_per_session=kv_bytes_per_session,
        kv_ratio=kv_bytes_per_session / whole if whole else 1.0,
        hbm_bytes_per_gpu=HbmBytes(
            weights=at("weights_bytes"),
            kv=at("kv_bytes"),
            workspace=setting.efficiency.workspace_bytes,
            overhead=setting.efficiency.overhead_bytes,
            limit=setting.hardware.hbm * setting.efficiency.hbm_utilisation,
        ),
        ddr_bytes=at("tier_bytes") if tier == "ddr" else 0.0,
        nvme_bytes=at("tier_bytes") if tier == "nvme" else 0.0,
        quality_loss_mean=loss.loss_mean,
        quality_loss_at_confidence=loss.loss_at(request.confidence),
        window_loss_mean=problem.window.loss_mean,
        window_loss_at_confidence=problem.window.loss_at(request.confidence),
        usd_per_hour=usd_per_hour,
        usd_per_interaction=finite("usd_per_interaction"),
        usd_per_million_output_tokens=usd_per_hour / tokens * 1e6 if usd_per_hour is not None and tokens > 0 else None,
        gpus_used=int(at("gpus")),
        reserve=reserve,
        gpus_idle=problem.cluster.gpus - int(at("gpus")),
        power_w=finite("power_w"),
        output_tokens=request.output_tokens,
        latency_s=at("ttft_warm_s" if later else "ttft_cold_s") + (request.output_tokens - 1) * at("tpot_s"),
    )
