"""What every test may rely on: its own catalog overlay and cache, and `plan` as a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import cli

# The machine decides how long an example takes, and not whether it is right.
settings.register_profile("plan", deadline=None)
settings.load_profile("plan")


@dataclass(frozen=True)
class Output:
    """What a command left: exit code, stdout and stderr."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.stdout)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled facts for the whole run, never the developer's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN_CACHE", str(cache))
    monkeypatch.setenv("PLAN_CATALOG", str(cache / "no-overlay"))


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """Run a command in this process, as `plan ARGUMENTS` would."""

    def run(*arguments: str | Path) -> Output:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Output(code, captured.out, captured.err)

    return run


@pytest.fixture
def write_entry(tmp_path: Path) -> Callable[..., Path]:
    """Write entries into an overlay below the test's own directory and return the overlay."""

    def write(kind: str, name: str, text: str, overlay: str = "overlay") -> Path:
        folder = tmp_path / overlay / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path / overlay

    return write
