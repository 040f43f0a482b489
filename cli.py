"""The command line: which verb is which function. No arithmetic here.

Each verb is one small function in ``planner/commands`` that imports what it needs when it runs, so
that ``plan catalog`` doesn't wait for OR-Tools. Data goes to stdout, talk to stderr. Exit codes: 0
done; 2 usage or bad input; 3 infeasible, explained; 4 no plan in time; 70 a fault of the program.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from planner.commands.accuracy import show_accuracy
from planner.commands.calibrate import calibrate_machine
from planner.commands.catalog import catalog_app
from planner.commands.common import BAD_INPUT, FAULT, CatalogDirs
from planner.commands.compare import compare_scenarios
from planner.commands.deploy import emit_plan, import_file
from planner.commands.explain import explain
from planner.commands.paper import paper
from planner.commands.pareto import show_frontier
from planner.commands.parity import show_parity
from planner.commands.plan import evaluate_decision, make, verify_plan
from planner.commands.sweep import sweep_grid

_INTERRUPTED = 130
_PIPE_CLOSED = 141
_COLLECTED_EVERY = 50_000
"""Objects made between two searches for cycles, of which there are few."""
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
app.add_typer(catalog_app, name="catalog")
verbs: dict[str, Callable[..., None]] = {
    "make": make,
    "evaluate": evaluate_decision,
    "verify": verify_plan,
    "compare": compare_scenarios,
    "pareto": show_frontier,
    "parity": show_parity,
    "explain": explain,
    "emit": emit_plan,
    "import": import_file,
    "accuracy": show_accuracy,
    "calibrate": calibrate_machine,
    "paper": paper,
    "sweep": sweep_grid,
}
for name, verb in verbs.items():
    app.command(name)(verb)


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
    """Run one command and return its exit code; a user never sees a traceback."""
    from catalog.errors import CatalogError, UnknownEntryError
    from planner.errors import PlannerError

    if arguments is None:  # The program itself, which ends with this: what it makes, it keeps.
        gc.set_threshold(_COLLECTED_EVERY)
        atexit.register(gc.freeze)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(name_verb(given))
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
    except Exception as error:  # Always a defect: the user can't mend it, and gets what helps to.
        from planner.commands.fault import fault_line

        typer.echo(f"plan: {fault_line(given, error)}", err=True)
        return FAULT
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        app(args=arguments, prog_name="plan")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
