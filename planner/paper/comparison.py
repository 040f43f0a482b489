"""Printed values next to computed ones: the deviation, and whether the arithmetic closes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from planner.paper.cases import CASES, Study
from planner.paper.facts import Printed, printed_values

_ABOUT = 0.1 + 1e-9
"""Relative distance within which a computed value is 'about' a printed one."""
_MORE = 0.005
"""Relative distance that rounding in between can explain, where printed digits are no guide."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One computation next to a printed value."""

    case: str
    label: str
    unit: str
    value: float
    deviation: float | None
    """Computed over printed, minus 1, with users as a whole number; None where there is nothing to compare."""
    closes: bool | None
    """Whether the computed value prints as the paper has it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A printed value with its computations: the paper's own convention first."""

    printed: Printed
    readings: tuple[Reading, ...]

    @property
    def closes(self) -> bool | None:
        """Whether the paper's own convention gives what is printed."""
        return self.readings[0].closes


def compare(study: Study) -> tuple[Comparison, ...]:
    """Every printed value with its computations."""
    return tuple(
        Comparison(row, tuple(_reading(row, name, study) for name in (*row.cases, *row.beside)))
        for row in printed_values()
    )


def _reading(row: Printed, name: str, study: Study) -> Reading:
    case = CASES[name]
    value = case.compute(study)
    if row.value is None or name in row.beside:
        return Reading(name, case.label, case.unit, value, None, None)
    counted = math.floor(value) if case.unit == "users" else value
    return Reading(name, case.label, case.unit, value, counted / row.value - 1.0, prints_as(counted, row))


def prints_as(value: float, row: Printed) -> bool:
    """Whether a value, rounded or cut to the printed digits, is the printed value.

    ``~20`` and ``about 1000x`` allow a tenth; words such as ``linearly`` allow half a percent.
    """
    if row.value is None:
        raise ValueError(f"{row.id}: prints no number; compare nothing with it")
    number = re.search(r"\d+(?:\.(\d+))?", row.text)
    if row.text.startswith(("~", "about")):
        return abs(value / row.value - 1.0) <= _ABOUT
    digits = number and len(number.group(1) or "")
    if number is None or digits is None or float(number.group()) != row.value:
        return abs(value / row.value - 1.0) <= _MORE
    scaled = value * 10.0**digits
    # 1e-9: what binary fractions add or take away at a digit's edge.
    allowed = {round(scaled), math.floor(scaled + 1e-9)}
    return round(row.value * 10.0**digits) in allowed
