"""A cluster may hold replicas of several kinds: all GPUs are used, and nothing is lost against one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planner.search import compose
from planner.search.apart import DIED, Answer

Plan = Callable[..., Any]

LLAMA = ["--model", "llama-3.1-8b", "--ctx", "32K", "--engine", "vllm", "--tolerance", "0%"]


def planned(plan: Plan, *options: str) -> Any:
    result = plan(*options, "--no-gains", "--format", "json")
    assert result.code == 0, result.stderr
    return result.json


def test_nine_gpus_are_all_used_and_nothing_is_lost(plan: Plan) -> None:
    options = ("--ctx", "1M", "--max-latency", "200ms", "--tolerance", "0%")
    eight, nine = planned(plan, *options, "--gpus", "8xA100"), planned(plan, *options, "--gpus", "9xA100")
    assert nine["status"] == "optimal"
    assert nine["objective"]["best"] >= eight["objective"]["best"] * 1.1
    groups = nine["decision"]["groups"]
    used = sum(
        group["replicas"] * group["parallel"]["tp"] * group["parallel"]["pp"] * group["parallel"]["pcp"]
        for group in groups
    )
    assert len(groups) == 2
    assert used == nine["metrics"]["gpus_used"] == 9


@pytest.mark.parametrize("gpus", ["1xA100", "3xA100", "8xH100"])
@pytest.mark.parametrize("objective", [["throughput"], ["cost"], ["cost", "--users", "5"], ["latency", "--users", "5"]])
def test_is_never_worse_than_one_kind(plan: Plan, gpus: str, objective: list[str]) -> None:
    """A target whose router can't weigh restricts the space to one kind."""
    options = [*LLAMA, "--gpus", gpus, "--objective", *objective]
    one, several = planned(plan, *options, "--target", "kserve"), planned(plan, *options, "--target", "shell")
    assert (one["status"], several["status"]) == ("optimal", "optimal")
    higher = objective == ["throughput"]
    before, now = one["objective"]["best"], several["objective"]["best"]
    assert now >= before * (1 - 1e-9) if higher else now <= before * (1 + 1e-9)
    assert len({(group["role"], group["engine"]) for group in one["decision"]["groups"]}) == len(
        one["decision"]["groups"]
    )


def test_a_pinned_number_of_replicas_holds_and_is_all_there_is(plan: Plan) -> None:
    options = [*LLAMA, "--gpus", "8xH100", "--pin", "replicas=3"]
    found = planned(plan, *options)
    assert [group["replicas"] for group in found["decision"]["groups"]] == [3]
    assert found["status"] == "optimal"


def test_pools_are_as_many_as_servers_have_room_for(plan: Plan) -> None:
    """Three servers of three GPUs: four replicas of two are eight of nine GPUs, and find no room."""
    options = ["--ctx", "16K", "--gpus", "3x3xH100", "--model", "llama-3.1-8b", "--engine", "vllm", "--tolerance", "0%"]
    found = planned(plan, *options, "--pin", "roles=prefill+decode,prefill.tp=2,decode.tp=2")
    assert sum(group["replicas"] for group in found["decision"]["groups"]) <= 3


def test_with_one_round_the_first_answer_is_the_latency(plan: Plan) -> None:
    options = [*LLAMA, "--gpus", "8xH100", "--objective", "latency", "--users", "2", "--rounds", "1"]
    found = planned(plan, *options)
    latency = found["metrics"]["latency"]
    assert found["objective"]["value"] == pytest.approx(latency["e2e_s"]["full"])
    assert latency["ttft_s"]["full"] > 0


def test_the_tolerance_gives_way_in_value_only_by_its_share(plan: Plan) -> None:
    options = ("--ctx", "1M", "--gpus", "12xA100", "--max-latency", "200ms", "--tolerance", "1%")
    objective = planned(plan, *options)["objective"]
    assert objective["value"] >= 0.99 * objective["best"]


def test_one_engine_is_enough_where_it_loses_less_than_the_tolerance(plan: Plan) -> None:
    options = ("--ctx", "1M", "--gpus", "9xA100", "--max-latency", "200ms", "--tolerance", "5%")
    groups = planned(plan, *options)["decision"]["groups"]
    assert len({group["engine"] for group in groups}) == 1


def test_rules_compose_and_say_so_where_the_library_dies(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--ctx", "1M", "--gpus", "9xA100", "--max-latency", "200ms", "--tolerance", "0%")
    usual = planned(plan, *options)
    monkeypatch.setattr(compose, "solve_apart", lambda *_: Answer(DIED, death="signal 6"))
    found = planned(plan, *options)
    assert found["objective"]["value"] == pytest.approx(usual["objective"]["value"], rel=1e-9)
    assert any("signal 6" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(lambda _: Answer("INFEASIBLE"), "no cluster possible"), (lambda model: one_replica(model), "a worse cluster")],
)
def test_rules_compose_and_say_so_where_the_library_is_wrong(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Any], Answer], told: str
) -> None:
    options = ("--ctx", "1M", "--gpus", "9xA100", "--max-latency", "200ms", "--tolerance", "0%")
    usual = planned(plan, *options)
    monkeypatch.setattr(compose, "solve_apart", lambda _, model: wrong(model))
    found = planned(plan, *options)
    assert found["objective"]["value"] == pytest.approx(usual["objective"]["value"], rel=1e-9)
    assert any(told in warning for warning in found["warnings"])


def one_replica(model: Any) -> Answer:
    """One replica of the first kind, called the best."""
    names = [variable.name for variable in model.proto.variables]
    return Answer("OPTIMAL", 1.0, 1.0, tuple(int(name in ("replicas_0", "kind_0")) for name in names))
