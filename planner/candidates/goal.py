"""What is minimised, and which limits hold: both as functions of priced candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.cost.price import Priced
from planner.limits import BY_PRICED, SLACK, limits_of
from planner.objectives import CLUSTER_COST, OBJECTIVES, Figures, answer_s, sought
from planner.request import Request

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Name = Literal[
    "throughput", "cost", "gpus", "users", "latency", "quality", "tpot_s", "ttft_cold_s", "ttft_warm_s", "switch_s"
]


@dataclass(frozen=True)
class Limits:
    """The limits of a request on what a priced candidate gives; the quality budget is a matter of options."""

    amounts: Mapping[str, float] = field(default_factory=dict)
    """Metric -> the most of it, or the least."""

    @staticmethod
    def of(request: Request) -> Limits:
        """As the request states them."""
        found = [(limit, amount) for limit, amount in limits_of(request) if not limit.of_options]
        return Limits({metric: float(amount) for limit, amount in found for metric in limit.priced})

    @property
    def users(self) -> float | None:
        """Users to serve at least."""
        return self.amounts.get("users")

    def most(self, metric: str) -> float | None:
        """What a candidate's metric may be at most; None: anything."""
        return None if BY_PRICED[metric].at_least else self.amounts.get(metric)

    def hold(self, priced: Priced, *, users: bool = True) -> Bools:
        """Which candidates fit and keep every limit on times, and on users unless told not to look."""
        keep = priced.fits.copy()
        for metric, amount in self.amounts.items():
            if not BY_PRICED[metric].at_least:
                keep &= getattr(priced, metric) <= amount * (1.0 + SLACK)
            elif users:
                keep &= getattr(priced, metric) >= amount * (1.0 - SLACK)
        return keep

    def used(self, priced: Priced, *, users: bool = True) -> Floats:
        """How much of the tightest limit candidates use; 1 where it is met exactly."""
        share = np.zeros(len(priced.tpot_s))
        for metric, amount in self.amounts.items():
            value = getattr(priced, metric)
            if not BY_PRICED[metric].at_least:
                share = np.maximum(share, value / amount)
            elif users:
                share = np.maximum(share, amount / np.maximum(value, 1e-300))
        return share


@dataclass(frozen=True)
class Goal:
    """What is minimised."""

    name: Name
    output_tokens: int
    rounds: int = 2
    """With one round there is no later question: the first answer is the one that counts."""

    @staticmethod
    def of(request: Request, name: Name | None = None) -> Goal:
        """As a request states it, or with another objective."""
        sought_of: Name = "gpus" if sought(request) is CLUSTER_COST else request.objective
        return Goal(name or sought_of, request.output_tokens, request.rounds)

    @property
    def adds_up(self) -> bool:
        """Whether columns add to it; else the worst of them counts: mixing ratios is no better than the best ratio."""
        return self.most or self.name == "gpus"

    @property
    def most(self) -> bool:
        """Whether it is as much as possible of what columns add to: interactions, or users."""
        return self.name in ("throughput", "users")

    def counts_users(self, limits: Limits) -> bool:
        """Whether it matters how many users there are: longer sessions have more."""
        return limits.users is not None or self.name == "users"

    def rate(self, priced: Priced) -> Floats:
        """What columns add: interactions per hour, or users."""
        return priced.users if self.name == "users" else priced.interactions_per_hour

    def value(self, priced: Priced, loss_at_confidence: Floats | float) -> Floats:
        """The number that is minimised, per candidate: seconds, USD, GPU-seconds or a fraction."""
        if self.name == "users":
            return 1.0 / np.maximum(priced.users, 1e-300)
        if self.name not in OBJECTIVES:
            return np.asarray(getattr(priced, self.name))
        first_s = priced.ttft_warm_s if self.rounds > 1 else priced.ttft_cold_s
        figures = Figures(
            interactions_per_hour=priced.interactions_per_hour,
            gpus=priced.gpus,
            latency_s=answer_s(first_s, priced.tpot_s, self.output_tokens),
            quality_loss=np.broadcast_to(np.asarray(loss_at_confidence), priced.tpot_s.shape),
        )
        return np.asarray(OBJECTIVES[self.name].minimised(figures))
