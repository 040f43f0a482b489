"""Words and searches of an explanation, without a solve."""

from __future__ import annotations

import pytest

from catalog.load import Catalog, open_catalog
from planner.explain.asking import smallest
from planner.explain.clusters import sizes_of
from planner.explain.limits import limits_of, without
from planner.problem import resolve
from planner.request import Request


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


@pytest.mark.parametrize("guess", [0, 1, 36, 37, 38, 99, 100, 5000])
def test_a_search_finds_the_smallest_from_any_guess(guess: int) -> None:
    assert smallest(lambda k: k >= 37, 0, 100, guess) == (37, True)


def test_what_stays_undecided_is_no_proof() -> None:
    found = smallest(lambda k: True if k >= 40 else None if k >= 30 else False, 0, 100, 50)
    assert found == (40, False)
    assert smallest(lambda k: None, 0, 100, 50) is None


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("1xA100", "2xA100"),
        ("a100", "2xa100"),
        ("1xrtx-4090", "2xrtx-4090"),
        ("12xA100", "13xA100"),
        ("2x8xH100", "3x8xH100"),
        ("p4d.24xlarge", "2xp4d.24xlarge"),
    ],
)
def test_one_more_is_written_as_the_request_counts(catalog: Catalog, text: str, more: str) -> None:
    now = resolve(Request(ctx=4000, gpus=text, model="llama-3.1-8b"), catalog)
    sizes = sizes_of(now)
    assert sizes is not None
    assert sizes.text(sizes.count + 1) == more
    larger = resolve(now.request.model_copy(update={"gpus": more}), catalog)
    assert larger.cluster.gpus == now.cluster.gpus + sizes.gpus_each


def test_limits_are_told_as_typed_and_lifted_one_by_one() -> None:
    request = Request.model_validate(
        {"ctx": "32K", "gpus": "1xA100", "max_latency": "200ms", "max_ttft": "1.5s", "users": 40, "weights": "bf16"}
    )
    limits = {limit.field: limit for limit in limits_of(request)}
    assert {limit.text for limit in limits.values()} == {
        "--max-quality-loss 5%",
        "--weights bf16",
        "--max-ttft 1.5s",
        "--max-latency 200ms",
        "--users 40",
    }
    freed = without(request, [limits["max_latency"], limits["weights"]])
    assert (freed.max_latency, freed.weights, freed.users, freed.max_ttft) == (None, "any", 40, 1.5)
