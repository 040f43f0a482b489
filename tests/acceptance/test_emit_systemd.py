"""systemd: units that run the scripts, and in which nothing of a model's name is systemd's language."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from planner.emit import emit
from planner.emit.emit import launches_of
from planner.emit.platforms import systemd
from planner.emit.read_deployment import read_deployment
from planner.plan import Document
from tests.plans import shipped_catalog

GOLDEN = Path(__file__).parents[1] / "golden" / "emit"
PLANS = ("llama8b-int8", "llama8b-split", "sglang-fp8-hicache", "llamacpp-q8", "deepseek-v3-two-servers")
KEYS = {
    *("Description", "Wants", "After", "WorkingDirectory", "EnvironmentFile", "ExecStart", "Restart", "RestartSec"),
    *("KillMode", "TimeoutStopSec", "LimitNOFILE", "LimitMEMLOCK", "WantedBy"),
}


def document(name: str) -> Document:
    return Document.model_validate_json((GOLDEN / "plans" / f"{name}.json").read_text())


def units_of(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name.endswith(".service")}


def settings_of(unit: str) -> dict[str, str]:
    lines = [line for line in unit.splitlines() if line and not line.startswith(("#", "["))]
    assert not any(line.endswith("\\") for line in lines)
    found = [line.partition("=")[::2] for line in lines]
    assert sorted(name for name, _ in found) == sorted(KEYS)
    return dict(found)


def test_the_files_are_the_golden_ones() -> None:
    files = emit(document("llama8b-split"), "systemd", shipped_catalog())
    text = "".join(f"=== {name}\n{content}" for name, content in units_of(files).items())
    text += "=== plan.env\n" + files["systemd/plan.env"]
    golden = GOLDEN / "systemd.txt"
    if os.environ.get("PLAN_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text
    assert "systemctl enable --now" in files["README.md"]


@pytest.mark.parametrize("name", PLANS)
def test_every_unit_runs_a_script_that_is_there(name: str) -> None:
    files = emit(document(name), "systemd", shipped_catalog())
    scripts = {Path(path).name for path in files if path.startswith("systemd/") and path.endswith(".sh")}
    units = units_of(files)
    run = {Path(settings_of(unit)["ExecStart"].split()[1]).name for unit in units.values()}
    assert run == scripts
    for path, unit in units.items():
        assert ("@.service" in path) == settings_of(unit)["ExecStart"].endswith(" %i")


@pytest.mark.parametrize(
    "name", ["50%n%H", "a\nExecStart=/bin/touch pwned", "x\\", "$(touch pwned)", "\u00e9%\u2028[Service]", "%i\\\n"]
)
def test_a_name_is_only_text(name: str) -> None:
    deployment = read_deployment(document("llama8b-int8"), shipped_catalog())
    hostile = replace(deployment, problem=replace(deployment.problem, served_name=name))
    for unit in units_of(systemd.files(hostile, launches_of(hostile, None))).values():
        found = settings_of(unit)
        assert "%" not in found["Description"].replace("%%", "")
        assert found["ExecStart"].startswith("/bin/bash /opt/plan-")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd isn't installed")
@pytest.mark.parametrize("name", PLANS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    files = units_of(emit(document(name), "systemd", shipped_catalog()))
    for path, unit in files.items():
        (tmp_path / Path(path).name).write_text(unit)
    found = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unknown" not in found.stderr
