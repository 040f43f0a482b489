"""`plan calibrate` with PyTorch on this machine's processor: interrupted, killed, resumed, and planned with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Output

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def begin(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )


def lines_of(state: Path) -> list[dict[str, object]]:
    text = state.read_text(encoding="utf-8") if state.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(state: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while len(lines_of(state)) < lines:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_interrupted_killed_and_resumed(plan: Callable[..., Output], tmp_path: Path) -> None:
    directory = tmp_path / "here"
    state = directory / "calibration.jsonl"
    # --force: whatever else runs on a machine that tests.
    arguments = ["calibrate", "-o", str(directory), "--device", "cpu", "--quick", "--force", "--only", "gemm,memory"]
    interrupted = begin(arguments)
    wait_for(state, 4, interrupted)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(120) == 130
    after_interrupt = len(lines_of(state))
    killed = begin(arguments)
    wait_for(state, after_interrupt + 3, killed)
    killed.kill()
    killed.wait(60)
    kept = [line for line in lines_of(state) if "sizes" in line]
    assert not (directory / "measurements").exists()

    assert begin(arguments).wait(900) == 0
    measured = [line for line in lines_of(state) if "sizes" in line]
    assert measured[: len(kept)] == kept
    assert len({json.dumps([line["operation"], line["sizes"]]) for line in measured}) == len(measured)

    assert plan("catalog", "validate", directory).code == 0
    (hardware,) = (path.stem for path in (directory / "hardware").iterdir())
    request = ("--ctx", "4K", "--gpus", f"1x{hardware}", "--model", "llama-3.2-1b", "--format", "json")
    priced = plan("--catalog", directory, "evaluate", *request)
    assert priced.code == 0, priced.stderr
    assert "measured on this machine" in " ".join(priced.json["provenance"]["assumptions"])
    assert priced.json["metrics"]["prefill_s"] > 0.1, "no processor is as fast as a GPU"
