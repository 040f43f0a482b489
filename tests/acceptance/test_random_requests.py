"""Random requests over every field keep the contract: exit codes, documents, plans that verify."""

from __future__ import annotations

import pytest

from scripts.random_requests import ended
from tests.requests import any_request, typed

QUICK = (0, 1, 3, 4)


def check(seeds: range | tuple[int, ...]) -> None:
    found = [ended(seed, time_limit="60s", timeout_s=300.0) for seed in seeds]
    assert [(one.command, one.problems) for one in found if one.problems] == []


def test_requests_keep_the_contract() -> None:
    check(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 130, 10))
def test_more_requests_keep_the_contract(first: int) -> None:
    check(range(first, first + 10))


def test_a_request_that_ends_badly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("three over nothing")

    monkeypatch.setattr("planner.pipeline.make_plan", broken)
    found = ended(0)
    assert found.how == "70"
    assert "ZeroDivisionError" in found.problems[0]
    assert found.command.startswith(typed(any_request(0)))


def test_a_request_that_takes_too_long_is_told() -> None:
    found = ended(0, timeout_s=0.0)
    assert (found.how, len(found.problems)) == ("timeout", 1)
