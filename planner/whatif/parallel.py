"""Plan many requests at once, in processes that stay warm.

Each process plans one request after the other with one solver worker. One that dies takes nothing
with it: its request is given to a new process, and becomes an error if that happens again and again.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from catalog.load import Catalog, open_catalog
from planner.errors import InputError, PlannerError
from planner.request import Request
from planner.search.solver import Settings
from planner.whatif.outcome import Outcome, Task, from_json, to_line

ATTEMPTS = 3
"""So many processes may be ended from outside over one request before it counts as failed."""
FROM_OUTSIDE = (-9, -15)
"""Exit codes of processes that somebody else ended: the system for want of memory, or a person. Any other
death is the request's own, and comes again."""


_Process = subprocess.Popen[bytes]


class WorkerError(PlannerError):
    """A process that plans can't be started."""


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_parallel(
    requests: Sequence[Request],
    jobs: int | None = None,
    *,
    catalog: Catalog | None = None,
    settings: Settings | None = None,
    explained: bool = True,
) -> Iterator[Outcome]:
    """Plan requests in parallel and yield each outcome as it is finished.

    Parameters
    ----------
    requests
        What to plan.
    jobs
        Processes; None: one per core. Never more than requests.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    settings
        Of the solver at each request; None: one solver worker.
    explained
        Whether requests without a plan are told which limits clash.

    Yields
    ------
    Outcome
        Once per request, in the order in which they are finished; ``index`` is its place in ``requests``.
        What can't be planned is an outcome too.

    Raises
    ------
    InputError
        If ``jobs`` is less than 1.
    WorkerError
        If no process can be started, or it sees other facts than ``catalog``.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    task = Task.of(catalog or open_catalog(), settings, explained=explained)
    return _run(requests, min(jobs or usable_cores(), len(requests)), task)


def _run(requests: Sequence[Request], jobs: int, task: Task) -> Iterator[Outcome]:
    pool = _Pool(requests, task)
    try:
        pool.start(jobs)
        for _ in requests:
            yield pool.next()
    finally:
        pool.stop()


class _Pool:
    """Threads that each own one process and hand it requests from one queue."""

    def __init__(self, requests: Sequence[Request], task: Task) -> None:
        self.requests = requests
        self.task = task
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.finished: queue.SimpleQueue[Outcome | Exception] = queue.SimpleQueue()
        self.stopped = False
        self.lock = threading.Lock()
        self.running: set[_Process] = set()
        self.threads: list[threading.Thread] = []
        for index in range(len(requests)):
            self.waiting.put(index)

    def start(self, jobs: int) -> None:
        self.threads = [threading.Thread(target=self._serve, name=f"plan-{n}", daemon=True) for n in range(jobs)]
        for thread in self.threads:
            thread.start()

    def next(self) -> Outcome:
        """Wait for the next outcome."""
        found = self.finished.get()
        if isinstance(found, Exception):
            raise found
        return found

    def stop(self) -> None:
        """End every process, also those that still plan."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.kill()
        for thread in self.threads:
            thread.join()

    def _serve(self) -> None:
        """Plan until no request waits: the life of one thread."""
        process = None
        try:
            while not self.stopped:
                try:
                    index = self.waiting.get_nowait()
                except queue.Empty:
                    return
                outcome, process = self._plan(index, process)
                self.finished.put(outcome)
        except Exception as error:  # Told in the thread that waits.
            if not self.stopped:
                self.finished.put(error)
        finally:
            if process is not None:
                self._end(process)

    def _plan(self, index: int, process: _Process | None) -> tuple[Outcome, _Process | None]:
        """Plan one request; returns the process too, which may be another one by then."""
        request = self.requests[index]
        question = {"index": index, "request": request.model_dump(mode="json", exclude_none=True)}
        code = ended = 0
        while ended < ATTEMPTS and (not ended or code in FROM_OUTSIDE):
            process = process or self._begin()
            answer = _ask(process, question)
            if answer is not None:
                return from_json(answer), process
            code = self._end(process)
            process = None
            ended += 1
            if self.stopped:
                raise WorkerError("stopped")
        return Outcome(index, request, "error", reason=_why_dead(code, ended)), None

    def _begin(self) -> _Process:
        """Start a process and wait until it is warm."""
        with self.lock:
            if self.stopped:
                raise WorkerError("stopped")
            process = start_worker()
            self.running.add(process)
        answer = _ask(process, self.task.to_json())
        if answer is None or "ready" not in answer:
            code = self._end(process)
            raise WorkerError((answer or {}).get("refused") or f"a process that plans ended at once with {_exit(code)}")
        return process

    def _end(self, process: _Process) -> int:
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # What was to be flushed has no reader any more.
        code = process.wait()
        with self.lock:
            self.running.discard(process)
        return code


def start_worker() -> _Process:
    """Start one process that plans, with this process's import path.

    It has a process group of its own: Ctrl-C reaches only whoever started it, who then ends it.
    """
    environment = {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "planner.whatif.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        process_group=0 if os.name == "posix" else None,
    )


def _ask(process: _Process, question: dict[str, Any]) -> dict[str, Any] | None:
    """Write a line and read a line; None where the process is gone."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    try:
        process.stdin.write(to_line(question))
        process.stdin.flush()
        line = process.stdout.readline()
    except (BrokenPipeError, ValueError):
        return None
    if not line.endswith(b"\n"):
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def _why_dead(code: int, ended: int) -> str:
    """Why a request has no outcome, and what to do."""
    if code in FROM_OUTSIDE:
        return (
            f"{ended} processes were ended from outside over it, the last with {_exit(code)}; "
            "if memory was short, plan it alone or with fewer --jobs"
        )
    return f"a fault of the program: the process that planned it ended with {_exit(code)}; the other points are planned"


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
