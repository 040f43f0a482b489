"""``plan paper``: the source paper next to this model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import CatalogDirs, TableFormat, open_overlays, print_json


def paper(
    context: typer.Context,
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the four metrics over context length: .png or .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure if it exists.")] = False,
    catalog: CatalogDirs = None,
) -> None:
    """Lay the source paper's analysis (arXiv 2405.08944) next to the values that it prints."""
    if figure is not None:
        from planner.report.canvas import check_target

        check_target(figure, force=force)
    from planner.paper.analysis import analyse, curves, document

    facts = open_overlays(context, catalog)
    analysis = analyse(facts)
    if figure is not None:
        from planner.report.figure import draw

        draw(curves(facts), analysis, figure)
        typer.echo(f"figure: {figure}", err=True)
    if form is TableFormat.json:
        print_json(document(analysis))
    else:
        from planner.report.paper import print_analysis

        print_analysis(analysis)
