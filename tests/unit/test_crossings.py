"""Where a cost passes a multiple of 4K's, found with few plans."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from planner.whatif.crossings import CLOSE, bracket, next_context, with_crossings
from planner.whatif.parity import ROUNDS
from planner.whatif.parity_document import THRESHOLDS, ParityPoint, Series


def series(curve: Callable[[int], float | None], contexts: list[int]) -> Series:
    points = [
        ParityPoint(
            ctx=ctx,
            beyond_window=False,
            cost=curve(ctx),
            ratio=curve(ctx),
            reason=None if curve(ctx) else "no plan",
            shares=None,
            plan=None,
        )
        for ctx in sorted(contexts)
    ]
    return Series(name="deployable", techniques="deployable", points=tuple(points))


def search(curve: Callable[[int], float | None], contexts: list[int]) -> tuple[Series, int]:
    """As a parity does it; the series and how many contexts were planned on the way."""
    planned = 0
    for _ in range(ROUNDS):
        following = list(next_context(series(curve, contexts)))
        planned += len(following)
        contexts = [*contexts, *following]
    return series(curve, contexts), planned


@pytest.mark.parametrize(
    "curve",
    [
        lambda n: (n / 4000) ** 1.3,
        lambda n: 0.5 + 0.5 * (n / 4000) + 0.02 * (n / 4000) ** 2,
        lambda n: 0.7 * (n / 4000) ** (0.9 if n < 9_000 else 1.2),
    ],
)
def test_both_sides_are_planned_and_close(curve: Callable[[int], float]) -> None:
    found, planned = search(curve, [4_000, 32_000, 128_000, 256_000, 512_000, 1_000_000])
    assert planned <= 3 * len(THRESHOLDS)
    for threshold in THRESHOLDS:
        under, over = bracket(found, threshold)
        assert under is not None
        assert over is not None
        assert curve(under.ctx) <= threshold < curve(over.ctx)
        assert over.ctx <= under.ctx * CLOSE * 1.01


def test_a_series_that_never_passes_has_no_other_side() -> None:
    found, planned = search(lambda n: 1.0, [4_000, 1_000_000])
    assert planned == 0
    assert [crossing.over_from for crossing in with_crossings(found).crossings] == [None, None, None]


def test_a_context_without_a_plan_is_over_every_threshold() -> None:
    found, _ = search(lambda n: n / 4000 if n <= 20_000 else None, [4_000, 128_000])
    last = with_crossings(found).crossings[-1]
    assert last.stopped_by == "no plan"
    assert last.under_to is not None
    assert last.over_from is not None
    assert last.under_to <= 20_000 < last.over_from


def test_a_series_that_is_over_from_the_start_says_so() -> None:
    found, _ = search(lambda n: 20.0, [32_000, 128_000])
    assert [(c.under_to, c.over_from) for c in with_crossings(found).crossings] == [(None, 32_000)] * 3
