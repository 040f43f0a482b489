"""``plan parity``: is a long context as cheap as a short one?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import INFEASIBLE, CatalogDirs, TableFormat, open_overlays, print_json
from planner.commands.options import takes_request


@takes_request
def show_parity(
    context: typer.Context,
    asked: dict[str, str | None],
    contexts: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Contexts to plan [4K,32K,128K,256K,512K,1M and on to the model's window]."),
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format", help="Tables, or everything with every plan.")] = (
        TableFormat.table
    ),
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw cost over context: .png or .svg.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure if it exists.")] = False,
    details: Annotated[
        bool,
        typer.Option("--details/--no-details", help="Also where the ratio passes 1.1, 2, 10, and what would move it."),
    ] = True,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes [one per core].")] = None,
    catalog: CatalogDirs = None,
) -> None:
    """Price an interaction over context length against 4K: uncompressed, deployable and published techniques.

    --ctx, --objective and --techniques can't be given: they are what is compared. Exit 3 if nothing can be planned.
    """
    from planner.report.parity import print_details, print_table
    from planner.request import read_request
    from planner.whatif.parity import Study, as_given, read_contexts

    if figure is not None:
        from planner.report.canvas import check_target

        check_target(figure, force=force)
    wanted = None if contexts is None else read_contexts(contexts)
    request = read_request(as_given(asked))
    study = Study.of(request, wanted, open_overlays(context, catalog), jobs, _told)
    document = study.grid()
    if form is TableFormat.table:
        print_table(document)
        sys.stdout.flush()
    if details and document.planned:
        document = study.details(document)
        if form is TableFormat.table:
            print_details(document)
    if form is TableFormat.json:
        print_json(document.model_dump(mode="json", by_alias=True))
    if figure is not None and document.planned:
        from planner.report.parity_figure import draw_parity

        draw_parity(document, figure)
        typer.echo(f"figure: {figure}", err=True)
    if not document.planned:
        raise typer.Exit(INFEASIBLE)


def _told(done: int, plans: int, what: str) -> None:
    """One line on stderr that counts, or a line at the end where nobody looks."""
    if sys.stderr.isatty():
        end = "\n" if done == plans else ""
        sys.stderr.write(f"\rplan: {what}, {done} of {plans} plans{end}")
        sys.stderr.flush()
    elif done == plans:
        typer.echo(f"plan: {what}, {done} plans", err=True)
