"""How far predictions are from measured points: per point, per source, per metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.load import Catalog, built_in_directory
from planner.measured.interval import Predicted, batch_half_width, with_interval
from planner.measured.points import Point, PointError, deployment_of, read_points
from planner.measured.predict import predict_s

BUILT_IN_POINTS = built_in_directory() / "measurements" / "points.csv"
"""The published points that the catalog's fits rest on."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A point and its prediction."""

    point: Point
    predicted: Predicted
    transferred: tuple[str, ...]

    @property
    def error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.predicted.value_s / self.point.value_s - 1.0

    @property
    def covered(self) -> bool:
        """Whether the measurement is inside the interval."""
        return self.predicted.low_s <= self.point.value_s <= self.predicted.high_s


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A point without a prediction, and why."""

    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Summary of errors; shares, not percent."""

    n: int
    mape: float
    median_ape: float
    p90_ape: float
    bias: float
    coverage_80: float

    @staticmethod
    def of(judged: Sequence[Judged]) -> Figures:
        """Summarise points; NaN where there are none."""
        if not judged:
            return Figures(0, *[math.nan] * 5)
        errors = np.array([one.error for one in judged])
        size = np.abs(errors)
        return Figures(
            n=len(judged),
            mape=float(size.mean()),
            median_ape=float(np.median(size)),
            p90_ape=float(np.quantile(size, 0.9)),
            bias=float(errors.mean()),
            coverage_80=float(np.mean([one.covered for one in judged])),
        )


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Predictions against measurements."""

    judged: tuple[Judged, ...]
    unpriced: tuple[Unpriced, ...]
    fitted: int
    """Judged points that the catalog's fits have seen; their errors are no measure of accuracy."""

    def by(self, *columns: str) -> dict[tuple[str, ...], Figures]:
        """Figures per value of some columns of the points, in the order of the file."""
        groups: dict[tuple[str, ...], list[Judged]] = {}
        for one in self.judged:
            groups.setdefault(tuple(one.point[column] for column in columns), []).append(one)
        return {key: Figures.of(group) for key, group in groups.items()}


def accuracy(catalog: Catalog, points: Iterable[Point]) -> Accuracy:
    """Predict every point.

    Points that are suspect (column ``suspect``), recalled (id ``RCL-``) or can't be priced are kept
    apart with the reason.
    """
    judged: list[Judged] = []
    unpriced: list[Unpriced] = []
    for point in points:
        try:
            judged.append(judge(catalog, point))
        except PointError as error:
            unpriced.append(Unpriced(point, str(error)))
    seen = {(p.source, p.id, p.value_s) for p in read_points(BUILT_IN_POINTS)}
    fitted = sum((one.point.source, one.point.id, one.point.value_s) in seen for one in judged)
    return Accuracy(tuple(judged), tuple(unpriced), fitted)


def judge(catalog: Catalog, point: Point) -> Judged:
    """Predict one point.

    Raises
    ------
    PointError
        If it isn't to be scored or can't be priced.
    """
    if point.id.startswith("RCL-"):
        raise PointError("recalled, not read in a source: not scored")
    if point["suspect"] == "1":
        raise PointError("marked as suspect: not scored")
    deployment, batch = deployment_of(catalog, point)
    value = predict_s(deployment, batch, point.metric)
    predicted = with_interval(value, batch_half_width(deployment, batch, point.metric))
    return Judged(point, predicted, deployment.machine.transferred)


def document(report: Accuracy) -> dict[str, Any]:
    """The report as JSON."""
    return {
        **_rounded(Figures.of(report.judged)),
        "used_in_fit": report.fitted,
        "by_source": {source: _rounded(figures) for (source,), figures in report.by("source").items()},
        "by_metric": {metric: _rounded(figures) for (metric,), figures in report.by("metric").items()},
        "points": [
            {
                "id": one.point.id,
                "source": one.point.source,
                "metric": one.point.metric,
                "measured_s": one.point.value_s,
                "predicted_s": one.predicted.value_s,
                "low_s": one.predicted.low_s,
                "high_s": one.predicted.high_s,
                "error": one.error,
                "covered": one.covered,
                "transferred": list(one.transferred),
            }
            for one in report.judged
        ],
        "unpriced": [{"id": one.point.id, "source": one.point.source, "reason": one.reason} for one in report.unpriced],
    }


def _rounded(figures: Figures) -> dict[str, float | int | None]:
    names = ("mape", "median_ape", "p90_ape", "bias", "coverage_80")
    values = {name: getattr(figures, name) for name in names}
    return {"n": figures.n} | {name: None if math.isnan(v) else round(v, 4) for name, v in values.items()}
