"""How far a long run is, on stderr: a bar where somebody looks, now and then a line where nobody does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import typer

T = TypeVar("T")

LINE_EVERY_S = 30.0
"""Between two lines where stderr is no terminal [s]."""


def with_progress(items: Iterable[T], total: int, label: str, note: Callable[[T], str | None]) -> Iterator[T]:
    """Pass items through and show how many of ``total`` there were.

    Parameters
    ----------
    items
        What is being waited for.
    total
        How many there will be.
    label
        What they are, in the plural.
    note
        Something to say about an item, above the bar; None: nothing.
    """
    return _bar(items, total, label, note) if sys.stderr.isatty() else _lines(items, total, label, note)


def _bar(items: Iterable[T], total: int, label: str, note: Callable[[T], str | None]) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True, highlight=False), transient=True, refresh_per_second=4
    ) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            told = note(item)
            if told:
                progress.console.print(told, markup=False)
            progress.advance(task)
            yield item


def _lines(items: Iterable[T], total: int, label: str, note: Callable[[T], str | None]) -> Iterator[T]:
    told_at = time.monotonic()
    for count, item in enumerate(items, 1):
        told = note(item)
        if told:
            typer.echo(told, err=True)
        if time.monotonic() - told_at >= LINE_EVERY_S or count == total:
            told_at = time.monotonic()
            typer.echo(f"plan: {count} of {total} {label}", err=True)
        yield item
