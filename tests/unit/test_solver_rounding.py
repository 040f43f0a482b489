"""The one place that rounds: always against us. A mutant that rounds the other way fails here."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.solve.cpsat import Quantity, Writer, import_cp_model

CP = import_cp_model()
SLACK = 1e-9
"""Relative: a capacity that is met exactly but for the floats that state it isn't refused."""


class Rounding:
    """A model with a few fixed quantities, and what the solver makes of one more."""

    def __init__(self) -> None:
        self.writer = Writer(CP.CpModel())

    def fixed(self, units: int, unit: float) -> Quantity:
        found = self.writer.quantity("fixed", max(units, 1) * unit, unit)
        self.writer.model.add(found.variable == units)
        return found

    def least(self, target: Quantity) -> float | None:
        """The smallest value that the model allows; None: none."""
        return self._extreme(target, self.writer.model.minimize)

    def most(self, target: Quantity) -> float | None:
        """The largest value that the model allows."""
        return self._extreme(target, self.writer.model.maximize)

    def _extreme(self, target: Quantity, direction: Callable[[object], None]) -> float | None:
        direction(target.variable)
        solver = CP.CpSolver()
        solver.parameters.num_workers = 1
        if solver.status_name(solver.solve(self.writer.model)) != "OPTIMAL":
            return None
        return float(solver.value(target.variable)) * target.unit


coefficients = st.floats(1e-6, 1e6)
units = st.floats(1e-9, 1e-3)
counts = st.integers(0, 2**26)


def costs_at_least(terms: list[tuple[float, int, float]], const: float, times: float) -> None:
    """What a cost is bounded by is no less than the cost in real numbers, and hardly more."""
    model = Rounding()
    parts = [(c, model.fixed(k, unit)) for c, k, unit in terms]
    real = (sum(c * k * unit for c, k, unit in terms) + const) / times
    top = (sum(c * q.most_value for c, q in parts) + const) / times
    target = model.writer.quantity("target", top * 1.01, top / 2**30)
    model.writer.at_least(target, parts, const, times=times)
    found = model.least(target)
    assert found is not None
    assert found >= real * (1.0 - 1e-12)
    assert found <= real + 1e-6 * top


def capacity_holds(share: float, count: int) -> None:
    """No more fits than fits in real numbers."""
    model = Rounding()
    one = model.writer.quantity("one", 1.0, 1.0)
    sessions = Quantity(model.writer.model.new_int_var(0, count + 2, "sessions"), 1.0, count + 2)
    model.writer.model.add(one.variable == 1)
    each = model.writer.quantity("each", 1.0, 2.0**-34)
    model.writer.at_least(each, [(share, one)])
    taken = model.writer.product("taken", sessions, each)
    model.writer.limit(taken, 1.0)
    found = model.most(sessions)
    assert found is not None
    assert found * share <= 1.0 + SLACK
    assert found >= math.floor(1.0 / share * (1.0 - 1e-5)) or found == count + 2


def limit_holds(most: float, unit: float) -> None:
    """A limit isn't passed by a unit."""
    model = Rounding()
    target = model.writer.quantity("target", 2.0 * most, unit)
    model.writer.limit(target, most)
    found = model.most(target)
    assert found is not None
    assert most - unit <= found <= most * (1.0 + SLACK)


@settings(max_examples=30)
@given(st.lists(st.tuples(coefficients, counts, units), min_size=1, max_size=4), st.floats(0, 1e3), st.floats(0.1, 8.0))
def test_costs_round_up(terms: list[tuple[float, int, float]], const: float, times: float) -> None:
    costs_at_least(terms, const + 1e-9, times)


@settings(max_examples=30)
@given(st.floats(1e-4, 1.0))
def test_capacity_rounds_down(share: float) -> None:
    capacity_holds(share, 300)


@settings(max_examples=30)
@given(st.floats(1e-3, 1e3), st.floats(1e-9, 1e-4))
def test_limits_round_down(most: float, unit: float) -> None:
    limit_holds(most, unit)


class Against:
    """`math` with one function that rounds the wrong way."""

    def __init__(self, **instead: Callable[[float], int]) -> None:
        self.__dict__.update(vars(math) | instead)


def test_a_mutant_that_rounds_costs_down_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.solve.cpsat.math", Against(ceil=math.floor))
    with pytest.raises(AssertionError):
        costs_at_least([(1.0 / 3.0, 2**26 - 1, 1e-6)], 1e-7 / 3.0, 1.0)


def test_a_mutant_that_rounds_capacity_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.solve.cpsat.math", Against(floor=math.ceil))
    with pytest.raises(AssertionError):
        limit_holds(1.0, 3e-5)


def test_a_mutant_that_understates_a_share_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.solve.cpsat.math", Against(ceil=lambda x: math.floor(x * (1 - 1e-4))))
    with pytest.raises(AssertionError):
        capacity_holds(1.00005 / 3.0, 300)
