"""`plan explain`: why this plan; every claim is asked again here, by planning anew."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cli
import planner.pipeline
from planner import Request, Service, evaluate, make_plan
from planner.whatif.explained import Explanation
from tests.plans import service_in

Plan = Callable[..., Any]
SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "explain.json").read_text(encoding="utf-8"))
ASKED: dict[str, dict[str, Any]] = {
    "small": {
        "model": "llama-3.1-8b",
        "ctx": 50_000,
        "gpus": "1xA100",
        "efficiency": "peak",
        "max_latency": 0.03,
    },
    "measured": {"model": "yi-34b-200k", "ctx": 128_000, "gpus": "4xA100", "max_latency": 0.2, "max_ttft": 300.0},
    "cost": {"model": "llama-3.1-8b", "ctx": 32_000, "gpus": "2xH100", "objective": "cost", "users": 120},
    "experts": {"model": "qwen3-30b-a3b", "ctx": 32_000, "gpus": "4xH100", "max_latency": 0.02, "rounds": 2},
}
PLANS = [pytest.param(name, marks=() if name == "small" else pytest.mark.slow) for name in ASKED]
HELPS = 1e-3
CLOSE = 3e-6
"""Relative: the planner's integers may choose between plans that are this close."""


def test_the_published_schema_is_current() -> None:
    written = {name: value for name, value in SCHEMA.items() if name not in ("$schema", "$id")}
    assert written == Explanation.model_json_schema(by_alias=True, mode="serialization"), (
        "write planner/schema/explain.json again, and raise EXPLAIN_SCHEMA_VERSION where readers would break"
    )


def run(*arguments: object) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.main([str(argument) for argument in arguments])
    return code, out.getvalue()


