"""``plan calibrate``: measure this machine, and let plans use it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.commands.common import BAD_INPUT, CatalogDirs, TableFormat, open_overlays, print_json

_INTERRUPTED = 130


class DeviceKind(StrEnum):
    """What to measure."""

    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"


def calibrate_machine(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Overlay to write; left out: the per-user one."),
    ] = None,
    device: Annotated[
        DeviceKind, typer.Option(help="auto: the first GPU (CUDA or ROCm), else the CPU.")
    ] = DeviceKind.auto,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="ID", help="GPU of the catalog that this is; left out: by its name and memory."),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Write a hardware entry of its own from what is measured.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="E[,E]",
            help="Engines whose kernels the measured ones stand for; left out: vllm, and for gemm and memory all.",
        ),
    ] = "",
    only: Annotated[
        str,
        typer.Option(
            metavar="OP[,OP]",
            help="gemm, attention, prefill-attention, decode-attention, memory, copies, all-reduce; left out: all.",
        ),
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and smaller points: minutes, with wider errors.")
    ] = False,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--restart", help="Demand an interrupted run, or begin anew; left out: go on if there is one."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Measure a busy or throttled device, use unstable times, replace others' entries."
        ),
    ] = False,
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.table,
    catalog: CatalogDirs = None,
) -> None:
    """Measure this machine's kernels, memory and links, and write an overlay of the catalog that plans then use.

    Every finished point is kept at once: run the same command again after an interruption.
    """
    from catalog.load import user_directory
    from planner.calibrate import backend
    from planner.calibrate.calibrate import calibrate
    from planner.calibrate.report import Shown, document, print_calibration
    from planner.calibrate.run import Options
    from planner.calibrate.sweeps import operations_named

    options = Options(operations_named(only), quick=quick, force=force)
    facts = open_overlays(context, catalog)
    directory = output or user_directory()
    engines = tuple(dict.fromkeys(filter(None, (name.strip() for name in engine.split(",")))))
    opened = backend.open_backend(device.value)
    try:
        with Shown() as shown:
            found = calibrate(
                opened,
                facts,
                directory,
                options,
                gpu=gpu,
                new=new,
                engines=engines or None,
                resume=resume,
                watch=shown.watch,
            )
    except KeyboardInterrupt:
        typer.echo("plan: stopped; finished points are kept, run the same command again to go on", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        opened.close()
    if form is TableFormat.json:
        print_json(document(found))
    else:
        print_calibration(found)
        used = "plans use it from now on" if output is None else f"use it with: plan --catalog {directory} ..."
        typer.echo(used)
    for problem in found.problems:
        typer.echo(f"plan: {problem}", err=True)
    if found.problems:
        raise typer.Exit(BAD_INPUT)
