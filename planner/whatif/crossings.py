"""Where the cost of a series passes a multiple of 4K's: by planning between contexts that are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from planner.whatif.parity_document import THRESHOLDS, Crossing, ParityPoint, Series

CLOSE = 1.1
"""Two contexts so near to each other are near enough."""
_PAST = 1.02
"""So far beyond where the threshold is expected lies a second context: on the other side of it, then."""
_NEAR = 1.15
_DIGITS = 3


def bracket(series: Series, threshold: float) -> tuple[ParityPoint | None, ParityPoint | None]:
    """The longest context under a threshold before the first one over it, and that one; None: there is none.

    A context without a plan is over every threshold.
    """
    under = None
    for point in series.points:
        if point.ratio is None or point.ratio > threshold:
            return under, point
        under = point
    return under, None


def next_context(series: Series) -> Iterator[int]:
    """Contexts to plan next, one for each threshold that isn't found closely enough [tokens].

    Where a side is near the place that is expected, the next context is put a little beyond that place:
    on its other side, if the place is right.
    """
    known = {point.ctx for point in series.points}
    for threshold in THRESHOLDS:
        under, over = bracket(series, threshold)
        if under is None or over is None or over.ctx <= under.ctx * CLOSE:
            continue
        expected = _expected(series, under, over, threshold)
        if min(expected / under.ctx, over.ctx / expected) < _NEAR:
            expected *= _PAST if expected / under.ctx < over.ctx / expected else 1.0 / _PAST
        inside = min(max(expected, under.ctx * 1.01), over.ctx / 1.01)
        ctx = int(round(inside, _DIGITS - 1 - math.floor(math.log10(inside))))
        if under.ctx < ctx < over.ctx and ctx not in known:
            yield ctx


def _expected(series: Series, under: ParityPoint, over: ParityPoint, threshold: float) -> float:
    """Where the threshold lies between two contexts, as far as the points around tell [tokens].

    The logarithm of the context is taken as a quadratic function of the ratio's through both sides and
    the point nearest to them; without one, or where that leaves the two sides, as a linear one.
    """
    low, high = math.log(under.ctx), math.log(over.ctx)
    if over.ratio is None or not under.ratio:
        return math.sqrt(under.ctx * over.ctx)
    rows = [(math.log(under.ratio), low), (math.log(over.ratio), high)]
    target = math.log(threshold)
    others = [p for p in series.points if p.ratio and p.ctx not in (under.ctx, over.ctx)]
    if others:
        near = min(others, key=lambda p: abs(math.log(p.ctx) - (low + high) / 2.0))
        rows.append((math.log(near.ratio or 1.0), math.log(near.ctx)))
    if len({ratio for ratio, _ in rows}) == len(rows):
        guess = _through(rows, target)
        if low < guess < high:
            return math.exp(guess)
    return math.exp(_through(rows[:2], target))


def _through(rows: Sequence[tuple[float, float]], at: float) -> float:
    """The polynomial through some points, at one place.

    >>> _through([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], 3.0)
    9.0
    """
    total = 0.0
    for i, (x, y) in enumerate(rows):
        for j, (other, _) in enumerate(rows):
            if j != i:
                y *= (at - other) / (x - other)
        total += y
    return total


def with_crossings(series: Series) -> Series:
    """The series with what is known of each threshold."""
    found = []
    for threshold in THRESHOLDS:
        under, over = bracket(series, threshold)
        stopped = None
        if over is not None:
            stopped = over.shares.stopped_by if over.shares else "no plan" if over.plan is None else "several services"
        found.append(
            Crossing(
                threshold=threshold,
                under_to=under.ctx if under else None,
                over_from=over.ctx if over else None,
                stopped_by=stopped,
            )
        )
    return series.model_copy(update={"crossings": tuple(found)})
