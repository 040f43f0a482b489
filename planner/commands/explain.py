"""``plan explain``: why this plan?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import (
    INFEASIBLE,
    CatalogDirs,
    PlanFormat,
    TableFormat,
    open_overlays,
    print_document,
    print_json,
    progress,
    read_input,
)


def explain(
    context: typer.Context,
    plan_file: Annotated[str, typer.Argument(metavar="PLAN.json", help="a plan as JSON; - is stdin")],
    form: Annotated[TableFormat, typer.Option("--format", help="Tables to read, or everything.")] = TableFormat.table,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the best plan over each limit: .png or .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure if it exists.")] = False,
    time_limit: Annotated[
        str, typer.Option(metavar="T", help="For all questions together; what isn't decided by then is said.")
    ] = "60s",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    catalog: CatalogDirs = None,
) -> None:
    """Say why a plan is as it is: its choices, its limits, the roofline, the quality budget, each dimension.

    Choices and limits are explained by solving again without them.
    """
    if figure is not None:
        from planner.report.canvas import check_target

        check_target(figure, force=force)
    from planner.files import read_document
    from planner.search.solver import read_settings
    from planner.whatif.explain_plan import explain_plan

    settings = read_settings(time_limit, workers, seed)
    document = read_document(read_input(plan_file), plan_file)
    if document.decision is None:
        print_document(document, PlanFormat.json if form is TableFormat.json else PlanFormat.table)
        raise typer.Exit(INFEASIBLE)
    with progress(f"explaining {plan_file}, for up to {time_limit}") as talk:
        told = explain_plan(
            document,
            open_overlays(context, catalog),
            seconds=settings.time_limit_s,
            settings=settings,
            talk=talk,
        )
    if figure is not None:
        from planner.report.curves import draw_curves

        drawn = draw_curves(told, figure)
        typer.echo(f"figure: {figure if drawn else 'no limit has a curve to draw'}", err=True)
    if form is TableFormat.json:
        print_json(told.model_dump(mode="json", by_alias=True))
    else:
        from planner.report.explain import print_explanation

        print_explanation(told)
