"""The objectives of a request: one record for each says all that the program knows of it.

An objective is told as a measure of a plan (interactions per hour) and sought as a number that is
minimised (hours per interaction). Both come from here, for metrics of a plan and for arrays of priced
candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Name = Literal["throughput", "cost", "latency", "quality"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What objectives are made of: floats for one plan, or arrays ``(candidate,)``."""

    interactions_per_hour: Floats | float
    gpus: Floats | float
    latency_s: Floats | float
    """Of a later question's whole answer [s]."""
    quality_loss: Floats | float
    """At the request's confidence [fraction]."""


def answer_s(ttft_s: Any, tpot_s: Any, output_tokens: int) -> Any:
    """Time from a question to the last token of its answer; floats or arrays [s].

    >>> answer_s(2.0, 0.1, 11)
    3.0
    """
    return ttft_s + (output_tokens - 1) * tpot_s


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a plan that can be better or worse."""

    name: str
    """In documents, with its unit."""
    of: Callable[[Any, int], float | None]
    """Of a plan's metrics and the tokens of an answer; None where the plan has none."""
    higher: bool = False
    """Whether more is better."""
    instead: str | None = None
    """The measure that every plan has, where this one may be missing."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective of a request."""

    name: Name
    """In the request."""
    measures: tuple[Measure, ...]
    """The first that a plan has is the one that is told."""
    minimised: Callable[[Figures], Floats | float]
    """The number that is minimised: hours or GPU-hours per interaction, GPUs, seconds, or a loss."""
    needs_users: bool = False
    """Whether one user alone is always served best, so that a request must say how many there are."""

    def measure(self, metrics: Any) -> Measure:
        """How the objective is told for a plan: in GPU-hours where nobody prices the GPU."""
        return next((one for one in self.measures if one.of(metrics, 1) is not None), self.measures[-1])


def _metric(name: str) -> Callable[[Any, int], float | None]:
    def of(metrics: Any, output_tokens: int) -> float | None:
        value: float | None = getattr(metrics, name)
        return value

    return of


def _latency_s(metrics: Any, output_tokens: int) -> float:
    value: float = metrics.latency_s
    return value


def _gpu_hours(metrics: Any, output_tokens: int) -> float | None:
    per_hour = metrics.interactions_per_hour
    return metrics.gpus_used / per_hour if per_hour > 0 else None


def _reciprocal(values: Floats | float) -> Floats:
    return np.where(np.asarray(values) > 0, 1.0 / np.maximum(values, 1e-300), np.inf)


OBJECTIVES = {
    "throughput": Objective(
        name="throughput",
        measures=(Measure("interactions_per_hour", _metric("interactions_per_hour"), higher=True),),
        minimised=lambda of: _reciprocal(of.interactions_per_hour),
    ),
    "cost": Objective(
        name="cost",
        measures=(
            Measure("usd_per_interaction", _metric("usd_per_interaction"), instead="gpu_hours_per_interaction"),
            Measure("gpu_hours_per_interaction", _gpu_hours),
        ),
        minimised=lambda of: of.gpus * _reciprocal(of.interactions_per_hour),
    ),
    "latency": Objective(
        name="latency",
        measures=(Measure("latency_s", _latency_s),),
        minimised=lambda of: of.latency_s,
        needs_users=True,
    ),
    "quality": Objective(
        name="quality",
        measures=(Measure("quality_loss_at_confidence", _metric("quality_loss_at_confidence")),),
        minimised=lambda of: of.quality_loss,
        needs_users=True,
    ),
}
"""Name in the request -> objective."""

CLUSTER_COST = Objective(
    name="cost",
    measures=(
        Measure("usd_per_hour", _metric("usd_per_hour"), instead="gpus_used"),
        Measure("gpus_used", _metric("gpus_used")),
    ),
    minimised=lambda of: np.asarray(of.gpus, dtype=np.float64),
)
"""Cost where a request says how many users there are: their interactions are given, so the cheapest cluster it is."""


def sought(request: Any) -> Objective:
    """The objective of a request."""
    demand = request.objective == "cost" and request.users is not None
    return CLUSTER_COST if demand else OBJECTIVES[request.objective]


MEASURES = {
    measure.name: measure for objective in (*OBJECTIVES.values(), CLUSTER_COST) for measure in objective.measures
}
"""Name in documents -> measure."""


def figures_of(metrics: Any, output_tokens: int) -> Figures:
    """What the objectives are made of, from a plan's metrics."""
    return Figures(
        interactions_per_hour=metrics.interactions_per_hour,
        gpus=metrics.gpus_used,
        latency_s=_latency_s(metrics, output_tokens),
        quality_loss=metrics.quality_loss_at_confidence,
    )
