"""`plan sweep --on dask`: the same rows from a Dask cluster, also when one of its workers is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planner import Request
from planner.search.solver import Settings
from planner.whatif import sweep_dask
from planner.whatif.outcome import OtherCatalogError, Task

ROOT = Path(__file__).parents[2]
Plan = Callable[..., Any]
ASKED = ("--ctx", "4K,8K,16K,32K", "--gpus", "1xA100,2xA100", "--model", "qwen3-0.6b", "--efficiency", "peak")


def test_what_an_engine_needs_is_told(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    assert "--on 'spark': unknown; use local or dask" in plan("sweep", *ASKED, "-o", out, "--on", "spark").stderr
    done = plan("sweep", *ASKED, "-o", out, "--scheduler", "tcp://127.0.0.1:1")
    assert (done.code, done.stdout) == (2, "")
    assert "needs --on dask" in done.stderr


class Failed:
    """A future of the cluster that holds an exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> str:
        raise self.error


def test_what_goes_wrong_on_the_cluster_is_told() -> None:
    from distributed import KilledWorker

    request = Request(ctx="4K", gpus="1xA100")
    lost = sweep_dask._outcome(Failed(KilledWorker("plan-1", None, 3)), 1, request)
    assert (lost.index, lost.status) == (1, "error")
    assert "4 workers of the cluster died over it" in (lost.reason or "")
    other = json.dumps(Task((), "0000", Settings()).to_json())
    with pytest.raises(OtherCatalogError, match="was started with 0000") as told:
        sweep_dask.plan_on_worker(0, request.model_dump_json(), other)
    for error in (told.value, ImportError("No module named 'planner'"), RuntimeError("gone")):
        with pytest.raises(sweep_dask.DaskError, match=str(error)[:20]):
            sweep_dask._outcome(Failed(error), 0, request)


class Cluster:
    """A scheduler and two workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.begin("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", self.file)
        until = time.monotonic() + 60
        while not self.file.exists():
            assert time.monotonic() < until, "no scheduler"
            time.sleep(0.05)
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", self.file)
        self.workers = [self.begin("worker", *options) for _ in range(2)]
        self.address = json.loads(self.file.read_text(encoding="utf-8"))["address"]

    def begin(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(self.folder)}
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=environment, **quiet)  # type: ignore[call-overload]
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    yield started
    started.end()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_no_point_and_doubles_none(
    plan: Plan, tmp_path: Path, cluster: Cluster
) -> None:
    out, journal, copy = (tmp_path / name for name in ("a.jsonl", "a.jsonl.journal", "copy"))
    command = [sys.executable, "-m", "cli", "sweep", *ASKED, "-o", str(out), "--on", "dask"]
    process = subprocess.Popen(
        [*command, "--scheduler", cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    until = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
        assert process.poll() is None
        assert time.monotonic() < until, "no point was finished"
        time.sleep(0.01)
    cluster.workers[0].send_signal(signal.SIGKILL)
    os.link(journal, copy)
    finished = copy.read_bytes().count(b"\n") - 1
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    assert 2 <= finished < 8
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert cluster.workers[1].poll() is None
    written = [json.loads(line)["index"] for line in copy.read_bytes().splitlines()[1:]]
    assert sorted(written) == list(range(8))
    rows = out.read_text(encoding="utf-8")
    assert plan("sweep", *ASKED, "-o", tmp_path / "here.jsonl").code == 0
    assert rows == (tmp_path / "here.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_cluster_can_be_started_for_one_sweep(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    command = [sys.executable, "-m", "cli", "sweep", *ASKED, "-o", str(out), "--on", "dask", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 8
