"""Import CP-SAT quickly, and write real inequalities in integers that are always rounded against us.

``ortools.sat.python.cp_model`` imports pandas, of which it only needs two names for annotations that
this program doesn't use; pandas costs more than a second, more than a whole plan (docs/adr/0003).
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any


def import_cp_model() -> Any:
    """Return ``ortools.sat.python.cp_model``, without pandas unless it is loaded already."""
    name = "ortools.sat.python.cp_model"
    if name in sys.modules or "pandas" in sys.modules:
        return importlib.import_module(name)
    stand_in = ModuleType("pandas")
    stand_in.Index = type("Index", (), {})  # type: ignore[attr-defined]
    stand_in.Series = type("Series", (), {})  # type: ignore[attr-defined]
    sys.modules["pandas"] = stand_in
    try:
        return importlib.import_module(name)
    except AttributeError:
        # Another version needs more of pandas: pay for it.
        sys.modules.pop("pandas", None)
        sys.modules.pop(name, None)
        return importlib.import_module(name)
    finally:
        if sys.modules.get("pandas") is stand_in:
            del sys.modules["pandas"]


MOST = 2**60
"""No constraint's terms add up to more than this, so that 64-bit integers hold them."""


@dataclass(frozen=True)
class Quantity:
    """An integer variable that stands for a real number: ``value = variable * unit``."""

    variable: Any
    unit: float
    most: int
    """Upper bound of the variable."""

    @property
    def most_value(self) -> float:
        """Upper bound of the number."""
        return self.most * self.unit


Term = tuple[float, Quantity]


class Writer:
    """Writes linear inequalities between quantities into a CP-SAT model.

    A quantity that costs is bounded from below by what it costs, rounded up: whatever the solver
    accepts is possible in real numbers. Where a quantity must not be overstated either
    (``exactly``), it is also bounded from above, one unit looser.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def quantity(self, name: str, most: float, unit: float) -> Quantity:
        """A new variable for numbers up to ``most``, with room for what rounding up adds."""
        bound = min(math.ceil(most / unit * (1.0 + 1e-6)) + 16, MOST >> 2)
        return Quantity(self.model.new_int_var(0, bound, name), unit, bound)

    def at_least(
        self,
        target: Quantity,
        terms: Sequence[Term],
        const: float = 0.0,
        *,
        times: float = 1.0,
        when: Iterable[Any] = (),
    ) -> None:
        """Require ``times * target >= sum(terms) + const`` where all literals of ``when`` hold."""
        left, right, _ = self._sides(target, terms, const, times)
        self.add(left >= right, when)

    def at_most(
        self,
        target: Quantity,
        terms: Sequence[Term],
        const: float = 0.0,
        *,
        times: float = 1.0,
        when: Iterable[Any] = (),
    ) -> None:
        """Require ``times * target <= sum(terms) + const``, give or take the rounding of `at_least`."""
        left, right, one = self._sides(target, terms, const, times)
        self.add(left <= right + one, when)

    def _sides(self, target: Quantity, terms: Sequence[Term], const: float, times: float) -> tuple[Any, Any, int]:
        """Both sides of an inequality in integers, the right one rounded up, and one unit of the target."""
        scale = self._scale(target, terms, const, times)
        unit = target.unit / scale
        left = math.floor(times * scale) * target.variable
        right = sum(math.ceil(c * q.unit / unit) * q.variable for c, q in terms if c) + math.ceil(const / unit)
        return left, right, math.ceil(times * scale)

    def limit(self, quantity: Quantity, most: float) -> Any:
        """Require a quantity to be at most a limit; returns the constraint."""
        return self.model.add(quantity.variable <= math.floor(most / quantity.unit * (1.0 + 1e-12)))

    def product(self, name: str, a: Quantity, b: Quantity, most_value: float = math.inf) -> Quantity:
        """A quantity that is the product of two, and no larger than told."""
        most = math.ceil(min(a.most * b.most, most_value / (a.unit * b.unit)))
        if most > MOST:
            raise OverflowError(f"{name}: the product needs {most.bit_length()} bits; coarsen one side")
        variable = self.model.new_int_var(0, most, name)
        self.model.add_multiplication_equality(variable, [a.variable, b.variable])
        return Quantity(variable, a.unit * b.unit, most)

    def rounded_up(self, name: str, terms: Sequence[Term], unit: float) -> Quantity:
        """A sum in larger units, at least the real one and less than one unit above it."""
        most = sum(c * q.most_value for c, q in terms)
        found = self.quantity(name, most, unit)
        self.at_least(found, terms)
        self.at_most(found, terms)
        return found

    def rounded_down(self, quantity: Quantity, bits: int) -> Quantity:
        """The same number in larger units, at most the real one."""
        step = max(1, quantity.most >> bits)
        variable = self.model.new_int_var(0, quantity.most // step, f"{quantity.variable.name}~")
        self.model.add(variable * step <= quantity.variable)
        self.model.add(variable * step >= quantity.variable - step + 1)
        return Quantity(variable, quantity.unit * step, quantity.most // step)

    def _scale(self, target: Quantity, terms: Sequence[Term], const: float, times: float) -> float:
        """A power of two that keeps coefficients precise and sums within 64 bits."""
        largest = max(
            times * target.most,
            sum(abs(c) * q.unit * q.most for c, q in terms) / target.unit + abs(const) / target.unit,
            1.0,
        )
        scale = 2.0 ** math.floor(math.log2(MOST / 4 / largest))
        if scale * times < 16.0:
            raise OverflowError(f"{target.variable.name}: its terms need {math.log2(largest):.0f} bits; coarsen them")
        return scale

    def up(self, value: float, quantity: Quantity) -> int:
        """A number in units of a quantity, rounded up."""
        return math.ceil(value / quantity.unit)

    def add(self, constraint: Any, when: Iterable[Any] = ()) -> None:
        """Add a constraint where all literals of ``when`` hold."""
        added = self.model.add(constraint)
        literals = list(when)
        if literals:
            added.only_enforce_if(*literals)
