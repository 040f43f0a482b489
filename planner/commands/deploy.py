"""``plan emit`` and ``plan import``: from a plan to what runs, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands.common import (
    INFEASIBLE,
    OUT_OF_TIME,
    CatalogDirs,
    TableFormat,
    open_overlays,
    print_json,
    read_input,
)
from planner.commands.options import takes_request

if TYPE_CHECKING:
    from catalog.load import Catalog
    from planner.decision import Decision
    from planner.emit.running import Running
    from planner.plan import Document
    from planner.request import Request

TARGETS = (
    "vllm, sglang, tensorrt-llm, lmdeploy, llama.cpp or transformers-kvpress; "
    "shell, systemd, compose, kubernetes, kserve or ray; lmcache"
)
_MOST_BYTES = 1 << 20
"""Of a file beside the one that is imported."""
EmitDirectory = Annotated[
    Path | None,
    typer.Option("--emit", metavar="DIR", help="Also write deployment files, into a new or empty directory."),
]
EmitCheckpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="ID|PATH",
        help="Of --emit: what to serve: a fine-tune of the model, or a checkpoint that is quantised as planned.",
    ),
]


def emit_plan(
    context: typer.Context,
    plan_file: Annotated[str, typer.Argument(metavar="PLAN.json", help="a plan as JSON; - is stdin")],
    target: Annotated[
        str,
        typer.Option(
            metavar="T[,T]",
            help=TARGETS,
        ),
    ],
    directory: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New or empty directory.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an earlier emission.")] = False,
    engine_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Another version of the engine than the catalog's.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="ID|PATH",
            help="What to serve: a fine-tune of the model, or a checkpoint that is quantised as planned.",
        ),
    ] = None,
    catalog: CatalogDirs = None,
) -> None:
    """Write deployment files of a plan: the engine's command and config, and manifests of platforms."""
    from planner.emit import emit, read_plan, write

    document = read_plan(read_input(plan_file), plan_file)
    facts = open_overlays(context, catalog)
    files = emit(document, target, facts, engine_version=engine_version, checkpoint=checkpoint)
    write(files, directory, force)
    for name in sorted(files):
        typer.echo(directory / name)
    _tell_notes(files)


def check_window(request: Request, catalog: Catalog) -> None:
    """Refuse a length for which no engine can be set, before anything is solved.

    Raises
    ------
    InputError
        If the request can't be understood, or its sessions outgrow the model by every known method.
    """
    from planner.emit.longer_window import change_for
    from planner.problem import resolve, workload_of

    work = workload_of(request.model_copy(update={"efficiency": "measured"}))  # sessions grow at run time
    change_for(resolve(request, catalog), work.end_tokens)


def check_emission(efficiency: str | None, directory: Path | None, checkpoint: str | None, force: bool) -> None:
    """Refuse what can't be emitted whatever the plan will be, before anything is solved.

    Raises
    ------
    InputError
        With every reason.
    """
    from planner.errors import InputError

    problems: list[str] = []
    if directory is None:
        if checkpoint is not None:
            problems.append(f"--checkpoint {checkpoint}: is for --emit DIR; add it")
    else:
        from planner.emit import check_directory

        if efficiency == "peak":
            problems.append(
                "--emit: a plan at theoretical peak leaves an engine no memory to run in; leave --efficiency out"
            )
        try:
            check_directory(directory, force, "--emit")
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def emit_document(
    document: Document,
    facts: Catalog,
    directory: Path,
    *,
    target: str | None,
    checkpoint: str | None,
    force: bool,
    running: Running | None = None,
) -> None:
    """Write a plan's deployment files, in the place of a running server if one is given, and say on stderr which."""
    from planner.emit import emit, usual_targets, write

    targets = target or usual_targets(document, facts, checkpoint, running)
    files = emit(document, targets, facts, checkpoint=checkpoint, running=running)
    write(files, directory, force, "--emit")
    for name in sorted(files):
        typer.echo(f"emitted: {directory / name}", err=True)
    _tell_notes(files)


def _tell_notes(files: Mapping[str, str]) -> None:
    told = json.loads(files["provenance.json"])
    for note in told["notes"]:
        typer.echo(note if note.startswith("WARNING") else f"note: {note}", err=True)
    for problem in told["not_written"]:
        typer.echo(f"NOT WRITTEN: {problem}", err=True)


@takes_request
def import_file(
    context: typer.Context,
    asked: dict[str, str | None],
    file: Annotated[str, typer.Argument(metavar="FILE", help="command, script, compose file or manifests; - is stdin")],
    instances: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Servers like the one of a command line [1].")
    ] = None,
    emit_to: EmitDirectory = None,
    checkpoint: EmitCheckpoint = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier emission of --emit.")] = False,
    time_limit: Annotated[str, typer.Option(metavar="T", help="For the plan.")] = "60s",
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """Price a running deployment, and say what the planner would change and what that buys."""
    from planner.pipeline import OutOfTimeError
    from planner.search.solver import read_settings
    from planner.whatif.advice import advise
    from planner.whatif.advice_text import advice_json, print_advice

    target = asked["target"]
    asked = {**asked, "target": target or ("shell" if emit_to else None)}
    check_emission(asked["efficiency"], emit_to, checkpoint, force)
    facts = open_overlays(context, catalog)
    settings = read_settings(time_limit, 2, 0)
    try:
        advice = advise(
            read_input(file),
            asked,
            facts,
            beside=_decision_beside(file),
            instances=instances,
            settings=settings,
            neighbour=_files_beside(file),
        )
    except OutOfTimeError as error:
        typer.echo(f"plan: {error}", err=True)
        raise typer.Exit(OUT_OF_TIME) from None
    if form is TableFormat.json:
        print_json(advice_json(advice))
    else:
        print_advice(advice)
    if advice.plan is not None and advice.plan.status == "infeasible":
        raise typer.Exit(INFEASIBLE)
    if emit_to is not None and advice.plan is not None:
        emit_document(
            advice.plan, facts, emit_to, target=target, checkpoint=checkpoint, force=force, running=advice.server
        )


def _files_beside(file: str) -> Callable[[str], str | None]:
    """Return what reads files that a file names (``.env``, settings), below its own folder; none beside stdin."""
    folder = Path(file).parent

    def text(path: str) -> str | None:
        if file == "-" or not path or "\0" in path or ".." in Path(path).parts:
            return None
        for place in (folder / path.lstrip("/"), folder / Path(path).name):
            try:
                if place.is_file() and place.stat().st_size <= _MOST_BYTES:
                    return place.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
        return None

    return text


def _decision_beside(file: str) -> Decision | None:
    """Return the decision of the ``plan.json`` with which ``plan emit`` wrote a file; None if there is none to read."""
    from planner.emit import read_plan
    from planner.errors import InputError

    if file == "-":
        return None
    for folder in (Path(file).parent, Path(file).parent.parent):
        path = folder / "plan.json"
        try:
            return read_plan(path.read_text(encoding="utf-8"), str(path)).decision
        except (OSError, UnicodeDecodeError, InputError):
            continue  # Not there, or somebody else's: the stamp in the file decides whether it is missed.
    return None
