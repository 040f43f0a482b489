"""``plan accuracy``: predictions against measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import CatalogDirs, TableFormat, open_overlays, print_json


def show_accuracy(
    context: typer.Context,
    points: Annotated[
        Path | None,
        typer.Argument(metavar="POINTS.csv", help="Measured points; left out: the published ones of the catalog."),
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw predicted over measured times: .png or .svg.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure if it exists.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List every point, not only the worst.")] = False,
    catalog: CatalogDirs = None,
) -> None:
    """Compare predictions with measured end-to-end points (docs/accuracy.md has the columns)."""
    if figure is not None:
        from planner.report.canvas import check_target

        check_target(figure, force=force)
    from planner.measured.accuracy import BUILT_IN_POINTS, accuracy, document
    from planner.measured.points import read_points

    report = accuracy(open_overlays(context, catalog), read_points(points or BUILT_IN_POINTS))
    if figure is not None:
        from planner.report.accuracy import draw

        draw(report, figure)
        typer.echo(f"figure: {figure}", err=True)
    if form is TableFormat.json:
        print_json(document(report))
    else:
        from planner.report.accuracy import print_accuracy

        print_accuracy(report, every=every)
