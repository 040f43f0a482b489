"""The lists of engines' architectures are what the published packages hold. Slow: it downloads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.engine_architectures.__main__ import PACKAGES, Package

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: f"{package.engine}-{package.version}")
def test_a_list_is_what_its_package_holds(package: Package, tmp_path: Path) -> None:
    for pattern in filter(None, (package.pattern, package.transformers)):
        match = re.fullmatch(r"(\w[\w.]*)-([\d.]+)-\*\.whl", pattern)
        assert match
        wanted = f"{match[1].replace('_', '-')}=={match[2]}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", wanted]
        subprocess.run([*command, "-d", tmp_path], check=True, capture_output=True)
    check = [sys.executable, "-m", "scripts.engine_architectures", str(tmp_path), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name = f"{package.engine}-{package.version}"
    assert f"{name} left as it is" not in done.stderr
