"""The promise: one command answers what to deploy, proves it, checks it, or explains why nothing can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cli

SCHEMA = Path(__file__).parents[2] / "planner" / "schema" / "plan.json"
SMALL = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "1xA100", "--efficiency", "peak")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--format", "json")
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    return document


def test_a_plan_is_proved_and_keeps_every_limit(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "--ctx", "1M", "--gpus", "8xA100", "--max-latency", "200ms")
    assert plan["status"] == "optimal"
    assert plan["objective"]["gap"] == pytest.approx(0.0, abs=1e-9)
    assert plan["metrics"]["tpot_s"] <= 0.2
    assert all(row["slack"] >= -1e-9 * abs(row["limit"]) for row in plan["constraints"])
    assert plan["request"]["model"] == "qwen2.5-14b-1m"
    assert plan["metrics"]["gpus_used"] <= 8
    assert plan["metrics"]["cost_ratio_vs_4k"] > 10
    used = plan["metrics"]["hbm_bytes_per_gpu"]
    assert sum(used[part] for part in ("weights", "kv", "workspace", "overhead")) <= used["limit"]


def test_the_oracle_prints_the_same_plan_document(capsys: pytest.CaptureFixture[str]) -> None:
    solved = planned(capsys, *SMALL)
    priced = planned(capsys, *SMALL, "--solver", "exhaustive")
    assert solved["objective"]["value"] == pytest.approx(priced["objective"]["value"], rel=1e-3)
    assert solved.keys() == priced.keys()


def test_the_table_names_what_a_reader_needs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--no-gains")
    assert code == 0
    wanted = (
        "Decision",
        "Four metrics",
        "HBM per GPU",
        "Limits",
        "Quality:",
        "Cost:",
        "proved optimal",
        "worst",
        "Assumed:",
    )
    for text in wanted:
        assert text in out
    assert "\x1b[" not in out


def test_a_plan_file_is_verified_and_evaluated_to_the_same_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    code, _, err = run(capsys, *SMALL, "--format", "json", "-o", str(file))
    assert code == 0, err
    plan = json.loads(file.read_text())
    code, out, _ = run(capsys, "verify", str(file))
    assert (code, "verified" in out) == (0, True)
    again = planned(capsys, "evaluate", "--decision", str(file))
    assert again["metrics"] == plan["metrics"]
    code, _, err = run(capsys, *SMALL, "-o", str(file))
    assert code == 2
    assert "--force" in err


def test_a_forged_plan_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = planned(capsys, *SMALL)
    plan["metrics"]["users"] *= 1.01
    file = tmp_path / "forged.json"
    file.write_text(json.dumps(plan))
    code, _, err = run(capsys, "verify", str(file))
    assert code == 2
    assert "metrics.users" in err


def test_when_time_runs_out_the_best_plan_so_far_has_a_gap(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, *SMALL, "--time-limit", "1us")
    assert plan["status"] in ("feasible", "optimal")
    assert plan["objective"]["gap"] >= 0.0


@pytest.mark.parametrize(("model", "ctx"), [("yi-34b-200k", "128K"), ("qwen3-32b", "1M")])
def test_the_usual_models_have_plans_at_every_context(capsys: pytest.CaptureFixture[str], model: str, ctx: str) -> None:
    plan = planned(capsys, "--model", model, "--ctx", ctx, "--gpus", "8xA100")
    assert plan["status"] == "optimal"
    window = {"yi-34b-200k": 200_000, "qwen3-32b": 40_960}[model]
    assert bool(plan["provenance"]["warnings"]) == (plan["request"]["ctx"] > window)


BAD = {
    ("--ctx", "1Q"): "--ctx",
    ("--ctx", "0"): "--ctx",
    ("--gpus", "8xA1000"): "A100",
    ("--max-latency", "200"): "200ms",
    ("--confidence", "1.5"): "--confidence",
    ("--model", "llama-3.1-8bb"): "llama-3.1-8b",
    ("--objective", "latency"): "--users",
    ("--techniques", "snapkvv"): "snapkv",
    ("--weights", "bf61"): "bf16",
    ("--engine", "vlm"): "vllm",
    ("--time-limit", "soon"): "--time-limit",
    ("--solver", "magic"): "cpsat",
}


@pytest.mark.parametrize(("option", "hint"), BAD.items())
def test_bad_input_says_what_to_do(capsys: pytest.CaptureFixture[str], option: tuple[str, str], hint: str) -> None:
    given = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | dict([option])
    code, out, err = run(capsys, *(word for pair in given.items() for word in pair))
    assert code == 2
    assert hint in err
    assert "Traceback" not in err
    assert out == ""


def test_all_problems_of_a_request_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--ctx", "1Q", "--gpus", "8xA100", "--max-latency", "200", "--confidence", "2")
    assert code == 2
    assert all(option in err for option in ("--ctx", "--max-latency", "--confidence"))
