"""`--max-power`: no more GPUs than their board power allows, told, explained, and refused where nobody knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from catalog.load import open_catalog
from planner import request as asking
from planner.errors import InputError
from planner.problem import resolve
from planner.request import Cluster, read_request
from planner.space import open_space
from tests.oracle import compare

Plan = Callable[..., Any]

ASKED = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "4xA100", "--engine", "vllm")


@pytest.mark.parametrize(("power", "gpus"), [("1.9kW", 4), ("1.2kW", 3), ("1199W", 2), ("400W", 1)])
def test_so_many_gpus_as_the_power_allows(plan: Plan, power: str, gpus: int) -> None:
    document = plan(*ASKED, "--max-power", power, "--format", "json").json
    assert document["metrics"]["gpus_used"] == gpus
    assert document["metrics"]["power_w"] == 400.0 * gpus
    row = next(row for row in document["constraints"] if row["name"] == "power_w")
    assert row["value"] == 400.0 * gpus <= row["limit"]


def test_too_little_for_one_gpu_is_explained(plan: Plan) -> None:
    answer = plan(*ASKED, "--max-power", "300W", "--users", "2", "--format", "json")
    assert answer.code == 3
    explained = answer.json["infeasible"]
    assert explained["conflicts"] == [["--max-power 300W"]]
    assert {row["limit"]: row["to"] for row in explained["relaxations"]}["--max-power"] == "400W"


def test_power_and_users_clash(plan: Plan) -> None:
    answer = plan(*ASKED, "--max-power", "400W", "--users", "100", "--format", "json")
    assert answer.code == 3
    relaxed = {row["limit"]: row["to"] for row in answer.json["infeasible"]["relaxations"]}
    assert relaxed["--max-power"] == "800W"
    assert plan(*ASKED, "--max-power", relaxed["--max-power"], "--users", "100").code == 0


@pytest.mark.parametrize("objective", ["throughput", "cost"])
@pytest.mark.parametrize("watts", [500.0, 1250.0])
def test_the_search_finds_what_the_oracle_finds(objective: str, watts: float) -> None:
    asked = {"model": "llama-3.1-8b", "ctx": 50_000, "gpus": "4xA100", "engine": "vllm", "techniques": "kv_fp8"}
    request = read_request({**asked, "max_power": watts, "max_latency": "500ms", "objective": objective})
    problem = resolve(request, open_catalog())
    assert compare(problem, open_space(problem)).problems == ()


def test_a_gpu_without_the_fact_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = asking.resolve_cluster("4xA100", open_catalog())
    unknown = replace(known, hardware=known.hardware.model_copy(update={"tdp": None}))

    def resolved(text: str, catalog: object) -> Cluster:
        return unknown

    monkeypatch.setattr("planner.problem.resolve_cluster", resolved)
    with pytest.raises(InputError, match=r"--max-power 2kW: the catalog has no tdp for a100-sxm-80gb; write it"):
        resolve(read_request({"ctx": "32K", "gpus": "4xA100", "max_power": "2kW"}), open_catalog())
    resolve(read_request({"ctx": "32K", "gpus": "4xA100"}), open_catalog())


def test_a_bare_number_is_refused(plan: Plan) -> None:
    answer = plan(*ASKED, "--max-power", "700")
    assert answer.code == 2
    assert "--max-power: '700' has no unit; write for example '400 W' (W, kW)" in " ".join(answer.stderr.split())
