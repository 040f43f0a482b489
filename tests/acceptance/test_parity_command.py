"""``plan parity``: what a long context costs against a short one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import planner.pipeline
from planner import Request, make_plan
from planner.report.parity import cost_text
from planner.whatif.parity import parity
from planner.whatif.parity_document import THRESHOLDS, ParityDocument

Plan = Callable[..., Any]

SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "parity.json").read_text(encoding="utf-8"))
FIELDS = {"gpus": "1xA100", "model": "llama-3.1-8b", "efficiency": "peak"}
ASKED = tuple(part for name, value in FIELDS.items() for part in (f"--{name}", value))


def asked(**fields: Any) -> Request:
    return Request.model_validate({"ctx": "4K", **FIELDS, **fields})


@pytest.fixture(scope="module")
def grid(cache: Path) -> ParityDocument:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        patch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))
        return parity(asked(), (4_000, 256_000), details=False, jobs=1)


def test_the_published_schema_is_current() -> None:
    written = {name: value for name, value in SCHEMA.items() if name not in ("$schema", "$id")}
    assert written == ParityDocument.model_json_schema(by_alias=True, mode="serialization"), (
        "write planner/schema/parity.json again, and raise PARITY_SCHEMA_VERSION where readers would break"
    )


def test_every_number_is_its_plans(grid: ParityDocument) -> None:
    jsonschema.validate(json.loads(grid.model_dump_json(by_alias=True)), SCHEMA)
    for series in grid.series:
        assert [point.ctx for point in series.points] == [4_000, 256_000]
        for point in series.points:
            assert point.plan is not None
            assert point.plan.metrics is not None
            assert point.plan.status == "optimal"
            assert (point.cost, point.ratio) == (
                point.plan.metrics.usd_per_interaction,
                point.plan.metrics.cost_ratio_vs_4k,
            )
            assert point.plan.request["ctx"] == point.ctx
            assert point.plan.request["techniques"] == series.techniques
            assert point.shares is not None
            assert point.shares.prefill + point.shares.decode + point.shares.other == pytest.approx(1.0)
    assert grid.series[0].points[0].ratio == pytest.approx(1.0, rel=1e-6)
    assert grid.series[0].points[0].cost == pytest.approx(grid.base_cost, rel=1e-6)


def test_more_techniques_never_cost_more_and_longer_contexts_never_less(grid: ParityDocument) -> None:
    costs = [[point.cost or 0.0 for point in series.points] for series in grid.series]
    for short, long in costs:
        assert short < long
    for fewer, more in itertools.pairwise(costs):
        assert all(b <= a * (1 + 1e-9) for a, b in zip(fewer, more, strict=True))


def test_a_cost_is_what_plan_finds(grid: ParityDocument) -> None:
    document = make_plan(asked(ctx="256K", objective="cost"))
    assert document.metrics is not None
    assert grid.series[1].points[1].cost == pytest.approx(document.metrics.usd_per_interaction, rel=1e-3)


def test_the_table_shows_the_same_numbers(plan: Plan, grid: ParityDocument) -> None:
    output = plan("parity", *ASKED, "--contexts", "4K,256K", "--no-details", "--jobs", "1")
    assert output.code == 0
    for row, ctx in enumerate(("4K", "256K*")):
        line = next(line.split() for line in output.stdout.splitlines() if line.split()[:1] == [ctx])
        assert line[1::2][:3] == [cost_text(series.points[row].cost or 0.0) for series in grid.series]
    assert "beyond the 128K" in output.stdout or "beyond the 131072" in output.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ctx", "1M"), "--contexts"),
        (("--objective", "latency"), "--objective"),
        (("--techniques", "published"), "--techniques"),
        (("--contexts", "4K,long"), "--contexts"),
        (("--shared-prefix-tokens", "8K"), "--shared-prefix-tokens"),
    ],
)
def test_bad_options_are_told(plan: Plan, arguments: tuple[str, ...], said: str) -> None:
    output = plan("parity", *ASKED, *arguments)
    assert output.code == 2
    assert said in output.stderr


@pytest.mark.slow
def test_where_nobody_prices_the_gpu_costs_are_gpu_hours(plan: Plan) -> None:
    output = plan("parity", "--gpus", "1xA30", "--model", "qwen3-0.6b", "--contexts", "4K", "--format", "json")
    assert output.json["unit"] == "GPU-hours"
    point = output.json["series"][0]["points"][0]
    hours = point["plan"]["metrics"]["gpus_used"] / point["plan"]["metrics"]["interactions_per_hour"]
    assert point["cost"] == pytest.approx(hours)
    assert any("nobody in the catalog prices" in note for note in output.json["notes"])


@pytest.mark.slow
def test_crossings_are_planned_on_both_sides_and_movers_planned_again(plan: Plan, tmp_path: Path) -> None:
    picture = tmp_path / "parity.svg"
    output = plan("parity", *ASKED, "--contexts", "4K,128K", "--format", "json", "--figure", picture)
    assert output.code == 0
    jsonschema.validate(output.json, SCHEMA)
    for series in output.json["series"]:
        ratios = {point["ctx"]: point["ratio"] for point in series["points"]}
        assert [crossing["threshold"] for crossing in series["crossings"]] == list(THRESHOLDS)
        for crossing in series["crossings"]:
            if crossing["under_to"] is not None:
                assert ratios[crossing["under_to"]] <= crossing["threshold"]
            if crossing["over_from"] is not None:
                assert ratios[crossing["over_from"]] > crossing["threshold"]
                assert crossing["over_from"] <= 1.2 * (crossing["under_to"] or crossing["over_from"])
                assert crossing["stopped_by"]
    movers = output.json["movers"]
    assert any(row["helps"] for row in movers["rows"])
    for row in movers["rows"]:
        if row["plan"] is not None:
            assert row["cost"] == row["plan"]["metrics"]["usd_per_interaction"]
            assert row["ratio"] == row["plan"]["metrics"]["cost_ratio_vs_4k"]
            assert row["helps"] == (row["cost"] < 0.99 * movers["cost"])
    assert "context" in picture.read_text(encoding="utf-8")


@pytest.mark.benchmark
def test_every_context_up_to_a_million_tokens_is_planned(plan: Plan) -> None:
    output = plan("parity", "--model", "nemotron-3-nano-30b-a3b", "--gpus", "8xA100", "--jobs", "2")
    assert output.code == 0
    for ctx in ("4K", "32K", "128K", "256K", "512K", "1M"):
        assert any(line.split()[:1] == [ctx] for line in output.stdout.splitlines())
