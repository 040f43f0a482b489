"""Planning many requests at once: each exactly once, equal to the plan, whatever happens to a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catalog.load import open_catalog
from planner import Request, make_plan
from planner.errors import InputError
from planner.search.solver import Settings
from planner.whatif import parallel
from planner.whatif.outcome import OtherCatalogError, Task, from_json, open_task_catalog, plan_point, to_json
from planner.whatif.parallel import ATTEMPTS, WorkerError, run_parallel

SMALL = {"model": "qwen3-0.6b", "gpus": "1xA100", "efficiency": "peak"}

FAKE = """
import json, os, sys
print(json.dumps({"ready": 1}), flush=True)
sys.stdin.readline()
for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"]["ctx"] == 666:
        os.kill(os.getpid(), 9)
    print(json.dumps({**asked, "status": "error", "document": None, "reason": "-", "cpu_s": 0.0}), flush=True)
"""


def begin(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_every_request_is_planned_once_and_as_in_this_process() -> None:
    requests = [Request(ctx=ctx, **SMALL) for ctx in ("4K", "8K")] + [Request(ctx="4K", gpus="1xA100", model="nope")]
    outcomes = sorted(run_parallel(requests, jobs=2), key=lambda outcome: outcome.index)
    assert [outcome.request for outcome in outcomes] == requests
    for outcome, request in zip(outcomes[:2], requests, strict=False):
        assert outcome.document == make_plan(request)
        assert outcome.cpu_s > 0
    assert outcomes[2].status == "error"
    assert "--model: unknown model 'nope'" in (outcomes[2].reason or "")


def test_a_process_that_dies_takes_no_other_request_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(1)
        return begin(FAKE)

    monkeypatch.setattr(parallel, "start_worker", start)
    requests = [Request(ctx=ctx, gpus="1xA100") for ctx in (1000, 666, 2000, 3000, 4000)]
    outcomes = list(run_parallel(requests, jobs=2))
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2, 3, 4]
    dead = next(outcome for outcome in outcomes if outcome.index == 1)
    assert f"{ATTEMPTS} processes were ended from outside over it, the last with signal 9" in (dead.reason or "")
    assert all(outcome.reason == "-" for outcome in outcomes if outcome is not dead)
    assert ATTEMPTS <= len(started) <= ATTEMPTS + 2


def test_a_request_that_ends_its_process_by_itself_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "start_worker", lambda: begin(FAKE.replace("os.kill(os.getpid(), 9)", "os.abort()")))
    dead, other = sorted(
        run_parallel([Request(ctx=ctx, gpus="1xA100") for ctx in (666, 2000)], jobs=1), key=lambda o: o.index
    )
    assert dead.reason is not None
    assert "fault of the program: the process that planned it ended with signal 6" in dead.reason
    assert "memory" not in dead.reason
    assert other.reason == "-"


def test_whoever_stops_reading_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []

    def start() -> subprocess.Popen[bytes]:
        processes.append(begin(FAKE + "    import time; time.sleep(600)"))
        return processes[-1]

    monkeypatch.setattr(parallel, "start_worker", start)
    outcomes = run_parallel([Request(ctx=ctx, gpus="1xA100") for ctx in (1000, 2000, 3000, 4000)], jobs=2)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert [process.poll() for process in processes] == [-9] * len(processes)


def test_processes_that_cannot_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "start_worker", lambda: begin("raise SystemExit(7)"))
    with pytest.raises(WorkerError, match="exit code 7"):
        list(run_parallel([Request(ctx="4K", gpus="1xA100")], jobs=1))


def test_no_jobs_is_bad_input() -> None:
    with pytest.raises(InputError, match="--jobs 0: must be at least 1"):
        run_parallel([Request(ctx="4K", gpus="1xA100")], jobs=0)


def test_other_facts_are_refused() -> None:
    with pytest.raises(OtherCatalogError, match="was started with 0000"):
        open_task_catalog(Task((), "0000", Settings()))
    with pytest.raises(OtherCatalogError, match="isn't on this machine"):
        open_task_catalog(Task(("/nowhere/at/all",), "0000", Settings()))


def test_an_outcome_travels_unchanged() -> None:
    outcome = plan_point(3, Request(ctx="4K", **SMALL), open_catalog(), Settings(workers=1))
    assert from_json(to_json(outcome)) == outcome


def test_a_fault_of_the_program_costs_one_point_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("planner.pipeline.make_plan", broken)
    outcome = plan_point(0, Request(ctx="4K", **SMALL), open_catalog(), Settings())
    assert (outcome.status, outcome.reason) == ("error", "fault of the program, ZeroDivisionError: division by zero")
