"""`plan explain`: why this plan; every claim is asked again here, by planning anew."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cli
import planner.pipeline
from planner import Decision, Request, evaluate, make_plan
from planner.whatif.explained import Explanation

Plan = Callable[..., Any]
SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "explain.json").read_text(encoding="utf-8"))
ASKED = {
    "model": "llama-3.1-8b",
    "ctx": 50_000,
    "gpus": "1xA100",
    "efficiency": "peak",
    "max_latency": 0.03,
}
HELPS = 1e-3


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


@pytest.fixture(scope="module")
def plan_file(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plans") / "plan.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        document = make_plan(Request.model_validate(ASKED))
    file.write_text(document.model_dump_json(by_alias=True), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def told(cache: Path, plan_file: Path) -> Any:
    """The explanation of one plan, as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        code, text = run("explain", plan_file, "--format", "json", "--figure", plan_file.with_suffix(".png"))
    assert code == 0
    return json.loads(text)


def throughput(**changes: Any) -> float:
    """Of the best plan for the request with changes."""
    document = make_plan(Request.model_validate({**ASKED, **changes}))
    assert document.status == "optimal"
    assert document.metrics is not None
    return document.metrics.interactions_per_hour


def test_it_is_the_plans_own_document_and_value(told: Any, plan_file: Path) -> None:
    jsonschema.validate(told, SCHEMA)
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    assert told["plan"] == plan
    assert told["value"] == plan["metrics"]["interactions_per_hour"]
    assert (told["holds"], told["notes"], told["undecided"]) == (True, [], [])


def test_every_alternative_is_priced_as_it_says_and_does_without_the_choice(told: Any) -> None:
    chosen = told["plan"]["decision"]
    parts = {row["part"] for row in told["choices"]}
    assert {"engine", "weights", "hidden", "decode_batch", "prefill_chunk", "offload"} <= parts
    for row in told["choices"]:
        assert row["status"] == "optimal"
        metrics = evaluate(Request.model_validate(ASKED), Decision.model_validate(row["decision"])).metrics
        assert metrics is not None
        assert metrics.interactions_per_hour == row["value"]
        assert row["loss"] == 1.0 - row["value"] / told["value"]
        assert row["loss"] >= -1e-6, "a proved plan isn't beaten by one of a smaller space"
        if row["part"] in ("engine", "weights", "offload"):
            assert row["decision"][row["part"]] != chosen[row["part"]]
        elif row["part"] in ("decode_batch", "prefill_chunk"):
            field = {"decode_batch": "decode_sequences", "prefill_chunk": "prefill_chunk_tokens"}[row["part"]]
            assert row["decision"]["batch"][field] != chosen["batch"][field]
        elif row["part"] == "hidden":
            assert row["decision"]["compression"]["hidden"] != chosen["compression"]["hidden"]


@pytest.mark.parametrize("field", ["engine", "weights"])
def test_the_loss_without_a_choice_is_what_planning_among_the_others_loses(told: Any, field: str) -> None:
    row = next(row for row in told["choices"] if row["part"] == field)
    assert throughput(**{field: row["decision"][field]}) == pytest.approx(row["value"], rel=1e-9)


def test_limits_that_help_do_and_those_that_do_not_do_not(told: Any) -> None:
    rows = {row["name"]: row for row in told["limits"]}
    lifted = {
        "tpot_s": {"max_latency": None},
        "quality_loss_at_confidence": {"max_quality_loss": 0.25},
        "gpus": {"gpus": "2xA100"},
        "techniques": {"techniques": "published"},
    }
    assert rows.keys() >= lifted.keys()
    for name, change in lifted.items():
        gain = throughput(**change) / told["value"] - 1.0
        assert rows[name]["gain"] == pytest.approx(gain, rel=1e-6, abs=1e-9)
        assert (rows[name]["status"] == "helps") == (gain > HELPS)
    assert rows["tpot_s"]["status"] == "helps"