@pytest.fixture(scope="module", params=PLANS)
def plan_file(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plans") / f"{request.param}.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        document = make_plan(Request.model_validate(ASKED[request.param]))
    file.write_text(document.model_dump_json(by_alias=True), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def told(cache: Path, plan_file: Path) -> Any:
    """The explanation of one plan, as JSON."""
    figure = plan_file.with_suffix(".png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        code, text = run("explain", plan_file, "--format", "json", "--figure", figure, "--time-limit", "300s")
    assert code == 0
    return json.loads(text)


def value(told: Any, **changes: Any) -> float:
    """The objective of the best plan for the request with changes."""
    document = make_plan(Request.model_validate({**told["plan"]["request"], "tolerance": 0.0, **changes}))
    assert document.status == "optimal"
    assert document.objective is not None
    return document.objective.value


def better(told: Any, one: float, than: float) -> float:
    """Share by which a value is better."""
    return one / than - 1.0 if told["metric"] == "interactions_per_hour" else 1.0 - one / than


def metrics_of(told: Any, decision: Any) -> dict[str, Any]:
    priced = evaluate(Request.model_validate(told["plan"]["request"]), Service.model_validate(decision)).metrics
    assert priced is not None
    names = ("prefill_s", "decode_s", "switch_s", "concurrency", "interactions_per_hour", told["metric"])
    return {name: priced.named(name) for name in names}


def test_it_is_the_plans_own_document_and_value(told: Any, plan_file: Path) -> None:
    jsonschema.validate(told, SCHEMA)
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    assert told["plan"] == plan
    assert told["value"] == plan["objective"]["value"] == plan["metrics"][told["metric"]]
    assert (told["holds"], told["notes"], told["undecided"]) == (True, [], [])


def test_every_alternative_is_priced_as_it_says_and_does_without_the_choice(told: Any) -> None:
    chosen = service_in(told["plan"]["decision"])
    parts = {row["part"] for row in told["choices"]}
    assert {"engine", "weights", "hidden", "decode_batch"} <= parts
    for row in told["choices"]:
        if row["status"] == "infeasible":
            assert row["value"] is row["decision"] is None
            continue
        assert row["status"] == "optimal"
        other = service_in(row["decision"])
        assert metrics_of(told, other)[told["metric"]] == row["value"]
        assert row["loss"] == pytest.approx(-better(told, row["value"], told["value"]), abs=1e-12)
        assert row["loss"] >= -CLOSE, "a proved plan isn't beaten by one of a smaller space"
        if row["part"] in ("engine", "weights", "offload"):
            assert other[row["part"]] != chosen[row["part"]]
        elif row["part"] in ("decode_batch", "prefill_chunk") and chosen["pools"] is other["pools"] is None:
            field = {"decode_batch": "decode_sequences", "prefill_chunk": "prefill_chunk_tokens"}[row["part"]]
            assert other["batch"][field] != chosen["batch"][field] or other["parallel"]["pp"] > 1
        elif row["part"] == "hidden":
            assert other["compression"]["hidden"] != chosen["compression"]["hidden"]


@pytest.mark.parametrize("field", ["engine", "weights"])
def test_the_loss_without_a_choice_is_what_planning_among_the_others_loses(told: Any, field: str) -> None:
    row = next(row for row in told["choices"] if row["part"] == field)
    again = value(told, **{field: row["decision"]["groups"][0][field]})
    assert again == pytest.approx(row["value"], rel=CLOSE)


def lifted(told: Any) -> dict[str, dict[str, Any]]:
    """What lifting a limit means, as a change of the request."""
    count, _, gpu = told["plan"]["request"]["gpus"].partition("x")
    return {
        "itl_full_s": {"max_latency": None},
        "ttft_full_s": {"max_ttft": None},
        "users": {"users": 1},
        "quality_loss_at_confidence": {"max_quality_loss": 0.25},
        "gpus": {"gpus": f"{2 * int(count)}x{gpu}"},
        "techniques": {"techniques": "published"},
    }


def test_limits_that_help_do_and_those_that_do_not_do_not(told: Any) -> None:
    for row in told["limits"]:
        if row["name"] in lifted(told):
            gain = better(told, value(told, **lifted(told)[row["name"]]), told["value"])
            assert row["gain"] == pytest.approx(gain, rel=1e-4, abs=CLOSE)
            assert (row["status"] == "helps") == (gain > HELPS)
    assert {"quality_loss_at_confidence", "gpus", "techniques"} <= {row["name"] for row in told["limits"]}
    assert "helps" in {row["status"] for row in told["limits"]}


def test_a_curve_rises_to_where_it_stops_helping(told: Any) -> None:
    fields = {"itl_full_s": "max_latency", "ttft_full_s": "max_ttft", "quality_loss_at_confidence": "max_quality_loss"}
    for row in told["limits"]:
        curve = row["curve"]
        if not curve:
            assert row["status"] == "nothing" or row["amount"] is None
            continue
        assert (curve[0]["limit"], curve[0]["value"]) == (row["amount"], told["value"])
        assert all(better(told, b["value"], a["value"]) >= -CLOSE for a, b in itertools.pairwise(curve))
        if row["name"] in fields:
            field = fields[row["name"]]
            assert [p["limit"] for p in curve] == sorted(p["limit"] for p in curve)
            assert all(p["taken"] <= p["limit"] * (1 + 1e-6) for p in curve)
            best = value(told, **lifted(told)[row["name"]])
            assert better(told, best, value(told, **{field: row["until"]})) <= HELPS + CLOSE
            assert better(told, best, value(told, **{field: row["not_yet"]})) > HELPS - CLOSE


def test_what_is_said_to_bind_next_gains_there(told: Any) -> None:
    changes = lifted(told)
    for row in told["limits"]:
        following = row["next"]
        if following is None or not {row["name"], following["name"]} <= changes.keys():
            continue
        mine = value(told, **changes[row["name"]])
        both = value(told, **{**changes[row["name"]], **changes[following["name"]]})
        assert following["gain"] == pytest.approx(better(told, both, mine), rel=1e-3, abs=CLOSE)
        assert following["gain"] > HELPS


def test_the_roofline_is_never_beaten_and_reached_at_peak(told: Any) -> None:
    prefill, decode = told["roofline"]
    plan = told["plan"]
    pp = plan["decision"]["groups"][-1]["parallel"]["pp"]
    assert prefill["seconds"] == plan["metrics"]["prefill_s"]
    assert decode["seconds"] == pytest.approx(plan["metrics"]["groups"][-1]["step_s"] / pp)
    for phase in (prefill, decode):
        assert (0.95 if plan["request"]["efficiency"] == "peak" else 0.0) < phase["share_of_roofline"] <= 1.0 + 1e-9
        assert phase["intensity"] == pytest.approx(phase["flops"] / phase["bytes"])
        assert (phase["intensity"] > phase["balance"]) == (phase["bound"] == "compute")


def test_the_quality_budget_is_spent_to_the_last_digit(told: Any) -> None:
    budget, loss = told["quality"], told["plan"]["metrics"]["quality_loss_at_confidence"]
    spent = sum(row["mean"] + row["spread"] for row in budget["spent"])
    assert spent == pytest.approx(-math.log1p(-loss), rel=1e-9)
    assert spent + budget["unspent"] == pytest.approx(budget["budget"], rel=1e-9)
    chosen = told["plan"]["decision"]["groups"][0]["compression"]
    used = {name for name, choice in chosen.items() if choice["technique"] != "none"}
    assert used <= {row["part"] for row in budget["spent"]} <= used | {"weights", "together"}


NUMBERS = ("concurrency", "prefill_s", "decode_s", "switch_s", "interactions_per_hour")


def without_compression(told: Any, decode_sequences: int) -> dict[str, Any]:
    """The plan's decision with nothing compressed and another batch."""
    bare = {name: of for name, of in service_in(told["plan"]["decision"]).items() if name != "compression"}
    bare["batch"] = {**bare["batch"], "decode_sequences": decode_sequences}
    if bare["pools"] is not None:
        decode = {**bare["pools"]["decode"], "batch": bare["batch"]}
        bare["pools"] = {**bare["pools"], "decode": decode}
    return bare


def test_each_dimension_alone_is_what_evaluate_says(told: Any) -> None:
    rows = {row["name"]: row for row in told["dimensions"]}
    none, whole = rows["none"], told["dimensions"][-1]
    if none["fits"]:
        priced = metrics_of(told, without_compression(told, none["decode_sequences"]))
        assert {name: none[name] for name in NUMBERS} == {name: priced[name] for name in NUMBERS}
    else:
        assert not any(none[name] for name in NUMBERS)
        request = Request.model_validate(told["plan"]["request"])
        for sequences in (1, 2, 4, 8, 12, 16, 24, 32):
            least = evaluate(request, Service.model_validate(without_compression(told, sequences))).metrics
            assert least is None or least.users < (request.users or 0.0), "a batch keeps the promise"
    for name in NUMBERS:
        assert whole[name] == told["plan"]["metrics"][name]


def test_the_tables_say_the_same_within_eighty_columns(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.report.explain import print_explanation

    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_explanation(Explanation.model_validate(told))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for row in told["choices"]:
        if row["loss"] is not None:
            assert (f"{row['loss']:.2%} worse" if row["loss"] > 5e-5 else "a tie") in flat
    for row in told["limits"]:
        assert row["status"] != "helps" or f"{row['gain']:.1%}" in flat
    assert f"{told['roofline'][0]['share_of_flops']:.1%}" in flat


def test_the_figure_is_drawn_and_not_drawn_over(told: Any, plan: Plan, plan_file: Path) -> None:
    figure = plan_file.with_suffix(".png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    done = plan("explain", plan_file, "--figure", figure)
    assert done.code == 2
    assert "exists already" in done.stderr


def test_a_stale_plan_is_told(plan: Plan, plan_file: Path, tmp_path: Path) -> None:
    old = json.loads(plan_file.read_text(encoding="utf-8"))
    old["provenance"]["catalog_hash"] = "0123456789abcdef"
    old["metrics"]["users"] *= 2.0
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    done = plan("explain", tmp_path / "old.json", "--time-limit", "10ms")
    assert done.code == 0, done.stderr
    flat = " ".join(done.stdout.split())
    assert "planned with catalog 0123456789abcdef" in flat
    assert "plan again" in flat
    assert plan("explain", tmp_path / "old.json", "--time-limit", "10ms", "--format", "json").json["holds"] is False


def test_a_decision_that_the_facts_no_longer_hold_is_told(plan: Plan, plan_file: Path, tmp_path: Path) -> None:
    old = json.loads(plan_file.read_text(encoding="utf-8"))
    for group in old["decision"]["groups"]:
        group["compression"]["hidden"] = {"technique": "bogus", "strength": None, "point": None}
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    done = plan("explain", tmp_path / "old.json")
    assert done.code == 2
    assert "can't be priced any more (compression.hidden: unknown technique 'bogus'" in done.stderr
    assert done.stderr.endswith("plan again\n")


def test_what_was_not_decided_in_time_is_said(plan: Plan, plan_file: Path) -> None:
    done = plan("explain", plan_file, "--time-limit", "10ms", "--format", "json")
    assert done.code == 0
    assert {row["status"] for row in done.json["choices"]} == {"undecided"}
    assert {row["status"] for row in done.json["limits"]} == {"undecided"}
    assert all(row["value"] is None for row in done.json["choices"])
    assert len(done.json["undecided"]) == len(done.json["choices"]) + len(done.json["limits"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "isn't a plan"), ("[", "plan.json:"), ('{"schema_version": 1}', "request")],
)
def test_what_is_no_plan_is_told(plan: Plan, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    done = plan("explain", tmp_path / "plan.json")
    assert done.code == 2
    assert said in done.stderr


@pytest.mark.slow
def test_an_infeasible_plan_keeps_its_explanation(plan: Plan, tmp_path: Path) -> None:
    document = make_plan(Request.model_validate({**ASKED["small"], "max_latency": 1e-6}))
    (tmp_path / "no.json").write_text(document.model_dump_json(by_alias=True), encoding="utf-8")
    done = plan("explain", tmp_path / "no.json")
    assert done.code == 3
    assert "No plan for llama-3.1-8b" in done.stdout
