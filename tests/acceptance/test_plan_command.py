"""`plan`: the document keeps its published contract, and the terminal says what a reader needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import planner.pipeline
from planner.plan import Document, Infeasible, Relaxation

ROOT = Path(__file__).parents[2]
Plan = Callable[..., Any]

SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "plan.json").read_text(encoding="utf-8"))
ASKED = ("--ctx", "50K", "--gpus", "1xA100", "--model", "llama-3.1-8b", "--efficiency", "peak")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} isn't JSON"))


def test_the_published_schema_is_current() -> None:
    written = {name: value for name, value in SCHEMA.items() if name not in ("$schema", "$id")}
    assert written == Document.model_json_schema(by_alias=True, mode="serialization"), (
        "write planner/schema/plan.json again, and raise SCHEMA_VERSION where readers would break"
    )


def test_python_offers_the_same(cache: Path) -> None:
    code = (
        "from planner import Request, make_plan, evaluate\n"
        "asked = Request(ctx='50K', gpus='1xA100', model='llama-3.1-8b', efficiency='peak')\n"
        "print(evaluate(asked).status, make_plan(asked).status)"
    )
    environment = {**os.environ, "PLAN_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("evaluated optimal\n", "")


def test_a_plan_is_proved_written_verified_and_valid(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    made = plan(*ASKED, "--format", "json", "-o", file)
    assert made.code == 0, made.stderr
    document = strict(made.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["status"] == "optimal"
    assert document["objective"]["gap"] == pytest.approx(0.0, abs=1e-6)
    assert json.loads(file.read_text(encoding="utf-8")) == document
    assert plan(*ASKED, "-o", file).stderr == f"plan: -o {file}: exists; choose another name or add --force\n"
    checked = plan("verify", file)
    assert (checked.code, checked.stderr) == (0, "")
    assert "limits hold" in checked.stdout
    broken = json.loads(json.dumps(document))
    broken["metrics"]["latency"]["itl_s"]["full"] *= 0.5
    broken["metrics"]["concurrency"] += 1
    file.write_text(json.dumps(broken), encoding="utf-8")
    checked = plan("verify", file)
    assert (checked.code, checked.stdout) == (2, "")
    assert "metrics.latency.itl_s.full" in checked.stderr
    assert "metrics.concurrency" in checked.stderr


def test_the_terminal_says_what_was_chosen_and_why(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = plan(*ASKED, "--no-gains").stdout
    assert text.startswith("Deploy llama-3.1-8b at 50K on 1xA100")
    for part in (
        "HBM per GPU",
        "--max-latency limits it",
        "HBM bandwidth",
        "FLOP/s",
        "PCIe bandwidth",
        "proved optimal",
        "Parity:",
        "--max-quality-loss 5%, --confidence 0.8",
        "recalled",
    ):
        assert part in text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_an_infeasible_request_is_explained_with_exit_3(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Infeasible(
        conflicts=(("--max-latency 5 ms", "--users 9000"),),
        relaxations=(Relaxation(limit="--users", from_="9000", to="3"), Relaxation(limit="--gpus", from_="1", to=None)),
    )
    monkeypatch.setattr("planner.explain.explain_infeasible", lambda *_: told)
    asked = (*ASKED, "--max-latency", "5ms", "--users", "9000")
    output = plan(*asked, "--format", "json")
    assert output.code == 3
    document = strict(output.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["infeasible"]["relaxations"][0] == {"limit": "--users", "from": "9000", "to": "3", "note": None}
    text = plan(*asked).stdout
    assert "these can't hold together: --max-latency 5 ms, --users 9000" in text
    assert "nothing is enough" in text


def test_no_plan_in_time_is_exit_4(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise planner.pipeline.OutOfTimeError("no plan within 1 s; give --time-limit more")

    monkeypatch.setattr("planner.pipeline.make_plan", late)
    output = plan(*ASKED)
    assert (output.code, output.stdout, output.stderr) == (4, "", "plan: no plan within 1 s; give --time-limit more\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "--ctx 1Q --gpus 8xA100 --max-latency 200 --confidence 1.5",
            ["--ctx: '1Q'", "--max-latency: '200' has no unit"],
        ),
        ("--ctx 0 --gpus 8xA100", ["--ctx: '0' must be at least 1 token"]),
        ("--ctx -5 --gpus 8xA100", ["--ctx: '-5' is not a positive number"]),
        ("--ctx 50K --gpus 8xA1000 --model yi-34b-200", ["did you mean A100", "--model: unknown", "yi-34b-200k"]),
        ("--ctx 50K --gpus 8xA100 --engine vlm", ["--engine: unknown engine 'vlm'; did you mean vllm?"]),
        ("--ctx 50K --gpus 8xA100 --objective latency", ["--objective latency: add --users N"]),
        ("--ctx 50K --gpus 8xA100 --objective speed --task x", ["--objective: ", "--task: "]),
        ("--ctx 50K --gpus 8xA100 --techniques kv_fp8,none", ["--techniques kv_fp8,none: none stands alone; give it"]),
        ("--ctx 50K --gpus 8xA100 --techniques zzz", ["--techniques: unknown technique 'zzz'"]),
        ("--ctx 50K", ["--gpus: missing; add it, for example 8xA100"]),
        ("--ctx 50K --gpus 8xA100 --time-limit 0", ["--time-limit: '0' has no unit"]),
        ("--ctx 50K --gpus 8xA100 --solver foo", ["--solver 'foo': unknown; use cpsat or exhaustive"]),
        ("--ctx 50K --gpus 8xA100 --users 0 --rounds x", ["--users: ", "--rounds: "]),
    ],
)
def test_bad_input_is_told_by_option_all_at_once(plan: Plan, arguments: str, told: list[str]) -> None:
    output = plan(*arguments.split())
    assert (output.code, output.stdout) == (2, "")
    for part in told:
        assert part in output.stderr
    assert "Traceback" not in output.stderr
