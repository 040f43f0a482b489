"""What all catalog entries share: quantities with units, sources, the day of the last check."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from catalog.units import UNITS, parse_quantity, parse_tokens


def _read(kind: str) -> BeforeValidator:
    def read(value: object) -> float:
        return parse_quantity(value, kind)

    return BeforeValidator(read)


def _written(kind: str) -> WithJsonSchema:
    units = ", ".join(unit for unit in UNITS[kind] if unit)
    return WithJsonSchema({"type": "string", "description": f"a number with its unit: {units}"})


def _tokens(value: object) -> object:
    return parse_tokens(value)


def _text(value: object) -> object:
    # YAML reads a bare 8.0 as a number; versions and capabilities are text.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Bytes = Annotated[float, _read("bytes"), _written("bytes")]
BytesPerSecond = Annotated[float, _read("bytes/s"), _written("bytes/s")]
FlopsPerSecond = Annotated[float, _read("FLOP/s"), _written("FLOP/s")]
Watts = Annotated[float, _read("watts"), _written("watts")]
UsdPerHour = Annotated[float, _read("USD/h"), _written("USD/h")]
Tokens = Annotated[
    int,
    BeforeValidator(_tokens),
    WithJsonSchema({"type": ["string", "integer"], "description": "tokens: 128K, 131072"}),
]
Text = Annotated[str, BeforeValidator(_text)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]
Fraction = Annotated[float, Field(ge=0.0)]

Provenance = Literal["found", "secondary", "derived", "recalled", "measured"]
"""found: read in a primary source. secondary: read in somebody's quotation of it. derived: arithmetic
on found values. recalled: from memory, not verified; its interval is widened and it says so. measured:
on the user's own machine, by ``plan calibrate``."""

Task = Literal["mixed", "qa", "retrieval", "multiturn", "reasoning"]
Dimension = Literal["layer", "head", "token", "hidden", "attention", "weights", "offload"]


class Fact(BaseModel):
    """Base of everything in the catalog: immutable, and strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Source(Fact):
    """Where a fact comes from, and for which fields of the entry it speaks (empty: all of them)."""

    ref: str
    provenance: Provenance = "found"
    fields: tuple[str, ...] = ()
    note: str | None = None


class Entry(Fact):
    """What all catalog entries have: an id, sources, and the day they were checked."""

    id: Id
    name: str
    aliases: tuple[str, ...] = ()
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    checked: dt.date
    notes: str | None = None
