"""A fault of the program: exit 70, one line, and a file with which it is met again. Never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import planner.pipeline
import planner.whatif.compare

Plan = Callable[..., Any]
ASKED = ("--model", "llama-3.1-8b", "--ctx", "50K", "--gpus", "1xA100")


def fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError("a line\nand another")


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("_elsewhere")
def test_a_fault_is_one_line_and_a_file_that_reproduces_it(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = tmp_path / "my cluster.yaml"
    cluster.write_text("gpu: A100\n", encoding="utf-8")
    monkeypatch.setattr(planner.pipeline, "make_plan", fail)
    done = plan(*ASKED[:4], "--gpus", str(cluster))
    assert (done.code, done.stdout) == (70, "")
    (file,) = tmp_path.glob("plan-fault-*.yaml")
    assert done.stderr == (
        "plan: a fault of the program, not of your input: ZeroDivisionError: a line and another; "
        f"please report it with {file}, which holds the command and the files that it names\n"
    )
    assert file.stat().st_mode & 0o077 == 0
    kept = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert kept["command"] == f"plan --model llama-3.1-8b --ctx 50K --gpus '{cluster}'"
    assert kept["files"] == {str(cluster): "gpu: A100\n"}
    assert "ZeroDivisionError" in kept["traceback"]


def test_a_column_that_fails_costs_no_other(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = planner.whatif.compare.make_plan

    def fail_at(request: Any, *rest: Any, **more: Any) -> Any:
        return fail() if request.ctx == 32_000 else whole(request, *rest, **more)

    monkeypatch.setattr(planner.whatif.compare, "make_plan", fail_at)
    done = plan("compare", *ASKED, "--set", "ctx=32K", "--set", "ctx=16K", "--no-gains", "--format", "json")
    assert done.code == 70
    failed, other = done.json["variants"]
    assert (done.json["base"]["status"], failed["status"], other["status"]) == ("optimal", "error", "optimal")
    assert failed["problems"] == ["fault of the program, ZeroDivisionError: a line\nand another"]
