"""A process that plans: one line of JSON in, one line of JSON out, until its input ends.

    python -m planner.whatif.worker

The first line is the task, answered when catalog and imports are warm; every further line is a
request with its index. A process of its own, and not a fork: OR-Tools and BLAS hold threads and
locks that a fork doesn't survive, and a fresh interpreter never runs its caller's main module again.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from planner.errors import PlannerError
from planner.request import Request
from planner.whatif.outcome import Task, open_task_catalog, plan_point, to_json, to_line


def main() -> None:
    """Serve until the input ends, which it also does when whoever started this process is killed."""
    answers = _own_output()
    questions = sys.stdin.buffer
    try:
        task = Task.from_json(json.loads(questions.readline()))
        catalog = open_task_catalog(task)
    except (PlannerError, ValueError) as error:
        _write(answers, {"refused": str(error)})
        return
    _write(answers, {"ready": os.getpid()})
    for line in _lines(questions):
        asked = json.loads(line)
        request = Request.model_validate(asked["request"])
        outcome = plan_point(asked["index"], request, catalog, task.settings, explained=task.explained)
        _write(answers, to_json(outcome))


def _lines(questions: BinaryIO) -> Iterator[bytes]:
    """Each line as it comes; when there are no more, the process ends, whatever it is planning."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in questions:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _own_output() -> BinaryIO:
    """The real stdout, kept from whatever a library prints, which goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _write(answers: BinaryIO, content: dict[str, Any]) -> None:
    try:
        answers.write(to_line(content))
        answers.flush()
    except BrokenPipeError:
        os._exit(0)  # Nobody waits for the answer any more.


if __name__ == "__main__":
    main()
