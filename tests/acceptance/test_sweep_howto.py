"""`docs/howto/sweep.md`: every example works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[..., Any]

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "howto" / "sweep.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    (points,), (grid,) = blocks("csv"), blocks("yaml")
    Path("points.csv").write_text(points, encoding="utf-8")
    Path("points.yaml").write_text(grid, encoding="utf-8")
    program, *arguments = shlex.split(command)
    assert program == "plan"
    if "--on" in arguments:  # Dask leaves threads and warnings in the process that it ran in.
        code = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(code, capture_output=True, text=True, env=with_root(), check=False)
        assert done.returncode == 0, done.stderr
    else:
        output = plan(*arguments)
        assert output.code == 0, output.stderr
        assert "optimal" in output.stdout
    assert Path(arguments[arguments.index("-o") + 1]).stat().st_size > 0


@pytest.mark.slow
def test_python(tmp_path: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=with_root(), cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == ["0", "1", "2"]


def test_every_column_and_code_that_is_documented_exists() -> None:
    from planner.commands.sweep import exit_code

    assert [exit_code({status: 1}) for status in ("optimal", "error", "infeasible", "out of time")] == [0, 2, 3, 4]
    assert set(re.findall(r"`(optimal|feasible|infeasible|out of time|error)`", TEXT)) == {
        "optimal",
        "feasible",
        "infeasible",
        "out of time",
        "error",
    }


def with_root() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
