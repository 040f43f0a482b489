"""The command line: parse, call, print. No arithmetic here.

Each verb is one small function that imports what it needs when it runs, so that ``plan catalog``
doesn't wait for OR-Tools. Data goes to stdout, talk to stderr. Exit codes: 0 done; 2 usage or bad
input; 3 infeasible, explained; 4 no plan in time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.options import takes_request

if TYPE_CHECKING:
    from catalog.load import Catalog
    from planner.plan import Document

BAD_INPUT, INFEASIBLE, OUT_OF_TIME = 2, 3, 4
_INTERRUPTED = 130
_PIPE_CLOSED = 141
_OF_NO_VERB = {"-h", "--help", "--version"}

app = typer.Typer(
    name="plan",
    help="Plan deployments of long-context language models. `plan --ctx 1M --gpus 8xA100` makes a plan.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalog_app = typer.Typer(
    help="The facts: list, show and check them.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(catalog_app, name="catalog")

CatalogDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--catalog",
        metavar="DIR",
        help="Overlay the catalog with this directory; repeatable, later ones win. "
        "$PLAN_CATALOG replaces the per-user overlay.",
    ),
]
Kind = Annotated[
    str,
    typer.Argument(metavar="KIND", help="hardware, nodes, models, techniques, rules, engines, prices or measurements"),
]


class TableFormat(StrEnum):
    """How `plan catalog list` and `plan paper` print."""

    table = "table"
    json = "json"


class EntryFormat(StrEnum):
    """How `plan catalog show` prints."""

    yaml = "yaml"
    json = "json"


def _version(wanted: bool) -> None:
    if wanted:
        from planner import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    catalog: CatalogDirs = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    context.obj = catalog or []


def open_overlays(context: typer.Context, catalog: list[Path] | None) -> Catalog:
    """Return the catalog under the overlays named before and after the verb, in this order."""
    from catalog.load import open_catalog

    return open_catalog([*context.find_root().obj, *(catalog or [])])


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


# --------------------------------------------------------------------------- plan catalog


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


# --------------------------------------------------------------------------- plan paper


@app.command("paper")
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
        from planner.report.figure import check_target

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


# --------------------------------------------------------------------------- plan, plan evaluate, plan verify


class PlanFormat(StrEnum):
    """How plans are printed."""

    table = "table"
    json = "json"
    yaml = "yaml"


PlanForm = Annotated[PlanFormat, typer.Option("--format", help="A table to read, or the whole document.")]


@app.command("make")
@takes_request
def make(
    context: typer.Context,
    asked: dict[str, str | None],
    form: PlanForm = PlanFormat.table,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Also write the plan.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of -o.")] = False,
    solver: Annotated[str, typer.Option(help="cpsat, or exhaustive: price every decision.")] = "cpsat",
    time_limit: Annotated[str, typer.Option(metavar="T", help="For the proof; then the best plan so far.")] = "60s",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    gains: Annotated[
        bool, typer.Option("--gains/--no-gains", help="Say what the next unit of each limit buys.")
    ] = True,
    catalog: CatalogDirs = None,
) -> None:
    """Choose the best deployment, prove it, and explain it. The verb may be left out."""
    from planner.errors import InputError
    from planner.pipeline import OutOfTimeError, make_plan, planned
    from planner.request import read_request
    from planner.solve.solver import read_settings

    if output is not None and output.exists() and not force:
        raise InputError(f"-o {output}: exists; choose another name or add --force")
    if solver not in ("cpsat", "exhaustive"):
        raise InputError(f"--solver {solver!r}: unknown; use cpsat or exhaustive")
    settings = read_settings(time_limit, workers, seed)
    facts = open_overlays(context, catalog)
    try:
        document = make_plan(read_request(asked), facts, solver=solver, settings=settings)
    except OutOfTimeError as error:
        typer.echo(f"plan: {error}", err=True)
        raise typer.Exit(OUT_OF_TIME) from None
    print_document(document, form)
    if output is not None:
        output.write_text(document.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"plan: {output}", err=True)
    if document.status == "infeasible":
        raise typer.Exit(INFEASIBLE)
    if form is PlanFormat.table and gains:
        for line in planned(document, facts, settings):
            typer.echo(line)


@app.command("evaluate")
@takes_request
def evaluate_decision(
    context: typer.Context,
    asked: dict[str, str | None],
    decision: Annotated[
        str | None, typer.Option(metavar="FILE", help="YAML or JSON of a decision or a plan; - is stdin.")
    ] = None,
    request: Annotated[str | None, typer.Option(metavar="FILE", help="YAML or JSON of a request.")] = None,
    form: PlanForm = PlanFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """Price a decision of your own; what it leaves out is completed, and said."""
    from planner.files import read_decision, read_request_file
    from planner.pipeline import evaluate
    from planner.request import read_request

    chosen, planned_for = read_decision(read_input(decision), decision) if decision else (None, {})
    wanted = {**planned_for, **(read_request_file(read_input(request), request) if request else {})}
    wanted.update({name: value for name, value in asked.items() if value is not None})
    facts = open_overlays(context, catalog)
    print_document(evaluate(read_request(wanted), chosen, facts), form)


@app.command("verify")
def verify_plan(
    context: typer.Context,
    plan_file: Annotated[str, typer.Argument(metavar="PLAN.json", help="a plan as JSON; - is stdin")],
    catalog: CatalogDirs = None,
) -> None:
    """Price a plan's decision again and check every limit and every number that it claims."""
    from planner.files import read_document
    from planner.verify import verify_document

    facts = open_overlays(context, catalog)
    evaluation = verify_document(read_document(read_input(plan_file), plan_file), facts)
    typer.echo(f"verified: {len(evaluation.constraints)} limits hold, and every number is what the cost model says")


