"""``plan compare``: what if?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands.common import (
    BAD_INPUT,
    FAULT,
    INFEASIBLE,
    OUT_OF_TIME,
    CatalogDirs,
    TableFormat,
    open_overlays,
    print_json,
    progress,
    read_input,
)
from planner.commands.options import takes_request

if TYPE_CHECKING:
    from planner.plan import Document
    from planner.whatif.scenario import Scenario


@takes_request
def compare_scenarios(
    context: typer.Context,
    asked: dict[str, str | None],
    plans: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLAN.json]...", help="Plans to compare as they are; the first is the base."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[NAME:]FIELD=VALUE,...",
            help="A variant: fields of the request that differ from the base; repeatable. none takes a limit away.",
        ),
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="YAML with base (fields of a request) and scenarios (named overrides)."),
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format", help="Tables to read, or everything.")] = TableFormat.table,
    time_limit: Annotated[str, typer.Option(metavar="T", help="For each proof.")] = "60s",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    gains: Annotated[
        bool, typer.Option("--gains/--no-gains", help="Solve again with a unit more of each limit that binds.")
    ] = True,
    catalog: CatalogDirs = None,
) -> None:
    """Compare scenarios side by side, and tell each difference by its causes.

    The base is the request of the options, of a file of scenarios, or the first plan; each --set,
    each named scenario and each further plan is a variant. A variant that is infeasible or can't be
    understood is shown with its explanation. Exit 2 where one can't be understood, 3 where nothing
    has a plan, 4 where that may be a matter of time.
    """
    from planner.search.solver import read_settings
    from planner.whatif.compare import compare_scenarios as compare

    given = {name: value for name, value in asked.items() if value is not None}
    base, variants = _columns(given, plans or [], sets or [], scenarios)
    settings = read_settings(time_limit, workers, seed)
    with progress("comparing", lines=True) as talk:
        found = compare(base, variants, open_overlays(context, catalog), settings, talk, gains=gains)
    if form is TableFormat.json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        from planner.report.compare import print_comparison

        print_comparison(found)
    columns = (found.base, *found.variants)
    if any(column.status == "error" for column in columns):
        raise typer.Exit(FAULT)
    if any(column.status == "bad input" for column in columns):
        raise typer.Exit(BAD_INPUT)
    if all(column.plan is None or column.plan.decision is None for column in columns):
        late = any(column.status == "out of time" for column in columns)
        raise typer.Exit(OUT_OF_TIME if late else INFEASIBLE)


def _columns(
    given: dict[str, str], plans: list[str], sets: list[str], file: str | None
) -> tuple[Scenario | tuple[str, Document], list[Scenario | tuple[str, Document]]]:
    """The base and its variants, as options and files give them."""
    from planner.errors import InputError
    from planner.files import read_document
    from planner.whatif.scenario import read_scenarios, read_sets, scenario, with_unique_names

    if plans and given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{names}: not beside plan files, whose requests are in them; use --set for what differs")
    documents = [(_short(name, plans), read_document(read_input(name), name)) for name in plans]
    values: dict[str, object] = dict(documents[0][1].request) if documents else dict(given)
    named: list[Scenario] = []
    if file is not None:
        values, named = read_scenarios(read_input(file), file, values)
    named += read_sets(sets, values)
    if len(documents) + len(named) < (2 if documents else 1):
        raise InputError("nothing to compare with; add --set field=value, --scenarios FILE, or a second PLAN.json")
    variants: list[Scenario | tuple[str, Document]] = [*documents[1:], *with_unique_names(named)]
    return (documents[0] if documents else scenario("base", values, {})), variants


def _short(name: str, plans: list[str]) -> str:
    """A plan's column: its file's name without the folder, where that tells the files apart."""
    names = [Path(other).name for other in plans]
    short = Path(name).name
    return "stdin" if name == "-" else short if names.count(short) == 1 else name
