"""What is minimised, and which limits hold: both as functions of priced candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.cost.price import Priced
from planner.request import Request

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Name = Literal["throughput", "cost", "latency", "quality", "tpot_s", "ttft_cold_s", "ttft_warm_s", "switch_s"]

FLOAT_SLACK = 1e-9
"""Relative: differences below this are rounding of floats, not of a plan."""


@dataclass(frozen=True)
class Limits:
    """The limits of a request on times and users; the quality budget is a matter of options."""

    tpot_s: float | None = None
    ttft_cold_s: float | None = None
    ttft_warm_s: float | None = None
    switch_s: float | None = None
    users: float | None = None

    @staticmethod
    def of(request: Request) -> Limits:
        """As the request states them."""
        return Limits(
            tpot_s=request.max_latency,
            ttft_cold_s=request.max_ttft,
            ttft_warm_s=request.max_warm_ttft,
            switch_s=request.max_switch,
            users=float(request.users) if request.users is not None else None,
        )

    def hold(self, priced: Priced, *, users: bool = True) -> Bools:
        """Which candidates fit and keep every limit on times, and on users unless told not to look."""
        keep = priced.fits.copy()
        for name in ("tpot_s", "ttft_cold_s", "ttft_warm_s", "switch_s"):
            limit = getattr(self, name)
            if limit is not None:
                keep &= getattr(priced, name) <= limit * (1.0 + FLOAT_SLACK)
        if users and self.users is not None:
            keep &= priced.users >= self.users * (1.0 - FLOAT_SLACK)
        return keep

    def used(self, priced: Priced) -> Floats:
        """How much of the tightest limit candidates use; 1 where it is met exactly."""
        share = np.zeros(len(priced.tpot_s))
        for name in ("tpot_s", "ttft_cold_s", "ttft_warm_s", "switch_s"):
            limit = getattr(self, name)
            if limit is not None:
                share = np.maximum(share, getattr(priced, name) / limit)
        if self.users is not None:
            share = np.maximum(share, self.users / np.maximum(priced.users, 1e-300))
        return share


@dataclass(frozen=True)
class Goal:
    """What is minimised."""

    name: Name
    output_tokens: int

    def value(self, priced: Priced, loss_at_confidence: Floats | float) -> Floats:
        """The number that is minimised, per candidate: seconds, USD, GPU-seconds or a fraction."""
        if self.name == "throughput":
            return _reciprocal(priced.interactions_per_hour)
        if self.name == "cost":
            return priced.gpus * _reciprocal(priced.interactions_per_hour)
        if self.name == "latency":
            return priced.ttft_warm_s + (self.output_tokens - 1) * priced.tpot_s
        if self.name == "quality":
            return np.broadcast_to(np.asarray(loss_at_confidence), priced.tpot_s.shape)
        return np.asarray(getattr(priced, self.name))


def _reciprocal(values: Floats) -> Floats:
    return np.where(values > 0, 1.0 / np.maximum(values, 1e-300), np.inf)
