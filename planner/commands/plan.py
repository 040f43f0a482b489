"""``plan``, ``plan evaluate``, ``plan verify``: choose a decision, price one, check one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import (
    INFEASIBLE,
    OUT_OF_TIME,
    CatalogDirs,
    PlanForm,
    PlanFormat,
    open_overlays,
    print_document,
    read_input,
)
from planner.commands.deploy import (
    EmitCheckpoint,
    EmitDirectory,
    check_emission,
    check_window,
    emit_document,
)
from planner.commands.options import takes_request


@takes_request
def make(
    context: typer.Context,
    asked: dict[str, str | None],
    form: PlanForm = PlanFormat.table,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Also write the plan.")] = None,
    emit_to: EmitDirectory = None,
    checkpoint: EmitCheckpoint = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file of -o; replace an earlier emission of --emit.")
    ] = False,
    solver: Annotated[
        str, typer.Option(help="cpsat; exhaustive: price every cluster of one kind of replicas.")
    ] = "cpsat",
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
    from planner.files import document_text
    from planner.pipeline import OutOfTimeError, make_plan, planned
    from planner.request import read_request
    from planner.search.solver import read_settings

    if output is not None and output.exists() and not force:
        raise InputError(f"-o {output}: exists; choose another name or add --force")
    if solver not in ("cpsat", "exhaustive"):
        raise InputError(f"--solver {solver!r}: unknown; use cpsat or exhaustive")
    settings = read_settings(time_limit, workers, seed)
    facts = open_overlays(context, catalog)
    target = asked["target"]
    request = read_request({**asked, "target": target or ("shell" if emit_to else None)})
    check_emission(request.efficiency, emit_to, checkpoint, force)
    if emit_to is not None:
        check_window(request, facts)
    try:
        document = make_plan(request, facts, solver=solver, settings=settings)
    except OutOfTimeError as error:
        typer.echo(f"plan: {error}", err=True)
        raise typer.Exit(OUT_OF_TIME) from None
    if output is not None:
        output.write_text(document_text(document), encoding="utf-8")
        typer.echo(f"plan: {output}", err=True)
    print_document(document, form)
    if document.status == "infeasible":
        raise typer.Exit(INFEASIBLE)
    if emit_to is not None:
        emit_document(document, facts, emit_to, target=target, checkpoint=checkpoint, force=force)
    if form is PlanFormat.table and gains:
        for line in planned(document, facts, settings):
            typer.echo(line)


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
