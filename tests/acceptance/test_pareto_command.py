"""``plan pareto``: exact frontiers, each point a whole plan."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import planner.pipeline
from planner import Request, make_plan
from planner.report.pareto import TITLES, value_text
from planner.whatif.pareto import FrontierDocument, pareto, read_axes
from tests.plans import told

Plan = Callable[..., Any]

SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "frontier.json").read_text(encoding="utf-8"))
ASKED = ("--ctx", "50K", "--gpus", "2xA100", "--model", "llama-3.1-8b", "--efficiency", "peak")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> FrontierDocument:
    request = Request.model_validate({name[2:]: value for name, value in zip(ASKED[::2], ASKED[1::2], strict=True)})
    return pareto(request, "throughput,tpot")


def test_the_published_schema_is_current() -> None:
    written = {name: value for name, value in SCHEMA.items() if name not in ("$schema", "$id")}
    assert written == FrontierDocument.model_json_schema(by_alias=True, mode="serialization"), (
        "write planner/schema/frontier.json again, and raise FRONTIER_SCHEMA_VERSION where readers would break"
    )


def test_json_is_what_the_schema_says_and_every_value_is_its_plans(plan: Plan) -> None:
    output = plan("pareto", *ASKED, "--of", "throughput,tpot", "--format", "json")
    assert output.code == 0
    jsonschema.validate(output.json, SCHEMA)
    assert len(output.json["points"]) > 3
    for point in output.json["points"]:
        assert point["values"] == {name: told(point["plan"], name) for name in ("interactions_per_hour", "itl_full_s")}
        assert point["plan"]["status"] == "optimal"
        assert point["plan"]["objective"]["value"] == point["values"]["interactions_per_hour"]
        assert point["plan"]["objective"]["gap"] == 0.0
        assert point["plan"]["request"]["max_latency"] == point["values"]["itl_full_s"]


def test_no_point_is_as_good_as_another_in_everything(found: FrontierDocument) -> None:
    rows = [(point.values["interactions_per_hour"], point.values["itl_full_s"]) for point in found.points]
    assert rows == sorted(rows, reverse=True)
    assert len({value for row in rows for value in row}) == 2 * len(rows)


def test_each_point_verifies_as_a_plan_file(plan: Plan, found: FrontierDocument, tmp_path: Path) -> None:
    for place, point in enumerate(found.points):
        file = tmp_path / f"{place}.json"
        file.write_text(point.plan.model_dump_json(by_alias=True), encoding="utf-8")
        assert plan("verify", file).code == 0


def test_a_point_is_what_plan_answers_to_its_request(found: FrontierDocument) -> None:
    middle = found.points[len(found.points) // 2].plan
    asked = Request.model_validate(middle.request)
    assert asked.max_latency is not None
    # CP-SAT counts in integers that are rounded against us.
    again = make_plan(asked.model_copy(update={"max_latency": asked.max_latency * 1.0005}))
    assert again.metrics is not None
    assert middle.metrics is not None
    assert again.metrics.interactions_per_hour == pytest.approx(middle.metrics.interactions_per_hour, rel=1e-3)
    assert again.metrics.cost_ratio_vs_4k == pytest.approx(middle.metrics.cost_ratio_vs_4k, rel=2e-3)


def test_the_table_shows_the_same_numbers(plan: Plan, found: FrontierDocument) -> None:
    output = plan("pareto", *ASKED, "--of", "throughput,tpot")
    lines = [line.split() for line in output.stdout.splitlines()]
    for place, point in enumerate(found.points, start=1):
        shown = " ".join(value_text(name, value) for name, value in point.values.items()).split()
        assert [str(place), *shown] in [line[: 1 + len(shown)] for line in lines]
    assert all(TITLES[name] in output.stdout for name in found.points[0].values)
    assert "Complete" in output.stdout
    assert "100%" in output.stderr


def test_fewer_gpus_are_a_smaller_cluster_of_the_same_servers(plan: Plan) -> None:
    output = plan("pareto", *ASKED, "--of", "gpus,ttft", "--format", "json")
    rows = [(point["values"]["gpus_used"], point["plan"]["request"]["gpus"]) for point in output.json["points"]]
    assert set(rows) == {(1.0, "1xA100"), (2.0, "2xA100")}


def test_fewer_points_say_how_far_the_others_are(plan: Plan) -> None:
    output = plan("pareto", *ASKED, "--of", "throughput,tpot", "--max-points", "3", "--format", "json")
    coverage = output.json["coverage"]
    assert len(output.json["points"]) == coverage["listed"] <= 3 < coverage["on_frontier"]
    assert coverage["within"] > 0


def test_what_time_left_undecided_is_said(plan: Plan) -> None:
    output = plan("pareto", *ASKED, "--of", "throughput,tpot", "--time-limit", "0.001ms")
    assert output.code == 4
    assert "Time ran out" in output.stdout


@pytest.mark.slow
def test_a_request_without_a_plan_is_explained(plan: Plan) -> None:
    small = ("--engine", "vllm", "--weights", "bf16", "--rounds", "1", "--gpus", "1xA100")
    output = plan("pareto", *ASKED, *small, "--of", "cost,tpot", "--max-latency", "0.1ms")
    assert output.code == 3
    assert "--max-latency" in output.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--of", "throughput"), "two or three"),
        (("--of", "speed,tpot"), "'speed' is unknown"),
        (("--of", "tpot,tpot"), "named twice"),
        (("--of", "throughput,tpot", "--objective", "cost"), "--objective cost"),
        (("--of", "throughput,tpot", "--resolution", "5"), "--resolution"),
        (("--of", "throughput,tpot", "--figure", "x.pdf"), "--figure x.pdf"),
    ],
)
def test_bad_options_are_told(plan: Plan, arguments: tuple[str, ...], said: str) -> None:
    output = plan("pareto", *ASKED, *arguments)
    assert output.code == 2
    assert said in output.stderr


@pytest.mark.slow
@pytest.mark.parametrize("document", ["frontiers.md", "parity.md"])
def test_the_documents_examples_run(plan: Plan, document: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / document).read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert commands
    for command in commands:
        assert plan(*shlex.split(command)[1:]).code == 0
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_all_axes_are_read() -> None:
    assert read_axes(["gpus", "quality", "cost"]) == ("gpus", "quality", "cost")


def test_figures_are_drawn_and_kept(plan: Plan, tmp_path: Path) -> None:
    picture = tmp_path / "frontier.svg"
    assert plan("pareto", *ASKED, "--of", "cost,tpot", "--figure", picture).code == 0
    drawn = picture.read_text(encoding="utf-8")
    assert "TPOT" in drawn
    assert plan("pareto", *ASKED, "--of", "cost,tpot", "--figure", picture).code == 2
    assert picture.read_text(encoding="utf-8") == drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "of"),
    [
        ({"ctx": "50K", "gpus": "2xA100", "model": "llama-3.1-8b"}, "cost,ttft"),
        ({"ctx": "128K", "gpus": "4xH100", "model": "qwen3-30b-a3b"}, "throughput,tpot"),
        ({"ctx": "32K", "gpus": "4xA100", "model": "qwen2.5-14b-1m", "users": 20}, "throughput,quality"),
        ({"ctx": "32K", "gpus": "3xA100", "model": "mistral-7b-v0.1"}, "gpus,tpot"),
    ],
)
def test_plan_answers_each_points_request_in_the_same_way(fields: dict[str, Any], of: str) -> None:
    points = pareto(Request.model_validate(fields), of).points
    assert points
    for point in points:
        asked = Request.model_validate(point.plan.request)
        # A frontier's points are the best there are; a plan gives up what its tolerance allows for a tie's sake.
        again = make_plan(asked.model_copy(update={"tolerance": 0.0}))
        assert again.status == "optimal"
        assert again.objective is not None
        assert point.plan.objective is not None
        assert again.objective.name == point.plan.objective.name
        assert again.objective.value == pytest.approx(point.plan.objective.value, rel=1e-6)
