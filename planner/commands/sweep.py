"""``plan sweep``: plan every point of a grid, in parallel, resumable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.commands.common import BAD_INPUT, INFEASIBLE, OUT_OF_TIME, CatalogDirs, open_overlays, read_input
from planner.commands.options import takes_request

if TYPE_CHECKING:
    from planner.whatif.outcome import Outcome
    from planner.whatif.sweep import Runner
    from planner.whatif.sweep_grid import Grid

INTERRUPTED = 130
MOST_WARNINGS = 10


@takes_request
def sweep_grid(
    context: typer.Context,
    asked: dict[str, str | None],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Results: .csv, .parquet or .jsonl, a row per point.")
    ],
    points: Annotated[
        str | None, typer.Option(metavar="FILE", help="Points: CSV, JSON lines or YAML; options apply to each.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes [one per core].")] = None,
    on: Annotated[
        str, typer.Option(metavar="ENGINE", help="local processes, or dask: a cluster started here, or --scheduler's.")
    ] = "local",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler that runs: tcp://10.0.0.1:8786.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it, over the first numeric field: .png or .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of -o and --figure.")] = False,
    time_limit: Annotated[str, typer.Option(metavar="T", help="For the proof at each point.")] = "60s",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    catalog: CatalogDirs = None,
) -> None:
    """Plan every combination of comma lists: --ctx 4K,32K --gpus 8xA100,8xH100 -o grid.csv.

    Semicolons part values that hold commas, as those of --techniques may. A run that was interrupted
    goes on where it was when the same command is given again. Exit codes: 2 if a point has an error,
    else 4 if one ran out of time, else 3 if none has a plan, else 0.
    """
    from planner.report.progress import with_progress
    from planner.report.sweep import draw_sweep, print_sweep
    from planner.search.solver import read_settings
    from planner.whatif.sweep import sweep
    from planner.whatif.sweep_check import unusable_points
    from planner.whatif.sweep_grid import make_grid, read_axes, read_points
    from planner.whatif.sweep_rows import columns_of, row_of, write_rows

    check_outputs(output, figure, force)
    run = runner_of(on, scheduler)
    settings = read_settings(time_limit, 1, seed)
    grid = make_grid(read_axes(asked), read_points(read_input(points), points) if points else (), points or "")
    facts = open_overlays(context, catalog)
    unusable = unusable_points(grid.requests, facts)
    for line in _announced(grid, unusable):
        typer.echo(line, err=True)
    journal = output.with_name(f"{output.name}.journal")
    outcomes = sweep(grid.requests, facts, jobs=jobs, settings=settings, journal=journal, run=run)
    found: dict[int, dict[str, Any]] = {}
    told = {index for indexes in unusable.values() for index in indexes}

    def note(outcome: Outcome) -> str | None:
        return None if outcome.index in told else _failure(outcome, grid)

    try:
        for outcome in with_progress(outcomes, len(grid.requests), "points", note):
            found[outcome.index] = row_of(outcome, grid.fields)
    except KeyboardInterrupt:
        typer.echo(_interrupted(journal, len(found), len(grid.requests)), err=True)
        raise typer.Exit(INTERRUPTED) from None
    rows = [found[index] for index in range(len(grid.requests))]
    if figure is not None:
        draw_sweep(rows, grid.fields, figure)
    write_rows(output, rows, columns_of(rows, grid.fields), force=force)
    journal.unlink(missing_ok=True)
    print_sweep(rows, grid.fields)
    counts = Counter(str(row["status"]) for row in rows)
    typer.echo(f"plan: {output}: {', '.join(f'{count} {status}' for status, count in counts.items())}", err=True)
    if code := exit_code(counts):
        raise typer.Exit(code)


def check_outputs(output: Path, figure: Path | None, force: bool) -> None:
    """Refuse files that can't be written, all problems at once, before anything is planned."""
    from planner.errors import InputError
    from planner.report.canvas import check_target
    from planner.whatif.sweep_rows import check_output

    problems = []
    for check, path in ((check_output, output), (check_target, figure)):
        try:
            if path is not None:
                check(path, force=force)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def runner_of(on: str, scheduler: str | None) -> Runner:
    """Where the points of a sweep are planned.

    Raises
    ------
    InputError
        For an unknown engine, one that isn't installed, or an address for local processes.
    """
    from planner.errors import InputError
    from planner.whatif.parallel import run_parallel

    if on == "local" and scheduler is None:
        return run_parallel
    if on == "local":
        raise InputError(f"--scheduler {scheduler}: needs --on dask")
    if on != "dask":
        raise InputError(f"--on {on!r}: unknown; use local or dask")
    from planner.whatif.sweep_dask import check_dask, run_on_dask

    check_dask()
    return partial(run_on_dask, address=scheduler)


def exit_code(counts: Mapping[str, int]) -> int:
    """The exit code of a sweep whose points ended so; see ``plan sweep --help``.

    >>> exit_code({"optimal": 3, "infeasible": 1}), exit_code({"infeasible": 4}), exit_code({"optimal": 9, "error": 1})
    (0, 3, 2)
    """
    if counts.get("error"):
        return BAD_INPUT
    if counts.get("out of time"):
        return OUT_OF_TIME
    return 0 if counts.get("optimal") or counts.get("feasible") else INFEASIBLE


def _announced(grid: Grid, unusable: Mapping[str, list[int]]) -> list[str]:
    """What is known before the run, in lines."""
    over = f" over {' x '.join(grid.fields)}" if grid.fields else ""
    repeated = f"; {grid.repeated} more are the same as others and left out" if grid.repeated else ""
    count = len(grid.requests)
    lines = [f"plan: {count} point{'s' if count != 1 else ''}{over}{repeated}"]
    for problem, points in list(unusable.items())[:MOST_WARNINGS]:
        lines.append(f"plan: {len(points)} of them can't be planned: {problem}")
    return lines


def _failure(outcome: Outcome, grid: Grid) -> str | None:
    """What to say at once about a point that failed."""
    from planner.report.sweep import point_text

    if outcome.status not in ("error", "out of time"):
        return None
    values = {field: getattr(outcome.request, field) for field in grid.fields}
    return f"plan: {point_text(values, grid.fields)}: {outcome.reason}"


def _interrupted(journal: Path, done: int, total: int) -> str:
    if not done:
        journal.unlink(missing_ok=True)
        return "plan: interrupted before any point was finished"
    return f"plan: interrupted: {journal} keeps {done} of {total} points; the same command goes on from there"