def print_document(document: Document, form: PlanFormat) -> None:
    """Print a document as a table to read, or whole."""
    if form is PlanFormat.json:
        print_json(document.model_dump(mode="json", by_alias=True))
    elif form is PlanFormat.yaml:
        import yaml

        typer.echo(yaml.safe_dump(document.model_dump(mode="json", by_alias=True), sort_keys=False), nl=False)
    else:
        from planner.report.plan import print_plan

        print_plan(document)


# --------------------------------------------------------------------------- plan emit, plan import


def read_input(path: str) -> str:
    """Return the text of a file, or of stdin for ``-``."""
    from planner.errors import InputError

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


@app.command("emit")
def emit_plan(
    context: typer.Context,
    plan_file: Annotated[str, typer.Argument(metavar="PLAN.json", help="a plan as JSON; - is stdin")],
    target: Annotated[
        str,
        typer.Option(
            metavar="T[,T]",
            help="vllm, sglang, tensorrt-llm, lmdeploy, llama.cpp or transformers-kvpress; "
            "shell, compose, kubernetes, kserve or ray; lmcache",
        ),
    ],
    directory: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New or empty directory.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an earlier emission.")] = False,
    engine_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Another version of the engine than the catalog's.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="ID|PATH", help="A quantised checkpoint to serve instead of making one.")
    ] = None,
    catalog: CatalogDirs = None,
) -> None:
    """Write deployment files of a plan: the engine's command and config, and manifests of platforms."""
    from planner.emit import emit, read_plan, write

    text = read_input(plan_file)
    document = read_plan(text, plan_file)
    facts = open_overlays(context, catalog)
    files = emit(document, target, facts, engine_version=engine_version, checkpoint=checkpoint)
    write({**files, "plan.json": text}, directory, force)
    for name in sorted(files):
        typer.echo(directory / name)


@app.command("import")
def import_file(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="vLLM command, compose file or manifests; - is stdin")],
    gpus: Annotated[str, typer.Option(help="GPUs that it runs on: 8xA100, 2x8xH100, a node or a cluster file.")],
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """Read a running vLLM deployment into a decision, and say what it leaves open."""
    from planner.importing import import_text, summary

    imported = import_text(read_input(file), gpus, open_overlays(context, catalog))
    if form is TableFormat.json:
        print_json(imported.as_json())
    else:
        typer.echo(summary(imported))


# --------------------------------------------------------------------------- plan accuracy


@app.command("accuracy")
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
        from planner.report.figure import check_target

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


# --------------------------------------------------------------------------- the way in


def name_verb(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the verb that they mean: options without a verb make a plan.

    >>> name_verb(["--ctx", "1M", "--gpus", "8xA100"])
    ['make', '--ctx', '1M', '--gpus', '8xA100']
    >>> name_verb(["--catalog", "mine", "catalog", "list", "models"])
    ['--catalog', 'mine', 'catalog', 'list', 'models']
    """
    first = 0
    while first < len(arguments) and arguments[first].partition("=")[0] == "--catalog":
        first += 1 if "=" in arguments[first] else 2
    rest = list(arguments[first:])
    if rest and rest[0].startswith("-") and rest[0] not in _OF_NO_VERB:
        rest.insert(0, "make")
    return [*arguments[:first], *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a user never sees a traceback for bad input."""
    from catalog.errors import CatalogError, UnknownEntryError
    from planner.errors import PlannerError

    try:
        code = _run(name_verb(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except (PlannerError, CatalogError, UnknownEntryError) as error:
        typer.echo(f"plan: {error}", err=True)
        return BAD_INPUT
    except BrokenPipeError:
        # Whoever read our output has left, e.g. `plan ... | head`: be quiet, also when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"plan: {place}{error.strerror or error}", err=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        app(args=arguments, prog_name="plan")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
