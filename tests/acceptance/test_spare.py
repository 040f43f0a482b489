"""`--spare 1`: what is promised still holds with one replica of each group, or one server, away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[..., Any]

ASKED = ("--ctx", "32K", "--model", "llama-3.1-8b", "--engine", "vllm")
PROMISED = ("users", "interactions_per_hour", "sessions_per_hour", "concurrency")
POOLS = ("--pin", "roles=prefill+decode,tp=1")


def planned(plan: Plan, *options: str) -> dict[str, Any]:
    answer = plan(*ASKED, *options, "--format", "json")
    assert answer.code == 0, answer.stderr
    document: dict[str, Any] = answer.json
    assert document["status"] == "optimal"
    return document


def away(document: dict[str, Any], lost: dict[str, int]) -> dict[str, Any]:
    """The decision without some replicas of its groups, wherever it may stand."""
    groups = [
        {**{k: v for k, v in group.items() if k != "servers"}, "replicas": group["replicas"] - lost[group["id"]]}
        for group in document["decision"]["groups"]
    ]
    return {"groups": groups}


def priced(plan: Plan, folder: Path, decision: dict[str, Any], *options: str) -> Any:
    path = folder / "decision.json"
    path.write_text(json.dumps(decision), encoding="utf-8")
    return plan("evaluate", "--decision", path, *ASKED, *options, "--format", "json")


@pytest.mark.parametrize(
    "options",
    [
        ("--gpus", "4xA100"),
        ("--gpus", "4xA100", "--objective", "cost"),
        ("--gpus", "4xA100", "--objective", "cost", "--users", "60"),
        ("--gpus", "4xA100", "--objective", "latency", "--users", "10"),
        ("--gpus", "4xA100", "--pin", "replicas=3,tp=1,roles=serve"),
    ],
)
def test_what_is_promised_is_what_is_left_without_one_replica(
    plan: Plan, tmp_path: Path, options: tuple[str, ...]
) -> None:
    document = planned(plan, *options, "--spare", "1")
    (group,) = document["decision"]["groups"]
    assert document["metrics"]["groups"][0]["spare_replicas"] == 1
    limits = [word for word in options if "replicas" not in word and word != "--pin"]
    left = priced(plan, tmp_path, away(document, {group["id"]: 1}), *limits).json["metrics"]
    assert {name: document["metrics"][name] for name in PROMISED} == pytest.approx({n: left[n] for n in PROMISED})
    assert document["metrics"]["latency"] == left["latency"]


def test_money_power_and_gpus_are_those_of_all_replicas(plan: Plan, tmp_path: Path) -> None:
    document = planned(plan, "--gpus", "4xA100", "--spare", "1")
    whole = priced(plan, tmp_path, away(document, {"a": 0}), "--gpus", "4xA100").json["metrics"]
    metrics = document["metrics"]
    assert metrics["gpus_used"] == whole["gpus_used"] == 4
    assert (metrics["usd_per_hour"], metrics["power_w"]) == (whole["usd_per_hour"], whole["power_w"])
    assert metrics["usd_per_interaction"] == pytest.approx(whole["usd_per_interaction"] * 4 / 3)
    assert sum(on["replicas"] for on in document["decision"]["groups"][0]["servers"]) == 4


def test_pools_keep_one_replica_of_each_in_reserve(plan: Plan, tmp_path: Path) -> None:
    document = planned(plan, "--gpus", "6xA100", *POOLS, "--spare", "1")
    assert [group["spare_replicas"] for group in document["metrics"]["groups"]] == [1, 1]
    lost = {group["id"]: 1 for group in document["decision"]["groups"]}
    left = priced(plan, tmp_path, away(document, lost), "--gpus", "6xA100").json["metrics"]
    assert {name: document["metrics"][name] for name in PROMISED} == pytest.approx({n: left[n] for n in PROMISED})


def test_the_users_are_served_when_any_server_is_away(plan: Plan, tmp_path: Path) -> None:
    asked = ("--gpus", "2x4xA100", "--users", "90")
    document = planned(plan, *asked, "--objective", "cost", "--spare", "1")
    (group,) = document["decision"]["groups"]
    for on in group["servers"]:
        left = priced(plan, tmp_path, away(document, {group["id"]: on["replicas"]}), *asked)
        assert left.code == 0, left.stderr
        assert left.json["metrics"]["users"] >= 90
        assert left.json["metrics"]["users"] >= document["metrics"]["users"] * (1 - 1e-9)
    cheaper = planned(plan, *asked, "--objective", "cost")
    assert cheaper["metrics"]["gpus_used"] < document["metrics"]["gpus_used"]


def test_fewest_gpus_with_the_reserve(plan: Plan) -> None:
    one = planned(plan, "--gpus", "8xA100", "--objective", "cost", "--users", "60")["metrics"]
    two = planned(plan, "--gpus", "8xA100", "--objective", "cost", "--users", "60", "--spare", "1")
    assert two["metrics"]["gpus_used"] == one["gpus_used"] + 1
    assert two["objective"]["name"] == "usd_per_hour"
    assert two["objective"]["value"] == pytest.approx(two["metrics"]["usd_per_hour"])


def test_the_oracle_says_the_same(plan: Plan) -> None:
    asked = ("--gpus", "3xA100", "--techniques", "none", "--weights", "bf16", "--users", "20", "--spare", "1")
    for objective in ("throughput", "cost", "latency"):
        found = planned(plan, *asked, "--tolerance", "0%", "--objective", objective)["objective"]["value"]
        every = planned(plan, *asked, "--objective", objective, "--solver", "exhaustive")["objective"]["value"]
        assert found == pytest.approx(every)


def test_a_plan_verifies_and_a_changed_one_does_not(plan: Plan, tmp_path: Path) -> None:
    document = planned(plan, "--gpus", "4xA100", "--spare", "1")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert plan("verify", path).code == 0
    document["request"]["spare"] = 0
    path.write_text(json.dumps(document), encoding="utf-8")
    answer = plan("verify", path)
    assert answer.code != 0
    assert "metrics.users" in answer.stderr


def test_one_replica_has_nothing_in_reserve(plan: Plan, tmp_path: Path) -> None:
    answer = plan(*ASKED, "--gpus", "1xA100", "--spare", "1", "--format", "json")
    assert answer.code == 3
    rows = {row["limit"]: row["to"] for row in answer.json["infeasible"]["relaxations"]}
    assert (rows["--spare"], rows["--gpus"]) == ("0", "2xA100")
    assert any("--spare 1" in clash for clash in answer.json["infeasible"]["conflicts"])
    alone = {"groups": [{"id": "a", "engine": "vllm", "parallel": {"tp": 1}, "replicas": 1}]}
    told = priced(plan, tmp_path, alone, "--gpus", "4xA100", "--spare", "1")
    (row,) = [row for row in told.json["constraints"] if row["name"] == "spare_replicas"]
    assert (row["limit"], row["value"], row["slack"]) == (2, 1, -1)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(told.json), encoding="utf-8")
    answer = plan("verify", path)
    assert answer.code != 0
    assert "spare_replicas: 1 is below the limit 2" in answer.stderr


def test_it_is_said(plan: Plan) -> None:
    text = " ".join(plan(*ASKED, "--gpus", "4xA100", "--spare", "1").stdout.split())
    assert "1 of 4 replicas is in reserve for the loss of one replica of each group" in text
    assert "its users aren't promised; the loss of the only server isn't covered" in text
    assert "in reserve 1 of 4 replicas: their users aren't promised" in text
    assert "replicas are all of one kind, or a prefill and a decode pool" in text
    text = " ".join(plan(*ASKED, "--gpus", "2x2xA100", "--spare", "1").stdout.split())
    assert "2 of 4 replicas are in reserve for the loss of one server: their users aren't promised" in text
    assert "BREAKS" not in text


def test_the_emitted_page_says_it_and_counts_sessions_of_every_replica(plan: Plan, tmp_path: Path) -> None:
    for spare in ("0", "1"):
        answer = plan(
            *(*ASKED, "--gpus", "4xA100", "--pin", "tp=1,replicas=4,roles=serve", "--spare", spare),
            *("--target", "compose", "--emit", tmp_path / spare),
        )
        assert answer.code == 0, answer.stderr
    pages = {spare: (tmp_path / spare / "README.md").read_text(encoding="utf-8") for spare in ("0", "1")}
    assert "1 of 4 replicas is in reserve" in " ".join(pages["1"].split())
    assert (
        "In reserve are 1 of 4 serve instances: the table is what the service gives while they are down" in pages["1"]
    )
    assert "in reserve" not in pages["0"]
    files = {spare: (tmp_path / spare / "compose" / "compose.yaml").read_text(encoding="utf-8") for spare in ("0", "1")}
    assert files["0"].count("--max-num-seqs") == files["1"].count("--max-num-seqs")


@pytest.mark.parametrize("gpus", ["4xA100", "2x2xA100"])
def test_a_frontier_is_of_what_is_promised(plan: Plan, gpus: str) -> None:
    answer = plan(
        *("pareto", *ASKED, "--gpus", gpus, "--techniques", "none", "--weights", "bf16", "--spare", "1"),
        *("--of", "throughput,tpot", "--format", "json"),
    )
    assert answer.code == 0, answer.stderr
    best = planned(plan, "--gpus", gpus, "--techniques", "none", "--weights", "bf16", "--spare", "1")
    reached = max(point["values"]["interactions_per_hour"] for point in answer.json["points"])
    assert reached == pytest.approx(best["objective"]["best"])
    assert all(point["plan"]["metrics"]["groups"][0]["spare_replicas"] for point in answer.json["points"])


def test_the_fewest_gpus_are_sought_on_one_server_first(plan: Plan) -> None:
    """One more server would take a whole server's replicas into reserve."""
    document = planned(plan, "--gpus", "A100", "--users", "300", "--spare", "1")
    assert document["request"]["gpus"] == "7xA100"
    answer = plan(*ASKED, "--gpus", "2xA100", "--users", "300", "--spare", "1", "--format", "json")
    assert {row["limit"]: row["to"] for row in answer.json["infeasible"]["relaxations"]}["--gpus"] == "7xA100"