def test_a_curve_rises_to_where_it_stops_helping(told: Any) -> None:
    for name, field in (("tpot_s", "max_latency"), ("quality_loss_at_confidence", "max_quality_loss")):
        row = next(row for row in told["limits"] if row["name"] == name)
        curve = row["curve"]
        assert curve[0]["limit"] == row["amount"]
        assert curve[0]["value"] == told["value"]
        assert [p["limit"] for p in curve] == sorted(p["limit"] for p in curve)
        assert all(a["value"] <= b["value"] * (1 + 1e-6) for a, b in itertools.pairwise(curve))
        assert all(p["taken"] <= p["limit"] * (1 + 1e-6) for p in curve)
        best = told["value"] * (1.0 + row["gain"])
        assert throughput(**{field: row["until"]}) == pytest.approx(best, rel=HELPS)
        assert throughput(**{field: row["not_yet"]}) < best * (1.0 - HELPS)


def test_what_is_said_to_bind_next_gains_there(told: Any) -> None:
    row = next(row for row in told["limits"] if row["name"] == "tpot_s")
    assert row["next"]["name"] == "quality_loss_at_confidence"
    gain = throughput(max_latency=None, max_quality_loss=0.25) / throughput(max_latency=None) - 1.0
    assert row["next"]["gain"] == pytest.approx(gain, rel=1e-6)
    assert gain > HELPS


def test_the_roofline_is_never_beaten_and_reached_at_peak(told: Any) -> None:
    prefill, decode = told["roofline"]
    metrics = told["plan"]["metrics"]
    assert prefill["seconds"] == metrics["prefill_s"]
    assert decode["seconds"] == metrics["step_s"]
    assert (prefill["bound"], decode["bound"]) == ("compute", "memory")
    for phase in (prefill, decode):
        assert 0.95 < phase["share_of_roofline"] <= 1.0 + 1e-9
        assert phase["intensity"] == pytest.approx(phase["flops"] / phase["bytes"])
        assert (phase["intensity"] > phase["balance"]) == (phase["bound"] == "compute")


def test_the_quality_budget_is_spent_to_the_last_digit(told: Any) -> None:
    import math

    budget, loss = told["quality"], told["plan"]["metrics"]["quality_loss_at_confidence"]
    spent = sum(row["mean"] + row["spread"] for row in budget["spent"])
    assert spent == pytest.approx(-math.log1p(-loss), rel=1e-9)
    assert spent + budget["unspent"] == pytest.approx(budget["budget"], rel=1e-9)
    assert {row["part"] for row in budget["spent"]} == {"hidden", "weights"}


def test_each_dimension_alone_is_what_evaluate_says(told: Any) -> None:
    rows = {row["name"]: row for row in told["dimensions"]}
    assert list(rows) == ["none", "hidden"]
    bare = {name: value for name, value in told["plan"]["decision"].items() if name != "compression"}
    batch = {**bare["batch"], "decode_sequences": rows["none"]["decode_sequences"]}
    metrics = evaluate(Request.model_validate(ASKED), Decision.model_validate({**bare, "batch": batch})).metrics
    assert metrics is not None
    for name in ("concurrency", "prefill_s", "decode_s", "switch_s", "interactions_per_hour"):
        assert rows["none"][name] == getattr(metrics, name)
        assert rows["hidden"][name] == told["plan"]["metrics"][name]


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


def test_an_infeasible_plan_keeps_its_explanation(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("planner.explain.asking.MOST_SECONDS", 0.5)
    document = make_plan(Request.model_validate({**ASKED, "max_latency": 1e-6}))
    (tmp_path / "no.json").write_text(document.model_dump_json(by_alias=True), encoding="utf-8")
    done = plan("explain", tmp_path / "no.json")
    assert done.code == 3
    assert "No plan for llama-3.1-8b" in done.stdout
