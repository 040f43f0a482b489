"""The whole analysis: printed values compared, every table, and the curves of the figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from catalog.load import Catalog
from planner.paper import tables
from planner.paper.cases import CASES, Study
from planner.paper.comparison import Comparison, compare
from planner.paper.facts import Conventions, conventions
from planner.paper.levers import levers
from planner.paper.tables import Table
from planner.paper.view import Metrics, metrics

PAPER = "Y. Fu 2024, arXiv 2405.08944"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Analysis:
    """What ``plan paper`` shows."""

    conventions: Conventions
    comparisons: tuple[Comparison, ...]
    tables: tuple[Table, ...]
    cases: dict[str, float]
    """Every case by its id, in the unit of `planner.paper.cases.CASES`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The four metrics over context length on one replica."""

    gpus: int
    tokens: tuple[int, ...]
    metrics: tuple[Metrics, ...]


def analyse(catalog: Catalog) -> Analysis:
    """The paper's analysis from the facts of a catalog."""
    study = Study(catalog)
    made = (
        tables.running_example(study),
        tables.tensor_parallelism(study),
        tables.attention_kinds(study),
        tables.hardware(study),
        tables.models(study),
        levers(study),
        tables.session_throughput(study),
        tables.parity(study),
    )
    cases = {name: case.compute(study) for name, case in CASES.items()}
    return Analysis(conventions(), compare(study), made, cases)


def curves(catalog: Catalog, gpus: tuple[int, ...] = (1, 8), least: int = 1_000, most: int = 1_000_000) -> list[Curve]:
    """The example's four metrics over context length, at twenty lengths per decade.

    Parameters
    ----------
    catalog
        Facts.
    gpus
        Sizes of the replica, split by tensor parallelism.
    least, most
        Shortest and longest context [tokens].
    """
    study = Study(catalog)
    lengths = []
    step = 0
    while (tokens := round(least * 10 ** (step / 20))) <= most:
        lengths.append(tokens)
        step += 1
    return [Curve(n, tuple(lengths), tuple(metrics(study.base, tokens, n) for tokens in lengths)) for n in gpus]


def document(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain values, for ``--format json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": PAPER,
        "conventions": analysis.conventions.model_dump(mode="json", exclude_none=True),
        "printed": [_printed(row) for row in analysis.comparisons],
        "cases": {
            name: {"label": CASES[name].label, "unit": CASES[name].unit, "value": value}
            for name, value in analysis.cases.items()
        },
        "tables": {table.id: _table(table) for table in analysis.tables},
    }


def _printed(row: Comparison) -> dict[str, Any]:
    return {
        "id": row.printed.id,
        "what": row.printed.what,
        "text": row.printed.text,
        "value": row.printed.value,
        "provenance": row.printed.source.provenance,
        "source": row.printed.source.ref,
        "closes": row.closes,
        "note": row.printed.note,
        "computed": [asdict(reading) for reading in row.readings],
    }


def _table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "title": table.title,
        "origin": table.origin,
        "columns": [asdict(column) for column in table.columns],
        "rows": [dict(zip(keys, row, strict=True)) for row in table.rows],
        "notes": list(table.notes),
    }
