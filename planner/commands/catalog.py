"""``plan catalog``: the facts, listed, shown and checked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import CatalogDirs, TableFormat, open_overlays, print_json

catalog_app = typer.Typer(
    help="The facts: list, show and check them.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="hardware, nodes, models, checkpoints, techniques, rules, engines, prices or measurements"
    ),
]


class EntryFormat(StrEnum):
    """How `plan catalog show` prints."""

    yaml = "yaml"
    json = "json"


@catalog_app.command("list")
def catalog_list(
    context: typer.Context,
    kind: Kind,
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """List the entries of one kind with their key facts."""
    from catalog.summary import canonical_kind, summaries

    kind = canonical_kind(kind)
    rows = summaries(open_overlays(context, catalog), kind)
    if form is TableFormat.json:
        print_json(rows)
    else:
        from planner.report.catalog import entry_table

        typer.echo(entry_table(kind, rows))


@catalog_app.command("show")
def catalog_show(
    context: typer.Context,
    kind: Kind,
    name: Annotated[str, typer.Argument(metavar="ID", help="id or alias")],
    form: Annotated[EntryFormat, typer.Option("--format")] = EntryFormat.yaml,
    catalog: CatalogDirs = None,
) -> None:
    """Show one entry: the file as written, where it is, and what follows from it in SI units."""
    from catalog.summary import describe_entry

    entry = describe_entry(open_overlays(context, catalog), kind, name)
    if form is EntryFormat.json:
        print_json(entry)
    else:
        from planner.report.catalog import entry_yaml

        typer.echo(entry_yaml(entry), nl=False)


@catalog_app.command("validate")
def catalog_validate(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="an overlay; none: the catalog in use")
    ] = None,
    catalog: CatalogDirs = None,
) -> None:
    """Check every entry, and everything that entries say of each other. Exit 2 if there are problems."""
    from catalog.validate import validate

    overlays = [] if directory is None else [directory]
    count = validate(open_overlays(context, [*(catalog or []), *overlays]))
    typer.echo(f"{count} entries, no problems", err=True)


@catalog_app.command("schema")
def catalog_schema(kind: Kind) -> None:
    """Print the JSON Schema of one kind of entry, for editors."""
    from catalog.summary import json_schema

    print_json(json_schema(kind))


@catalog_app.command("stale")
def catalog_stale(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=0, help="Age from which a check is stale.")] = 90,
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """List entries that nobody has checked for so many days, oldest first."""
    import datetime as dt

    from catalog.summary import stale

    rows = stale(open_overlays(context, catalog), days, dt.date.today())
    if form is TableFormat.json:
        print_json(rows)
    else:
        from planner.report.catalog import stale_table

        typer.echo(stale_table(rows, days))
