"""`plan sweep`: every point of a grid once, as `plan` plans it, through failures and interruptions."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from planner import Request, make_plan, sweep
from planner.errors import InputError
from planner.search.solver import Settings
from planner.whatif.outcome import Outcome

ROOT = Path(__file__).parents[2]
Plan = Callable[..., Any]
SMALL = ("--model", "qwen3-0.6b", "--efficiency", "peak")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part) if isinstance(document, list) else part]
    if path.endswith(".servers"):
        return " ".join(f"{one['server']}:{one['replicas']}" for one in document)
    return " ".join(document) if isinstance(document, list) else document


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_points(journal: Path, count: int) -> None:
    until = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > count):
        assert time.monotonic() < until, "no point was finished"
        time.sleep(0.02)


def children_of(process: subprocess.Popen[str]) -> list[str]:
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [child for thread in threads for child in (thread / "children").read_text(encoding="ascii").split()]


def refuse_all(requests: Sequence[Request], *_: Any, **__: Any) -> Iterator[Outcome]:
    """Stand in for processes that plan, where only what becomes of their outcomes matters."""
    return (Outcome(index, request, "error", reason="-") for index, request in enumerate(requests))


def test_a_grid_becomes_rows_whose_numbers_are_the_plans(plan: Plan, tmp_path: Path) -> None:
    out, figure = tmp_path / "grid.csv", tmp_path / "grid.svg"
    asked = ("--ctx", "4K,8K", "--gpus", "1xA100,8xNOPE", *SMALL, "-o", out, "--figure", figure)
    done = plan("sweep", *asked, "--jobs", "1")
    assert done.code == 2
    assert "2 of them can't be planned: --gpus '8xNOPE': unknown GPU" in done.stderr
    assert f"plan: {out}: 2 optimal, 2 error" in done.stderr
    assert "4 of 4 points" in done.stderr
    rows = read_csv(out)
    assert [(row["ctx"], row["gpus"], row["status"]) for row in rows] == [
        ("4000", "1xA100", "optimal"),
        ("4000", "8xNOPE", "error"),
        ("8000", "1xA100", "optimal"),
        ("8000", "8xNOPE", "error"),
    ]
    assert "unknown GPU" in rows[1]["reason"]
    document = make_plan(Request(ctx="8K", gpus="1xA100", model="qwen3-0.6b", efficiency="peak")).model_dump(
        mode="json"
    )
    compared = 0
    for path, text in rows[2].items():
        if path.startswith(("objective.", "decision.", "metrics.")):
            value = at(document, path)
            assert text == ("" if value is None else str(value).lower() if isinstance(value, bool) else str(value)), (
                path
            )
            compared += 1
    assert compared > 60
    assert "interactions/h" in done.stdout
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.csv", "grid.svg"]
    again = plan("sweep", *asked)
    assert (again.code, again.stdout) == (2, "")
    assert f"-o {out}: exists; choose another name or add --force" in again.stderr
    assert f"--figure {figure}: exists" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--ctx 4Q,8K,1Z --gpus 1xA100 -o a.csv", ["--ctx: '4Q'", "--ctx: '1Z'"]),
        ("--ctx 4K,,8K --gpus 1xA100 -o a.csv", ["--ctx: '4K,,8K' holds an empty value"]),
        ("--ctx 4K,8K --gpus 1xNOPE -o a.csv", ["unknown GPU or node 'NOPE'"]),
        ("--ctx 4K,8K --gpus 1xA100 --techniques zzz -o a.csv", ["--techniques: unknown technique 'zzz'"]),
        ("--ctx 4K,8K --gpus 1xA100 -o a.txt --figure a.gif", ["-o a.txt: unknown format", "--figure a.gif: unknown"]),
        ("--ctx 4K,8K --gpus 1xA100 -o no/a.csv", ["-o no/a.csv: the directory no doesn't exist"]),
        ("--ctx 4K,8K -o a.csv", ["--gpus: missing"]),
        ("--ctx 4K --points points.csv -o a.csv", ["--ctx: given in points.csv too"]),
        ("--gpus 1xA100 --points odd.csv -o a.csv", ["odd.csv: ctxx: unknown field; did you mean ctx?"]),
        ("--gpus 1xA100 --points none.yaml -o a.csv", ["none.yaml: can't be read"]),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_runs(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, told: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("points.csv").write_text("ctx,gpus\n4K,1xA100\n", encoding="utf-8")
    Path("odd.csv").write_text("ctxx\n4K\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    done = plan("sweep", *arguments.split())
    assert (done.code, done.stdout) == (2, "")
    for part in told:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_journal_of_another_sweep_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    out, journal = tmp_path / "a.jsonl", tmp_path / "a.jsonl.journal"
    asked = [Request(ctx=ctx, gpus="1xNOPE") for ctx in ("4K", "8K")]
    assert [outcome.status for outcome in sweep(asked, journal=journal, run=refuse_all)] == ["error", "error"]
    kept = journal.read_bytes()
    done = plan("sweep", "--ctx", "4K", "--gpus", "1xA100", *SMALL, "-o", out, "--force")
    assert done.code == 2
    assert "the journal of another sweep: other points (2, here 1)" in done.stderr
    assert "delete the journal and lose its 2 finished points" in done.stderr
    assert journal.read_bytes() == kept
    assert not out.exists()
    journal.write_text("something else\n", encoding="utf-8")
    done = plan("sweep", "--ctx", "4K", "--gpus", "1xA100", *SMALL, "-o", out)
    assert "isn't the journal of a sweep" in done.stderr
    journal.write_bytes(kept.splitlines(keepends=True)[0])  # Another sweep's that keeps nothing makes room.
    assert [outcome.index for outcome in sweep(asked[:1], journal=journal, run=refuse_all)] == [0]


def test_a_journal_gives_back_what_is_finished_and_takes_the_rest(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    asked = [Request(ctx=ctx, gpus="1xNOPE") for ctx in ("4K", "8K", "16K")]
    first = sweep(asked, journal=journal, run=refuse_all)
    kept = next(first)
    with pytest.raises(InputError, match="another process runs this sweep"):
        sweep(asked, journal=journal)
    first.close()  # type: ignore[attr-defined]
    with journal.open("ab") as file:
        file.write(b'{"index":1,"request":{"ct')  # What a process leaves that is killed while it writes.
    planned: list[int] = []

    def run(requests: Sequence[Request], *_: Any, **__: Any) -> Iterator[Outcome]:
        planned.extend(request.ctx for request in requests)
        return refuse_all(requests)

    outcomes = list(sweep(asked, journal=journal, run=run))
    assert outcomes[0] == kept
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
    assert planned == [8000, 16000] == [request.ctx for request in asked if request != kept.request]
    assert [json.loads(line).get("index") for line in journal.read_bytes().splitlines()[1:]] == [
        outcome.index for outcome in outcomes
    ]
    with pytest.raises(InputError, match="other settings"):
        sweep(asked, journal=journal, settings=Settings(time_limit_s=5, workers=1))
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = b"".join([*lines[:3], b"\0" * 40 + b"\n"])  # Whole in length only, after a power failure.
    journal.write_bytes(torn)
    assert [outcome.index for outcome in sweep(asked, journal=journal, run=run)] == [0, 1, 2]
    assert planned == [8000, 16000, 16000]
    doubled = journal.read_bytes() + lines[1]  # As no run writes it, but two copies put together would.
    journal.write_bytes(doubled)
    assert [outcome.index for outcome in sweep(asked, journal=journal, run=run)] == [0, 1, 2]
    assert planned == [8000, 16000, 16000]  # Nothing was missing, so nothing was started.
    journal.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    with pytest.raises(InputError, match="line 2 is damaged"):
        sweep(asked, journal=journal)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on_where_it_was(plan: Plan, tmp_path: Path, how: signal.Signals) -> None:
    out, journal = tmp_path / "grid.csv", tmp_path / "grid.csv.journal"
    asked = ("--ctx", "4K,8K,16K,32K", "--gpus", "1xA100,2xA100,1xH100", *SMALL, "-o", out, "--jobs", "2")
    process = start("sweep", *asked)
    wait_for_points(journal, 3)
    workers = children_of(process)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until, "a process plans on for nobody"
        time.sleep(0.05)
    assert not out.exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "of 12 points; the same command goes on from there" in told
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    finished = [json.loads(line)["index"] for line in kept.splitlines()[1:]]
    assert 3 <= len(finished) < 12
    copy = tmp_path / "copy"
    os.link(journal, copy)  # The journal's name goes with the sweep's end; its content stays to be read.
    done = plan("sweep", *asked)
    assert done.code == 0, done.stderr
    assert copy.read_bytes().startswith(kept)
    written = [json.loads(line)["index"] for line in copy.read_bytes().splitlines()[1:]]
    assert sorted(written) == list(range(12))
    assert not journal.exists()
    rows = read_csv(out)
    assert len(rows) == len({(row["ctx"], row["gpus"]) for row in rows}) == 12
    for index in (finished[0], 11):
        request = Request(ctx=int(rows[index]["ctx"]), gpus=rows[index]["gpus"], model="qwen3-0.6b", efficiency="peak")
        document = make_plan(request)
        assert document.metrics is not None
        assert rows[index]["metrics.interactions_per_hour"] == repr(document.metrics.interactions_per_hour)


@pytest.mark.slow
def test_a_killed_worker_loses_no_point(tmp_path: Path) -> None:
    out = tmp_path / "grid.jsonl"
    asked = ("--ctx", "4K,8K,16K,32K", "--gpus", "1xA100,2xA100", *SMALL, "-o", out, "--jobs", "2")
    process = start("sweep", *asked)
    wait_for_points(tmp_path / "grid.jsonl.journal", 1)
    os.kill(int(children_of(process)[0]), signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["status"] for row in rows] == ["optimal"] * 8
