"""Run CP-SAT in a child process, so that its death costs one answer and not the plan.

CP-SAT ends a process that finds itself in a state that it holds impossible (SIGABRT), and the operating
system ends one that takes too much memory. Only the child ends then; whoever asked is told.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any, NoReturn

GRACE_S = 5.0
"""Beyond CP-SAT's own time limit, before the child is ended [s]."""
DIED = "DIED"
"""The status of an answer that never came."""
_LOOK_S = 0.5
"""How often the child looks whether somebody still waits [s]."""


@dataclass(frozen=True)
class Answer:
    """What a run of CP-SAT came to."""

    status: str
    """As CP-SAT names it, or `DIED`."""
    objective: float = 0.0
    bound: float = 0.0
    values: tuple[int, ...] = ()
    """Of the model's variables, by their index."""
    death: str = ""
    """How the child ended where it died."""

    @property
    def found(self) -> bool:
        """Whether there is a solution."""
        return self.status in ("OPTIMAL", "FEASIBLE")

    def holds(self, literal: Any) -> bool:
        """Whether a Boolean variable is true in the solution."""
        return bool(self.values[literal.index])


def solve_apart(solver: Any, model: Any) -> Answer:
    """Solve a model in a child process; in this one where the system has no fork.

    Parameters
    ----------
    solver
        A ``CpSolver`` with its parameters.
    model
        A ``CpModel``.
    """
    if not hasattr(os, "fork"):
        return Answer(**_solved(solver, model))
    read, write = os.pipe()
    asker = os.getpid()
    with warnings.catch_warnings():
        # Threads of this process aren't in the child, which needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _answer(solver, model, write, asker)
    os.close(write)
    try:
        text = _read(read, time.monotonic() + solver.parameters.max_time_in_seconds + GRACE_S)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(read)
    if text is None:
        _end(child)
        return Answer("UNKNOWN")
    _, state = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(state)
    if code != 0:
        return Answer(DIED, death=f"signal {-code}" if code < 0 else f"exit code {code}")
    return Answer(**json.loads(text))


def _solved(solver: Any, model: Any) -> dict[str, Any]:
    """Fields of an answer."""
    status = solver.status_name(solver.solve(model))
    if status not in ("OPTIMAL", "FEASIBLE"):
        return {"status": status}
    values = tuple(solver.response_proto.solution)
    return {
        "status": status,
        "objective": solver.objective_value,
        "bound": solver.best_objective_bound,
        "values": values,
    }


def _answer(solver: Any, model: Any, write: int, asker: int) -> NoReturn:
    """The child's whole life; it runs none of its parent's code at its end, and says nothing."""
    try:
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        threading.Thread(target=_leave_with, args=(asker,), daemon=True).start()
        with os.fdopen(write, "w") as stream:
            json.dump(_solved(solver, model), stream)
        os._exit(0)
    finally:
        os._exit(1)


def _leave_with(asker: int) -> None:
    """End this process once nobody waits for it."""
    while os.getppid() == asker:
        time.sleep(_LOOK_S)
    os._exit(1)


def _read(read: int, ends_s: float) -> str | None:
    """Everything that is written until the other end is closed; None where that takes too long."""
    parts: list[bytes] = []
    waiting = select.poll()
    waiting.register(read, select.POLLIN)
    while True:
        if not waiting.poll(1e3 * max(ends_s - time.monotonic(), 0.0)):
            return None
        part = os.read(read, 1 << 20)
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
