"""The wheel is complete: installed alone into an empty environment, it plans from any directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from catalog.schema import KINDS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def _run(*command: str | Path, where: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an index would get it."""
    place = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", place, ROOT, where=place)
    (built,) = place.glob("*.whl")
    return built


def test_every_fact_and_document_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {".yaml", ".json", ".jsonl", ".csv", ".html", ".css", ".js", ".py", ".typed"}
    ours = {
        str(path.relative_to(ROOT))
        for package in ("catalog", "planner")
        for path in (ROOT / package).rglob("*")
        if path.suffix in data or path.name == "py.typed"
    }
    assert ours - names == set()
    assert "cli.py" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"catalog", "planner", "cli.py"}


def test_the_wheel_works_alone_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", tmp_path / "venv", where=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    _run(binaries / "python", "-m", "pip", "install", "--quiet", wheel, where=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = json.loads(_run(binaries / "plan", "catalog", "list", "hardware", "--format", "json", where=elsewhere))
    assert {row["id"] for row in rows} == {path.stem for path in (ROOT / "catalog" / "hardware").glob("*.yaml")}
    for kind in KINDS:
        assert _run(binaries / "plan", "catalog", "list", kind, where=elsewhere)
    _run(binaries / "plan", "catalog", "validate", where=elsewhere)
    _run(binaries / "python", "-W", "error", "-c", "import planner, catalog, cli; planner.Request", where=elsewhere)
    assert list(elsewhere.iterdir()) == []
