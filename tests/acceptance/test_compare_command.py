"""`plan compare`: scenarios side by side, every number as in the plans, and causes that add up."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cli
import planner.pipeline
from planner import Request, Service, compare, evaluate, make_plan
from planner.whatif.compared import Comparison
from tests.plans import service_in

Plan = Callable[..., Any]
SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "compare.json").read_text(encoding="utf-8"))
BASE = ("--ctx", "50K", "--gpus", "2xA100", "--model", "llama-3.1-8b", "--max-latency", "50ms")


def test_the_published_schema_is_current() -> None:
    written = {name: value for name, value in SCHEMA.items() if name not in ("$schema", "$id")}
    assert written == Comparison.model_json_schema(by_alias=True, mode="serialization"), (
        "write planner/schema/compare.json again, and raise COMPARE_SCHEMA_VERSION where readers would break"
    )


@pytest.fixture(scope="module")
def compared(cache: Path) -> Any:
    """One comparison as JSON, with every kind of variant in it."""
    sets = ("gpus=2xH100", "one:gpus=1xA100,ctx=100K", "open:max_latency=none,techniques=kv_fp8,kivi", "ctx=many")
    arguments = ["compare", "--no-gains", *BASE, *(f"--set={text}" for text in (*sets, "nobody:max_latency=1us"))]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        code = cli.main([*arguments, "--format", "json"])
    assert code == 2, "bad input among the variants"
    return json.loads(out.getvalue())


def by_name(compared: Any) -> dict[str, Any]:
    return {variant["name"]: variant for variant in compared["variants"]}


def test_a_variant_that_cannot_be_planned_stops_no_other(compared: Any) -> None:
    jsonschema.validate(compared, SCHEMA)
    found = by_name(compared)
    statuses = {name: variant["status"] for name, variant in found.items()}
    assert statuses == {
        "gpus=2xH100": "optimal",
        "one": "optimal",
        "open": "optimal",
        "ctx=many": "bad input",
        "nobody": "infeasible",
    }
    assert "--ctx" in found["ctx=many"]["problems"][0]
    assert found["nobody"]["plan"]["infeasible"]["relaxations"]


def test_every_number_is_the_plans(compared: Any, plan: Plan) -> None:
    alone = plan(*BASE, "--gpus", "2xH100", "--format", "json").json
    assert by_name(compared)["gpus=2xH100"]["plan"] == alone
    assert plan(*BASE, "--format", "json").json == compared["base"]["plan"]


def test_steps_begin_at_the_base_end_at_the_variant_and_add_up(compared: Any) -> None:
    base = compared["base"]["plan"]["metrics"]["interactions_per_hour"]
    told = 0
    for variant in compared["variants"]:
        if variant["cause"] is None:
            continue
        cause, steps = variant["cause"], variant["cause"]["steps"]
        value = variant["plan"]["metrics"]["interactions_per_hour"]
        assert (cause["before"], cause["after"]) == (base, value)
        assert steps[0]["before"] == base
        assert steps[-1]["after"] == value
        assert [s["before"] for s in steps[1:]] == [s["after"] for s in steps[:-1]]
        assert math.prod(s["ratio"] for s in steps) == pytest.approx(cause["ratio"], rel=1e-12)
        assert sum(s["difference"] for s in steps) == pytest.approx(value - base, rel=1e-12)
        assert sum(s["share"] for s in steps) == pytest.approx(1.0, rel=1e-9)
        told += 1
    assert told == 3


def test_every_changed_field_and_choice_is_in_exactly_one_step(compared: Any) -> None:
    changes = [change for step in by_name(compared)["one"]["cause"]["steps"] for change in step["changes"]]
    names = [(change["of"], change["name"]) for change in changes]
    assert len(names) == len(set(names))
    assert {name for of, name in names if of == "request"} == {"ctx", "gpus"}
    assert {change["name"]: change["to"] for change in changes if change["of"] == "request"} == {
        "ctx": 100_000,
        "gpus": "1xA100",
    }


def test_the_first_step_is_the_bases_decision_under_the_variants_request(compared: Any) -> None:
    variant = by_name(compared)["gpus=2xH100"]
    decision = Service.model_validate(service_in(compared["base"]["plan"]["decision"]))
    priced = evaluate(Request.model_validate(variant["plan"]["request"]), decision).metrics
    assert priced is not None
    first = variant["cause"]["steps"][0]
    assert [change["name"] for change in first["changes"]] == ["gpus"]
    assert first["after"] == priced.interactions_per_hour == variant["cause"]["unchanged"]["value"]


def test_a_split_that_the_cluster_cannot_hold_is_told_with_what_makes_it_run() -> None:
    asked = Request(
        ctx="4K", gpus="4xA100", model="llama-3.1-70b", weights="bf16", max_quality_loss=0, efficiency="peak"
    )
    found = compare(asked, {"two": {"gpus": "2xA100"}}).variants[0]
    assert found.cause is not None
    first = found.cause.steps[0]
    assert "parallel" in [change.name for change in first.changes]
    assert any("GPUs" in reason for reason in first.together_because)
    assert found.cause.unchanged.impossible
    assert math.prod(step.ratio or 0 for step in found.cause.steps) == pytest.approx(found.cause.ratio, rel=1e-12)


def test_what_keeping_a_choice_would_do_is_what_evaluate_says(compared: Any) -> None:
    checked = 0
    for variant in compared["variants"]:
        for kept in (variant["cause"] or {"kept": []})["kept"]:
            name = kept["change"]["name"]
            if kept["value"] is None or name not in ("engine", "weights", "offload", "parallel"):
                continue
            base = service_in(compared["base"]["plan"]["decision"])
            decision = {**service_in(variant["plan"]["decision"]), name: base[name]}
            asked = Request.model_validate(variant["plan"]["request"])
            metrics = evaluate(asked, Service.model_validate(decision)).metrics
            assert metrics is not None
            assert metrics.interactions_per_hour == kept["value"]
            assert kept["ratio"] <= 1.0 + 1e-9 or kept["breaks"], "a proved plan isn't beaten by one of its neighbours"
            checked += 1
    assert checked


def test_where_a_gpu_has_no_price_gpu_hours_are_compared() -> None:
    asked = Request(ctx=4_000, gpus="1xA100", model="qwen3-0.6b", objective="cost", efficiency="peak", rounds=1)
    found = compare(asked, {"unsold": {"gpus": "1xH20"}}, gains=False)
    variant = found.variants[0]
    assert variant.plan is not None
    assert variant.plan.metrics is not None
    assert variant.plan.metrics.usd_per_interaction is None
    assert variant.cause is not None
    assert (found.metric, variant.cause.metric) == ("usd_per_interaction", "gpu_hours_per_interaction")
    assert variant.cause.after == pytest.approx(1.0 / variant.plan.metrics.interactions_per_hour)
    assert math.prod(step.ratio or math.nan for step in variant.cause.steps) == pytest.approx(variant.cause.ratio)


def test_what_a_unit_more_buys_is_what_planning_with_it_gives() -> None:
    asked = {"ctx": 50_000, "gpus": "1xA100", "model": "llama-3.1-8b", "max_latency": 0.03, "efficiency": "peak"}
    found = compare(Request.model_validate(asked), {"slower": {"max_latency": "35ms"}}, gains=True)
    told = 0
    for column in (found.base, found.variants[0]):
        assert column.plan is not None
        assert column.plan.metrics is not None
        for row in column.gains:
            option, _, value = row.change.partition(" ")
            if not option.startswith("--") or not row.proved:
                continue
            changed = {**column.plan.request, option.removeprefix("--").replace("-", "_"): value}
            better = make_plan(Request.model_validate(changed)).metrics
            assert better is not None
            gain = better.interactions_per_hour / column.plan.metrics.interactions_per_hour - 1.0
            assert row.gain == pytest.approx(gain, abs=1e-4)
            told += 1
    assert told >= 2


def test_the_table_says_the_same_within_eighty_columns(
    compared: Any, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = []
    for index, column in enumerate([compared["base"], by_name(compared)["gpus=2xH100"]]):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_text(json.dumps(column["plan"]), encoding="utf-8")
    done = plan("compare", "--no-gains", *files)
    assert (done.code, done.stderr) == (0, "comparing\n")
    assert max(map(len, done.stdout.splitlines())) <= 80
    cause = by_name(compared)["gpus=2xH100"]["cause"]
    row = next(line for line in done.stdout.splitlines() if line.startswith(" interactions/h"))
    assert row.split() == [
        "interactions/h",
        f"{cause['before']:,.0f}",
        f"{cause['after']:,.0f}",
        f"(x{cause['ratio']:.3g})",
    ]
    assert f"interactions/h {cause['before']:,.0f} -> {cause['after']:,.0f} (x{cause['ratio']:.3g})" in " ".join(
        done.stdout.split()
    )
    assert "* 2xH100" in done.stdout


def test_a_plan_made_with_other_facts_is_told_and_gets_no_cause(compared: Any, plan: Plan, tmp_path: Path) -> None:
    old = json.loads(json.dumps(compared["base"]["plan"]))
    old["metrics"]["interactions_per_hour"] *= 1.5
    old["provenance"]["catalog_hash"] = "0123456789abcdef"
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    (tmp_path / "new.json").write_text(json.dumps(compared["base"]["plan"]), encoding="utf-8")
    done = plan("compare", tmp_path / "new.json", tmp_path / "old.json", "--format", "json")
    variant = done.json["variants"][0]
    assert variant["cause"] is None
    assert "plan again" in variant["no_cause"]
    assert "planned with catalog 0123456789abcdef" in variant["notes"][0]
    assert "interactions_per_hour" in variant["notes"][1]


def test_scenarios_come_from_a_file_too(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "base: {ctx: 50K, gpus: 1xA100, model: llama-3.1-8b}\n"
        "scenarios:\n  short: {ctx: 4K}\n  wrong: {gpus: 1xA1000}\n",
        encoding="utf-8",
    )
    done = plan("compare", "--scenarios", file, "--format", "json")
    assert done.code == 2
    assert [(v["name"], v["status"]) for v in done.json["variants"]] == [("short", "optimal"), ("wrong", "bad input")]
    assert "planning short" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (BASE, "nothing to compare with"),
        (("--set", "ctx=4K"), "--gpus: missing"),
        (("missing.json", "other.json"), "missing.json: can't be read"),
        ((*BASE, "--scenarios", "missing.yaml"), "missing.yaml: can't be read"),
        (("plan.json", "--ctx", "4K"), "not beside plan files"),
    ],
)
def test_what_cannot_be_compared_is_told(plan: Plan, arguments: tuple[str, ...], said: str) -> None:
    done = plan("compare", *arguments)
    assert done.code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
