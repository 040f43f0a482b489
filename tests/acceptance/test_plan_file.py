"""Plan files: version 1 is read as what it said, several services stand side by side, and what isn't known is null."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import planner.pipeline
from planner.decision import Decision
from planner.files import document_json, read_document
from planner.plan import Document
from tests.plans import flat

Plan = Callable[..., Any]
SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "plan.json").read_text(encoding="utf-8"))
OLD = sorted((Path(__file__).parents[1] / "golden" / "version_one").glob("*.json"))
ASKED = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "2xA100", "--engine", "vllm")
TWO = """
groups:
  - {id: large, role: serve, engine: vllm, parallel: {tp: 8}, batch: {decode_sequences: 8, prefill_chunk_tokens: 8192}}
  - {id: small, role: serve, engine: vllm, parallel: {tp: 1}, batch: {decode_sequences: 4, prefill_chunk_tokens: 2048}}
"""
ON_NINE = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "9xA100")


# ------------------------------------------------------------------ version 1


@pytest.fixture
def made(plan: Plan) -> Any:
    """A plan of today."""
    return plan(*ASKED, "--max-latency", "200ms", "--format", "json").json


@pytest.fixture
def old(made: Any, tmp_path: Path) -> Path:
    """The same as version 1 wrote it."""
    content = flat(Document.model_validate(made))
    kept = [name for name in made["intervals"] if name not in ("latency", "services", "groups")]
    content["intervals"] = {name: made["intervals"][name] for name in kept}
    full = {"ttft_cold_s": "ttft_s", "ttft_warm_s": "warm_ttft_s", "tpot_s": "itl_s"}
    content["intervals"] |= {name: made["intervals"]["latency"][now]["full"] for name, now in full.items()}
    content["constraints"] = [
        {"name": "tpot_s", "limit": 0.2, "value": 0.1, "slack": 0.1, "binding": False},
        {"name": "gpus", "limit": 2, "value": 2, "slack": 0, "binding": True},
    ]
    goal = made["objective"]
    content["objective"] = {name: goal[name] for name in ("name", "value", "bound", "gap")}
    content["provenance"]["warnings"] = ["beware"]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_a_plan_of_version_1_says_the_same(made: Any, old: Path) -> None:
    document = read_document(old.read_text(encoding="utf-8"), "old.json")
    now = Document.model_validate(made)
    assert document.schema_version == 2
    assert document.warnings == ("beware",)
    assert [row.name for row in document.constraints] == ["itl_full_s", "gpus"]
    assert document.objective is not None
    assert document.objective.best == document.objective.value
    assert document.service == now.service
    assert document.metrics is not None
    assert now.metrics is not None
    for name in ("users", "itl_full_s", "tpot_full_s", "warm_ttft_full_s", "e2e_full_s", "warm_e2e_full_s", "switch_s"):
        assert document.metrics.named(name) == pytest.approx(now.metrics.named(name), rel=1e-12), name
    assert document.metrics.named("ttft_idle_s") is None
    assert document.metrics.groups == now.metrics.groups
    assert document.intervals is not None
    assert now.intervals is not None
    assert document.intervals.latency.ttft_s.full == now.intervals.latency.ttft_s.full


def test_every_verb_takes_a_plan_of_version_1(plan: Plan, made: Any, old: Path, tmp_path: Path) -> None:
    assert plan("verify", old).stdout.startswith("verified: ")
    again = plan("evaluate", "--decision", old, "--format", "json").json
    assert again["schema_version"] == 2
    assert again["metrics"] == made["metrics"]
    shown = plan("compare", old, old, "--format", "json")
    assert shown.code == 0
    assert shown.json["base"]["plan"]["schema_version"] == 2
    assert plan("explain", old, "--time-limit", "2s", "--format", "json").json["holds"]
    emitted = plan("emit", old, "--target", "vllm", "-o", tmp_path / "out")
    assert emitted.code == 0, emitted.stderr
    assert json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))["schema_version"] == 2


def test_a_false_number_of_version_1_is_told(plan: Plan, old: Path) -> None:
    content = json.loads(old.read_text(encoding="utf-8"))
    content["metrics"]["ttft_cold_s"] *= 2.0
    old.write_text(json.dumps(content), encoding="utf-8")
    assert "metrics.latency.ttft_s.full: the plan says" in plan("verify", old).stderr
    content["metrics"]["tpot_p95_s"] = 1.0
    old.write_text(json.dumps(content), encoding="utf-8")
    assert "metrics.tpot_p95_s: unknown field" in plan("verify", old).stderr


@pytest.mark.parametrize("file", OLD, ids=lambda file: file.stem)
def test_files_of_version_1_become_files_of_version_2(file: Path) -> None:
    document = read_document(file.read_text(encoding="utf-8"), file.name)
    content = document_json(document)
    jsonschema.validate(content, SCHEMA)
    assert read_document(json.dumps(content), file.name) == document


# ------------------------------------------------------------------ several services


@pytest.fixture
def two(plan: Plan, tmp_path: Path) -> Any:
    """One replica of eight GPUs and one of a single GPU."""
    (tmp_path / "two.yaml").write_text(TWO, encoding="utf-8")
    done = plan("evaluate", *ON_NINE, "--max-latency", "1s", "--decision", tmp_path / "two.yaml", "--format", "json")
    assert done.code == 0, done.stderr
    jsonschema.validate(done.json, SCHEMA)
    return done.json


def alone(plan: Plan, tmp_path: Path, tp: int, decoding: int, chunk: int) -> Any:
    decision = f"engine: vllm\nparallel: {{tp: {tp}}}\nbatch: {{decode_sequences: {decoding}, "
    (tmp_path / "one.yaml").write_text(decision + f"prefill_chunk_tokens: {chunk}}}\n", encoding="utf-8")
    return plan("evaluate", *ON_NINE, "--decision", tmp_path / "one.yaml", "--format", "json").json["metrics"]


def test_services_add_up_and_the_worst_is_told(plan: Plan, two: Any, tmp_path: Path) -> None:
    large, small = alone(plan, tmp_path, 8, 8, 8192), alone(plan, tmp_path, 1, 4, 2048)
    metrics = two["metrics"]
    for name in ("users", "interactions_per_hour", "sessions_per_hour", "concurrency", "usd_per_hour", "gpus_used"):
        assert metrics[name] == pytest.approx(large[name] + small[name]), name
    assert metrics["gpus_idle"] == 0
    for name, times in metrics["latency"].items():
        for level in ("idle", "full"):
            assert times[level] == max(large["latency"][name][level], small["latency"][name][level])
    assert metrics["usd_per_interaction"] == pytest.approx(metrics["usd_per_hour"] / metrics["interactions_per_hour"])
    assert [part["groups"] for part in metrics["services"]] == [["large"], ["small"]]
    assert [part["latency"] for part in metrics["services"]] == [large["latency"], small["latency"]]
    assert [part["hbm_bytes_per_gpu"] for part in metrics["groups"]] == [
        each["groups"][0]["hbm_bytes_per_gpu"] for each in (large, small)
    ]
    low, high = two["intervals"]["interactions_per_hour"]
    assert low < metrics["interactions_per_hour"] < high
    share = large["users"] / metrics["users"]
    assert two["decision"]["router"]["policy"] == "weighted"
    assert two["decision"]["router"]["weights"] == {"large": pytest.approx(share), "small": pytest.approx(1 - share)}
    assert [group["servers"] for group in two["decision"]["groups"]] == [
        [{"server": 0, "replicas": 1}],
        [{"server": 1, "replicas": 1}],
    ]


def test_each_service_keeps_limits_by_itself(plan: Plan, two: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text(json.dumps(two), encoding="utf-8")
    assert plan("verify", file).stdout.startswith("verified: ")
    times = [part["latency"]["itl_s"]["full"] for part in two["metrics"]["services"]]
    between = sum(times) / 2.0
    users = two["metrics"]["users"]
    two["request"] |= {"max_latency": between, "users": int(users)}
    file.write_text(json.dumps(two), encoding="utf-8")
    told = plan("verify", file).stderr
    worse = "large" if times[0] > times[1] else "small"
    assert f"group {worse}: itl_full_s: {max(times):.6g} is above the limit" in told
    assert told.count("is above the limit") == 1
    assert "users: " not in told, "users are served by all together"
    two["metrics"]["services"][1]["users"] += 1
    file.write_text(json.dumps(two), encoding="utf-8")
    assert "metrics.services.1.users: the plan says" in plan("verify", file).stderr


def test_where_replicas_stand_and_what_they_get_is_checked(plan: Plan, two: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    large, small = two["decision"]["groups"]
    large["servers"], small["servers"] = small["servers"], large["servers"]
    two["decision"]["router"]["weights"]["large"] *= 0.5
    file.write_text(json.dumps(two), encoding="utf-8")
    told = plan("verify", file).stderr
    assert "server 1 holds 8 GPUs of replicas, and has 1" in told
    assert "decision.router.weights.large: the plan says" in told
    small["servers"] = [{"server": 1, "replicas": 2}]
    file.write_text(json.dumps(two), encoding="utf-8")
    assert "decision.groups.small.servers: 2 replicas are placed, of 1" in plan("verify", file).stderr


def test_people_read_of_each_service(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO, encoding="utf-8")
    text = plan("evaluate", *ON_NINE, "--decision", tmp_path / "two.yaml").stdout
    for part in ("Service of group large", "tp 8, 1 replica", "Service of group small", "HBM per GPU of group small"):
        assert part in text


def test_causes_and_reasons_are_told_of_several_services(plan: Plan, two: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text(json.dumps(two), encoding="utf-8")
    (tmp_path / "one.yaml").write_text("engine: vllm\nparallel: {tp: 8}\nbatch: {decode_sequences: 8}\n")
    one = plan("evaluate", *ON_NINE, "--decision", tmp_path / "one.yaml", "--format", "json")
    (tmp_path / "one.json").write_text(one.stdout, encoding="utf-8")
    (variant,) = plan("compare", tmp_path / "one.json", file, "--format", "json").json["variants"]
    steps = variant["cause"]["steps"]
    assert steps[-1]["changes"][0]["name"] == "services"
    assert " beside " in steps[-1]["changes"][0]["to"]
    assert steps[0]["before"] == one.json["metrics"]["interactions_per_hour"]
    assert steps[-1]["after"] == two["metrics"]["interactions_per_hour"]
    assert " beside " in plan("compare", tmp_path / "one.json", file).stdout
    explained = plan("explain", file, "--time-limit", "2s", "--format", "json")
    assert explained.code == 0, explained.stderr
    assert any("2 services side by side" in note for note in explained.json["notes"])


def test_a_file_of_one_of_several_kinds_finds_its_plan(plan: Plan, two: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text(json.dumps(two), encoding="utf-8")
    assert plan("emit", file, "--target", "vllm", "-o", tmp_path / "out").code == 0
    for kind, tp in (("large", 8), ("small", 1)):
        script = tmp_path / "out" / "vllm" / f"serve-{kind}.sh"
        found = plan("import", script, "--gpus", "9xA100", "--ctx", "32K", "--time-limit", "20s", "--format", "json")
        assert found.json["decision"]["groups"][0]["parallel"]["tp"] == tp
        assert found.json["from_stamp"], found.json["notes"]


def test_advice_may_be_several_services(plan: Plan, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.whatif.advice.make_plan", lambda *_, **__: Document.model_validate(two))
    (tmp_path / "run.sh").write_text("vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 40K -tp 1\n")
    found = plan("import", tmp_path / "run.sh", "--gpus", "9xA100", "--ctx", "32K", "--format", "json")
    assert found.code == 0, found.stderr
    (change,) = [row for row in found.json["changes"] if row["field"] == "serving"]
    assert "tp 8" in change["planned"]
    assert " beside aggregated (tp 1" in change["planned"]
    assert found.json["gain"]["users"]["planned"] == two["metrics"]["users"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("groups: []", "groups: Tuple should have at least 1 item"),
        ("groups: [{role: serve, parallell: {tp: 1}}]", "groups.0.parallell: unknown field; did you mean parallel?"),
        ("groups: [{id: a}, {id: a}]", "two groups have the id a; give each its own"),
        ("groups: [{role: prefill}]", "group a: a prefill group feeds one decode group; name it in feeds"),
        ("groups: [{role: decode}]", "group a: a decode group is fed by one prefill group"),
        ("groups: [{feeds: [b]}, {}]", "group a: feeds is for a prefill group; leave it out"),
        (
            "groups: [{role: prefill, feeds: [b], weights: fp8}, {role: decode}]",
            "group a: weights isn't that of group b, which it feeds; give both the same",
        ),
        ("groups: [{gpu: h100-sxm-80gb}]", "group a: gpu h100-sxm-80gb isn't the cluster's a100-sxm-80gb"),
        ("groups: [{parallel: {tp: 8}}, {parallel: {tp: 2}}]", "groups: tp x pp x pcp x replicas is 10 GPUs of 9"),
    ],
)
def test_groups_that_make_no_sense_are_refused(plan: Plan, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "groups.yaml").write_text(text, encoding="utf-8")
    output = plan("evaluate", *ON_NINE, "--decision", tmp_path / "groups.yaml")
    assert (output.code, output.stdout) == (2, "")
    assert told in output.stderr


def test_pools_by_hand_are_the_same_in_both_forms(plan: Plan, tmp_path: Path) -> None:
    asked = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "2xA100", "--format", "json", "--decision")
    (tmp_path / "groups.yaml").write_text(
        "groups:\n"
        "- {id: p, role: prefill, feeds: [d], engine: vllm, parallel: {tp: 1}, batch: {prefill_chunk_tokens: 8192}}\n"
        "- {id: d, role: decode, engine: vllm, parallel: {tp: 1}, batch: {decode_sequences: 4}}\n"
    )
    (tmp_path / "service.yaml").write_text(
        "engine: vllm\nserving: disaggregated\npools:\n"
        "  prefill: {parallel: {tp: 1}, batch: {prefill_chunk_tokens: 8192}}\n"
        "  decode: {parallel: {tp: 1}, batch: {decode_sequences: 4}}\n"
    )
    groups, service = (plan("evaluate", *asked, tmp_path / f"{name}.yaml").json for name in ("groups", "service"))
    named = {"p": "a", "d": "b"}
    assert [named[group["id"]] for group in groups["decision"]["groups"]] == ["a", "b"]
    assert Decision.model_validate(groups["decision"]).service == Decision.model_validate(service["decision"]).service
    assert groups["metrics"]["latency"] == service["metrics"]["latency"]
    assert groups["metrics"]["groups"] == service["metrics"]["groups"]
    assert groups["metrics"]["groups"][0] == {
        "step_s": None,
        "hbm_bytes_per_gpu": None,
        "ddr_bytes": 0.0,
        "nvme_bytes": 0.0,
    }


# ------------------------------------------------------------------ what isn't there


def test_what_is_not_computed_is_null(plan: Plan, tmp_path: Path) -> None:
    def priced(*options: str) -> Any:
        document = plan("evaluate", *ASKED, *options, "--format", "json").json
        jsonschema.validate(document, SCHEMA)
        file = tmp_path / "plan.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        assert plan("verify", file).code == 0
        return document

    usual = priced()
    for times in usual["metrics"]["latency"].values():
        assert times["idle"] > 0
        assert times["full"] > 0
        assert times["mean"] is times["p50"] is times["p90"] is times["p95"] is times["p99"] is None
    assert usual["confirmed"]["by"] == "none"
    assert usual["confirmed"]["verdict"] is None
    assert (usual["alternatives"], usual["warnings"]) == ([], [])
    once = priced("--rounds", "1")
    for name in ("warm_ttft_s", "warm_e2e_s"):
        assert set(once["metrics"]["latency"][name].values()) == {None}
        assert name not in once["intervals"]["latency"]
    short = priced("--output-tokens", "1")["metrics"]["latency"]
    for name in ("tpot_s", "itl_s"):
        assert set(short[name].values()) == {None}
    assert short["e2e_s"] == short["ttft_s"]


def test_one_user_alone_waits_no_longer_than_among_all(plan: Plan) -> None:
    latency = plan(*ASKED, "--format", "json").json["metrics"]["latency"]
    for name, times in latency.items():
        assert times["idle"] <= times["full"], name
    assert latency["itl_s"]["full"] == latency["tpot_s"]["full"]
    assert latency["e2e_s"]["full"] == pytest.approx(latency["ttft_s"]["full"] + 249 * latency["tpot_s"]["full"])
