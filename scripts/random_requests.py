"""Random requests over every field, each in a process of its own: does the program keep its contract whatever is asked?

    python -m scripts.random_requests 0 2000              # seeds 0 to 1999, from the project's root
    python -m scripts.random_requests 0 2000 --skip 7     # every seventh

Every request must end in time with an exit code of the contract (0 planned, 2 bad input, 3 infeasible, 4 no plan in
time), without a traceback or an abort, with the document that goes with the code; every plan must verify. Whatever
doesn't is printed with the command that repeats it, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shlex
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cli
from catalog.load import open_catalog
from planner.commands.common import BAD_INPUT, INFEASIBLE, OUT_OF_TIME
from tests.requests import any_request, typed

CONTRACT = {0: ("optimal", "feasible"), BAD_INPUT: (), INFEASIBLE: ("infeasible",), OUT_OF_TIME: ()}
"""Exit code -> the statuses of the document on stdout; none: stdout is empty."""
NEVER_TOLD = ("Traceback (most recent call last)", "a fault of the program", "the plan doesn't hold")
"""What no request may bring to stderr."""
DIED = "a run of CP-SAT ended with"
"""A warning of plans: told, and survived, but a fault of a library all the same."""
TIMEOUT_S = 60.0
"""For a request and the check of its plan, on the clock [s]."""


@dataclass(frozen=True)
class Ended:
    """How a request ended."""

    seed: int
    command: str
    """That repeats it."""
    how: str
    """The exit code, or ``signal 6`` or ``timeout``."""
    seconds: float
    """On the clock."""
    problems: tuple[str, ...]


def ended(seed: int, time_limit: str = "20s", timeout_s: float = TIMEOUT_S) -> Ended:
    """Ask the request of a seed in a child process, verify its plan, and say what is wrong with how that ended."""
    command = f"{typed(any_request(seed))} --time-limit {time_limit} --format json"
    with tempfile.TemporaryDirectory() as folder:
        here, start = Path(folder), time.monotonic()
        how = _in_child(shlex.split(command)[1:], here, start + timeout_s)
        seconds = time.monotonic() - start
        return Ended(seed, command, how, seconds, tuple(_problems(how, here)))


def _in_child(arguments: list[str], folder: Path, ends_s: float) -> str:
    """Run a command and then `plan verify` on what it says; how the command ended."""
    with warnings.catch_warnings():
        # Threads of this process aren't in the child, which needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _live(arguments, folder)
    with contextlib.suppress(OSError):  # Both do it, and whoever is late finds it done, or the child gone.
        os.setpgid(child, child)
    watch = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        if not poll.poll(1e3 * max(ends_s - time.monotonic(), 0.0)):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
    finally:
        os.close(watch)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"signal {-code}" if code < 0 else str(code)


def _live(arguments: list[str], folder: Path) -> None:
    """The child's whole life."""
    code = 1
    try:
        os.setpgid(0, 0)
        code = _told(arguments, folder / "stdout", folder / "stderr")
        if code == 0:
            verified = _told(["verify", str(folder / "stdout")], folder / "verified", folder / "unverified")
            (folder / "verify").write_text(str(verified))
    finally:
        os._exit(code)


def _told(arguments: list[str], stdout: Path, stderr: Path) -> int:
    """The exit code of a command whose output goes to files, also what libraries write."""
    sys.stdout, sys.stderr = stdout.open("w", encoding="utf-8"), stderr.open("w", encoding="utf-8")
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    code = cli.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _problems(how: str, folder: Path) -> list[str]:
    """What is wrong with how a request ended."""
    stdout, stderr = (_text(folder / name) for name in ("stdout", "stderr"))
    if not how.isdigit() or int(how) not in CONTRACT:
        return [f"ended with {how}: {stderr.strip()[-300:]}"]
    problems = [f"stderr tells of {text!r}: {stderr.strip()[-300:]}" for text in NEVER_TOLD if text in stderr]
    if how == "0" and _text(folder / "verify") != "0":
        problems.append(f"plan verify: {_text(folder / 'unverified').strip()[-300:]}")
    statuses = CONTRACT[int(how)]
    if not statuses:
        problems += [f"ended with {how}, and prints {stdout[:80]!r}"] if stdout else []
        problems += [] if stderr.startswith("plan: ") else [f"ended with {how} without a word"]
        return problems
    try:
        document = json.loads(stdout)
    except ValueError:
        return [*problems, f"stdout is no JSON: {stdout[:80]!r}"]
    if document["status"] not in statuses:
        problems.append(f"ended with {how}, and its status is {document['status']}")
    return problems + [text for text in document["warnings"] if DIED in text]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def main() -> None:
    """Ask the requests of a range of seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?", default=2000)
    parser.add_argument("--skip", type=int, default=1, help="ask every so many [1]")
    parser.add_argument("--time-limit", default="20s", help="of each plan [20s]")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of each request, in seconds [60]")
    parser.add_argument("--slow", type=float, default=10.0, help="tell of what takes more seconds [10]")
    arguments = parser.parse_args()
    open_catalog()
    counts: Counter[str] = Counter()
    seconds, failed = [], 0
    for seed in range(arguments.first, arguments.last, arguments.skip):
        one = ended(seed, arguments.time_limit, arguments.timeout)
        counts[one.how] += 1
        seconds.append(one.seconds)
        failed += bool(one.problems)
        if one.problems or one.seconds > arguments.slow:
            why = "; ".join(one.problems) or "slow"
            print(f"{one.seed}: {one.seconds:.1f}s: {why}\n    {one.command}", flush=True)
    seconds.sort()
    told = ", ".join(f"{count} ended with {how}" for how, count in sorted(counts.items()))
    print(f"{len(seconds)} requests: {told}; {failed} failed")
    print(f"seconds: half in {seconds[len(seconds) // 2]:.1f}, 95 % in {seconds[len(seconds) * 95 // 100]:.1f}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
