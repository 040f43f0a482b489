"""``--gpus H100 --users 200``: how many GPUs it takes is the answer, at once, and whether fewer do is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from planner import Request, make_plan

Plan = Callable[..., Any]
ASKED = ["--model", "llama-3.1-8b", "--ctx", "32K", "--engine", "vllm", "--max-latency", "100ms"]


def planned(plan: Plan, *options: str) -> Any:
    result = plan(*ASKED, *options, "--no-gains", "--format", "json")
    assert result.code == 0, result.stderr
    return result.json


@pytest.mark.parametrize("users", ["60", pytest.param("250", marks=pytest.mark.slow)])
def test_the_number_that_is_found_does_and_one_fewer_does_not(plan: Plan, users: str) -> None:
    found = planned(plan, "--gpus", "A100", "--users", users, "--objective", "cost")
    count = int(re.match(r"(\d+)xA100$", found["request"]["gpus"])[1])  # type: ignore[index]
    assert count > 1
    assert found["metrics"]["users"] >= float(users) * (1 - 1e-9)
    assert found["metrics"]["gpus_used"] == count
    assert "the fewest" in found["provenance"]["cluster_choice"]
    fewer = Request.model_validate({**found["request"], "gpus": f"{count - 1}xA100"})
    assert make_plan(fewer, explained=False).status == "infeasible"


@pytest.mark.slow
def test_a_person_reads_the_number_first(plan: Plan) -> None:
    shown = plan(*ASKED, "--gpus", "A100", "--users", "60", "--no-gains")
    assert re.search(r"^Cluster: \d+xA100, [\d.]+ USD/h, the fewest for 60 users", shown.stdout, re.MULTILINE)


def test_without_users_a_gpu_without_a_number_is_one(plan: Plan) -> None:
    assert planned(plan, "--gpus", "A100")["request"]["gpus"] == "A100"


@pytest.mark.slow
def test_where_no_number_does_the_answer_says_what_is_in_the_way(plan: Plan) -> None:
    shown = plan(*ASKED[:-1], "1us", "--gpus", "A100", "--users", "20", "--no-gains")
    assert shown.code == 3
    assert "--max-latency" in shown.stdout


@pytest.mark.slow
def test_any_gpu_is_the_cheapest_of_those_that_have_a_price(plan: Plan) -> None:
    found = planned(plan, "--gpus", "any", "--users", "60", "--objective", "cost")
    told = found["provenance"]["cluster_choice"]
    assert "the cheapest of" in told
    prices = [float(price) for price in re.findall(r"([\d.]+) USD/h", told)]
    assert found["metrics"]["usd_per_hour"] == pytest.approx(min(prices), abs=0.01)
