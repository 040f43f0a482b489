"""What is known of the source paper: its conventions, its models, and the values that it prints.

The full text couldn't be read, so every value carries its provenance; see docs/paper.md.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from catalog.load import built_in_directory
from catalog.read_yaml import parse_yaml
from catalog.schema import BytesPerSecond, Fact, Provenance, Source
from catalog.units import parse_quantity

_Seconds = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "seconds"))]


class Conventions(Fact):
    """What the paper computes with, where it differs from the catalog's own entries."""

    model: str
    hardware: str
    hbm_bandwidth: BytesPerSecond
    pcie: BytesPerSecond
    attention_coefficient: Annotated[float, Field(ge=0)]
    """FLOPs of attention per token, layer, unit of width and context token: exact causal is 2."""
    output_tokens: Annotated[int, Field(ge=1)]
    reading_time: _Seconds
    sources: tuple[Source, ...]


class Origin(Fact):
    """Where a value was read, or that it wasn't."""

    provenance: Provenance
    ref: str
    note: str | None = None


class Shape(Fact):
    """What a model caches and attends with, layer by layer alike, and its experts."""

    layers: Annotated[int, Field(ge=1)]
    query_heads: Annotated[int, Field(ge=1)]
    kv_heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    experts: int = 0
    """Routed experts per layer."""
    active_experts: int = 0
    active_params: float | None = None
    """Parameters that a token passes through; None: all."""


class ComparedModel(Fact):
    """A model of the comparison: of the catalog, or by its shape."""

    id: str
    name: str
    catalog: str | None = None
    shape: Shape | None = None
    params: Annotated[float, Field(gt=0)] | None = None
    """Rounded size; None: the exact count of the catalog's config."""
    source: Origin | None = None
    """Of the shape; a model of the catalog has its own."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ComparedModel:
        if (self.catalog is None) == (self.shape is None):
            raise ValueError("give either catalog or shape")
        if self.shape is not None and (self.params is None or self.source is None):
            raise ValueError("a shape needs params and source")
        return self


class Printed(Fact):
    """A value that the paper prints, and the computations that it is compared with."""

    id: str
    what: str
    text: str
    """As printed."""
    value: float | None = None
    """As a number in the unit of the cases; None where only words are printed."""
    cases: tuple[str, ...] = ()
    """Ids of `planner.paper.cases.CASES` that are compared: the paper's own convention first, then other readings."""
    beside: tuple[str, ...] = ()
    """Ids of cases that say more about the value, but aren't it."""
    source: Origin
    note: str | None = None


class Mark(Fact):
    """What the paper says a change does to the four metrics."""

    change: str
    marks: str
    """Names of metrics with + (better) or - (worse)."""
    source: Origin


def _read(name: str) -> dict[str, Any]:
    path = built_in_directory() / "paper" / f"{name}.yaml"
    raw: dict[str, Any] = parse_yaml(path.read_text(encoding="utf-8"), trusted=True)
    del raw["checked"]
    return raw


def _with_origins(raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [{**row, "source": raw["sources"][row["source"]]} if "source" in row else row for row in raw[key]]


@cache
def conventions() -> Conventions:
    """The paper's conventions."""
    return Conventions.model_validate(_read("conventions"))


@cache
def compared_models() -> dict[str, ComparedModel]:
    """The models of the comparison by id, in their order."""
    rows = [ComparedModel.model_validate(row) for row in _with_origins(_read("models"), "models")]
    return {row.id: row for row in rows}


@cache
def printed_values() -> tuple[Printed, ...]:
    """What the paper prints, as far as it was recovered."""
    return tuple(Printed.model_validate(row) for row in _with_origins(_read("printed"), "printed"))


@cache
def marks() -> dict[str, Mark]:
    """The paper's marks by change."""
    rows = [Mark.model_validate(row) for row in _with_origins(_read("marks"), "marks")]
    return {row.change: row for row in rows}
