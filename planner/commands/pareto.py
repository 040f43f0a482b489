"""``plan pareto``: the exact frontier of two or three objectives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands.common import INFEASIBLE, OUT_OF_TIME, CatalogDirs, TableFormat, open_overlays, print_json
from planner.commands.options import takes_request

if TYPE_CHECKING:
    from planner.search.frontier import Progress


@takes_request
def show_frontier(
    context: typer.Context,
    asked: dict[str, str | None],
    of: Annotated[str, typer.Option(help="Two or three of throughput, tpot, ttft, quality, cost, gpus.")],
    form: Annotated[TableFormat, typer.Option("--format", help="A table, or every point's whole plan.")] = (
        TableFormat.table
    ),
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the frontier: .png or .svg.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure if it exists.")] = False,
    resolution: Annotated[str, typer.Option(metavar="P", help="Points closer than this are one.")] = "0.1%",
    max_points: Annotated[
        int | None, typer.Option(min=1, help="List no more; the output says how far the others are.")
    ] = None,
    time_limit: Annotated[str, typer.Option(metavar="T", help="Stop then, and say what is undecided.")] = "10min",
    catalog: CatalogDirs = None,
) -> None:
    """Find every plan that no other beats in all of two or three objectives, each with its proof.

    The request's limits hold for every point; --objective can't be given. Exit 3 if no plan keeps the
    limits, 4 if time ran out before one was found.
    """
    from catalog.units import parse_quantity
    from planner.errors import InputError
    from planner.report.pareto import print_frontier
    from planner.request import read_request
    from planner.search.solver import read_settings
    from planner.whatif.pareto import pareto

    if figure is not None:
        from planner.report.canvas import check_target

        check_target(figure, force=force)
    try:
        closer = parse_quantity(resolution, "percent")
    except ValueError as error:
        raise InputError(f"--resolution: {error}") from None
    seconds = read_settings(time_limit, 1, 0).time_limit_s
    facts = open_overlays(context, catalog)
    with _progress() as progress:
        found = pareto(
            read_request(asked),
            of,
            facts,
            resolution=closer,
            max_points=max_points,
            time_limit_s=seconds,
            progress=progress,
        )
    if form is TableFormat.json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        print_frontier(found)
    if figure is not None and found.points:
        from planner.report.pareto_figure import draw_frontier

        draw_frontier(found, figure)
        typer.echo(f"figure: {figure}", err=True)
    if found.status in ("infeasible", "unknown"):
        raise typer.Exit(INFEASIBLE if found.status == "infeasible" else OUT_OF_TIME)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr: how much of the space is decided, and the plans found so far."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("deciding the space"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def told(done: int, points: int, plans: int) -> None:
            bar.update(task, completed=done, total=points, description=f"{plans} plans")

        yield told
