"""What every verb shares: its catalog, its input, its output, its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from catalog.load import Catalog
    from planner.plan import Document

BAD_INPUT, INFEASIBLE, OUT_OF_TIME, FAULT = 2, 3, 4, 70

CatalogDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--catalog",
        metavar="DIR",
        help="Overlay the catalog with this directory; repeatable, later ones win. "
        "$PLAN_CATALOG replaces the per-user overlay.",
    ),
]


class TableFormat(StrEnum):
    """How `plan catalog list` and `plan paper` print."""

    table = "table"
    json = "json"


class PlanFormat(StrEnum):
    """How plans are printed."""

    table = "table"
    json = "json"
    yaml = "yaml"


PlanForm = Annotated[PlanFormat, typer.Option("--format", help="A table to read, or the whole document.")]


def open_overlays(context: typer.Context, catalog: list[Path] | None) -> Catalog:
    """Return the catalog under the overlays named before and after the verb, in this order."""
    from catalog.load import open_catalog

    return open_catalog([*context.find_root().obj, *(catalog or [])])


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def read_input(path: str) -> str:
    """Return the text of a file, or of stdin for ``-``."""
    from planner.errors import InputError

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def print_document(document: Document, form: PlanFormat) -> None:
    """Print a document as a table to read, or whole."""
    from planner.files import document_json

    if form is PlanFormat.json:
        print_json(document_json(document))
    elif form is PlanFormat.yaml:
        import yaml

        typer.echo(yaml.safe_dump(document_json(document), sort_keys=False), nl=False)
    else:
        from planner.report.plan import print_plan

        print_plan(document)


@contextmanager
def progress(about: str, *, lines: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done: the latest line where somebody looks.

    Elsewhere once what it is about; ``lines``: also each line.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        typer.echo(about, err=True)
        yield lambda text: typer.echo(text, err=True) if lines else None
        return
    with console.status(about) as status:
        yield lambda text: status.update(text)
