"""CP-SAT in a process of its own: what ends that one doesn't end this one, and costs no plan that is known."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner import Request
from planner.pipeline import make_plan
from planner.problem import resolve
from planner.search import apart, compose
from planner.search.apart import DIED, Answer, solve_apart
from planner.search.cpsat import import_cp_model
from planner.search.solver import Settings, solve
from planner.space import open_space

CP = import_cp_model()
CATALOG = open_catalog()
ENDS_CP_SAT = Path(__file__).parents[1] / "golden" / "cpsat_abort.txt"
"""Of `plan --model llama-3.1-8b --ctx 50K --gpus 8xA100 --max-latency 50ms --techniques published` when CP-SAT still
broke ties: OR-Tools 9.12 to 9.14 abort over it, unless presolve is off; 9.15 solves it."""
SMALL = Request(ctx="50K", gpus="1xA100", model="llama-3.1-8b")


def read_model(path: Path) -> Any:
    """A model of a text file; 9.15 reads text by itself, and protobuf's own reader doesn't know its messages."""
    model = CP.CpModel()
    if hasattr(model.proto, "parse_text_format"):
        model.proto.parse_text_format(path.read_text())
    else:
        from google.protobuf import text_format

        text_format.Parse(path.read_text(), model.proto)
    return model


def cp_solver(**parameters: Any) -> Any:
    made = CP.CpSolver()
    made.parameters.max_time_in_seconds = 10.0
    for name, value in parameters.items():
        setattr(made.parameters, name, value)
    return made


def test_a_model_that_aborts_the_solver_ends_only_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    model = read_model(ENDS_CP_SAT)
    answer = solve_apart(cp_solver(num_workers=2), model)
    assert (answer.status, answer.death) in ((DIED, "signal 6"), ("OPTIMAL", ""))
    plain = solve_apart(cp_solver(cp_model_presolve=False), model)
    assert plain.status == "OPTIMAL"
    assert plain.objective == plain.bound == 149844468454718
    assert capfd.readouterr() == ("", "")


def small_model() -> tuple[Any, Any, Any]:
    model = CP.CpModel()
    first, second = model.new_bool_var("first"), model.new_bool_var("second")
    model.add(first + second == 1)
    model.minimize(3 * first + 2 * second)
    return model, first, second


def test_an_answer_holds_what_the_solver_found() -> None:
    model, first, second = small_model()
    answer = solve_apart(cp_solver(), model)
    assert (answer.status, answer.objective, answer.bound) == ("OPTIMAL", 2, 2)
    assert (answer.holds(first), answer.holds(second)) == (False, True)
    model.add(first + second == 2)
    assert solve_apart(cp_solver(), model) == Answer("INFEASIBLE")


def test_a_run_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "GRACE_S", 0.2)
    monkeypatch.setattr(apart, "_solved", lambda *_: time.sleep(60))
    began = time.monotonic()
    assert solve_apart(cp_solver(max_time_in_seconds=0.1), None) == Answer("UNKNOWN")
    assert time.monotonic() - began < 5


def test_the_child_ends_when_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_LOOK_S", 0.05)
    read, write = os.pipe()

    def hang(*_: object) -> None:
        os.write(write, f"{os.getpid()}\n".encode())
        time.sleep(60)

    monkeypatch.setattr(apart, "_solved", hang)
    asker = os.fork()
    if asker == 0:
        solve_apart(cp_solver(), None)
        os._exit(0)
    child = int(os.read(read, 100))
    os.kill(asker, signal.SIGKILL)
    os.waitpid(asker, 0)
    ends = time.monotonic() + 5
    while _lives(child) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("dies", [("main", "again"), ("main",)])
def test_a_plan_that_is_known_survives_the_solver(dies: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """CP-SAT dies at each run, or at the first only."""
    runs: list[int] = []

    def die(asked: Any, model: Any) -> Answer:
        runs.append(1)
        if len(runs) == 1 or "again" in dies:
            return Answer(DIED, death="signal 6")
        return solve_apart(asked, model)

    problem = resolve(SMALL, CATALOG)
    space = open_space(problem)
    whole = solve(problem, space, settings=Settings())
    monkeypatch.setattr(compose, "solve_apart", die)
    found = solve(problem, space, settings=Settings())
    assert (found.status, found.by) == ("optimal", "rules")
    assert found.value == pytest.approx(whole.value, rel=1e-9)
    assert found.fault == "a run of CP-SAT ended with signal 6; the cluster was composed another way"


def test_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "solve_apart", lambda *_: Answer(DIED, death="signal 6"))
    document = make_plan(SMALL)
    assert document.decision is not None
    assert any("CP-SAT ended with signal 6" in warning for warning in document.warnings)
