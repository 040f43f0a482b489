"""The snapshots of engines' flags are what the published packages hold. Slow: it downloads them, 0.8 GB in all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.engine_flags.__main__ import SOURCES

ROOT = Path(__file__).parents[2]
PACKAGES = sorted({pattern for _, _, pattern, _ in SOURCES})

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("pattern", PACKAGES)
def test_a_snapshot_is_what_its_package_holds(pattern: str, tmp_path: Path) -> None:
    match = re.fullmatch(r"(\w[\w.]*)-(\d[\d.]*\d)(-\*\.whl|\.tar\.gz)", pattern)
    assert match
    wanted = f"{match[1].replace('_', '-')}=={match[2]}"
    form = "--only-binary=:all:" if match[3].endswith("whl") else "--no-binary=:all:"
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", form, wanted, "-d", tmp_path]
    subprocess.run(fetch, check=True, capture_output=True)
    check = [sys.executable, "-m", "scripts.engine_flags", str(tmp_path), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checked = [engine for engine, _, other, _ in SOURCES if other == pattern]
    skipped = done.stderr.count("not in ")
    assert skipped == len(SOURCES) - len(checked)
