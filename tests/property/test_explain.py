"""The search for the smallest change, and the words for amounts, on any numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from catalog.units import parse_quantity
from planner.ask import smallest
from planner.limits import milliseconds_text, seconds_text


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(-10, 2 * 10**6))
def test_the_smallest_number_is_found_from_any_guess(low: int, gap: int, more: int, guess: int) -> None:
    edge, high = low + gap, low + gap + more
    asked = []

    def holds(number: int) -> bool:
        asked.append(number)
        return number >= edge

    assert smallest(holds, low, high, guess) == (edge, True)
    assert len(asked) == len(set(asked)) <= 50
    assert all(low < number <= high for number in asked)


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(-10, 3000))
def test_what_holds_nowhere_has_no_smallest_number(low: int, more: int, guess: int) -> None:
    assert smallest(lambda number: False, low, low + more, guess) == (None, True)


@given(st.integers(1, 10**9))
def test_milliseconds_are_read_back_as_they_were(count: int) -> None:
    assert round(parse_quantity(milliseconds_text(count), "seconds") * 1000.0, 6) == count


@given(st.floats(1e-6, 1e6))
def test_a_limit_is_shown_as_it_is(value: float) -> None:
    assert abs(parse_quantity(seconds_text(value), "seconds") - value) <= 1e-8 * value
