"""Bad input: exit 2, a message on stderr that says what, where and what to do, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[..., Any]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["catalog", "list", "modles"], "unknown kind of entry 'modles'; did you mean models"),
        (["catalog", "list", "everything"], "unknown kind of entry 'everything' (one of hardware, nodes, models, "),
        (["catalog", "list"], "Missing argument 'KIND'"),
        (["catalog", "list", "models", "--format", "xml"], "'xml'"),
        (["catalog", "show", "hardware", "A1000"], "unknown GPU 'A1000'; did you mean A100"),
        (["catalog", "show", "models", "zzz"], "(plan catalog list models shows all)"),
        (["catalog", "show", "models", ""], "unknown model ''"),
        (["catalog", "show", "models"], "Missing argument 'ID'"),
        (["catalog", "schema", "nothing"], "unknown kind of entry 'nothing'"),
        (["catalog", "stale", "--days", "-1"], "Invalid value for '--days'"),
        (["catalog", "stale", "--days", "soon"], "Invalid value for '--days'"),
        (["catalog", "validate", "/no/such/directory"], "/no/such/directory: isn't a directory"),
        (["--catalog", "/no/such", "catalog", "list", "models"], "/no/such: isn't a directory"),
        (["catalog", "list", "models", "--catalog", "/no/such"], "/no/such: isn't a directory"),
        (["catalog", "frobnicate"], "frobnicate"),
        (["frobnicate"], "frobnicate"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_is_refused_with_advice(plan: Plan, arguments: list[str], told: str) -> None:
    output = plan(*arguments)
    assert output.code == 2
    assert output.stdout == ""
    # Long messages of the command line's parser are wrapped.
    assert told in " ".join(output.stderr.split())


@pytest.mark.parametrize("arguments", [[], ["catalog"]], ids=["plan", "plan catalog"])
def test_a_bare_command_shows_its_help(plan: Plan, arguments: list[str]) -> None:
    output = plan(*arguments)
    assert output.code == 2
    assert "Usage: plan" in output.stdout + output.stderr


@pytest.mark.parametrize(
    "command",
    [[], ["catalog"], *(["catalog", verb] for verb in ("list", "show", "validate", "schema", "stale"))],
    ids=lambda command: " ".join(["plan", *command]),
)
def test_every_command_has_help(plan: Plan, command: list[str]) -> None:
    for flag in ("--help", "-h"):
        output = plan(*command, flag)
        assert output.code == 0
        assert output.stdout.startswith(f"Usage: plan {' '.join(command)}".rstrip())
        assert output.stderr == ""


def test_the_version_is_the_packages(plan: Plan) -> None:
    from planner import __version__

    assert plan("--version").stdout == f"{__version__}\n"


def test_a_broken_overlay_is_told_with_all_its_problems(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(f"id: {name}\nname: A model\n")
    output = plan("catalog", "list", "models", "--catalog", tmp_path)
    assert (output.code, output.stdout) == (2, "")
    for name in ("one", "two"):
        for field in ("hf_id", "context_tokens", "sources", "checked"):
            assert f"{name}.yaml: {field}: missing; add it" in output.stderr
    assert "Undefined" not in output.stderr
    assert "Traceback" not in output.stderr


def _environment(cache: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PLAN_CACHE": str(cache), "PYTHONPATH": str(ROOT)}


def test_a_full_disk_is_told(cache: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "catalog", "list", "hardware"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(cache),
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "plan: No space left on device\n"


@pytest.mark.parametrize("echo", ["typer.echo", "lambda text, **_: print(text)"], ids=["echo", "print"])
def test_a_reader_that_leaves_is_no_error_to_talk_about(cache: Path, echo: str) -> None:
    code = f"import sys, typer, cli; typer.echo = {echo}; sys.exit(cli.main(['catalog', 'show', 'hardware', 'A100']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(cache),
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode not in {0, 2}


def test_a_terminal_without_accents_is_no_reason_to_fail(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    shipped = (ROOT / "catalog" / "hardware" / "l4.yaml").read_text(encoding="utf-8")
    (tmp_path / "hardware" / "l4.yaml").write_text(shipped.replace("name: ", "name: é ", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "cli", "catalog", "show", "hardware", "L4", "--catalog", tmp_path],
        capture_output=True,
        text=True,
        env={**_environment(cache), "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "NVIDIA L4" in done.stdout


def test_an_interrupt_is_quiet(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("catalog.summary.summaries", interrupt)
    output = plan("catalog", "list", "models")
    assert (output.code, output.stderr) == (130, "")
