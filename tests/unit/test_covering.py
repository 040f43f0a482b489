"""The covering array behind the start-path cases: every pair that can be had is had, in few rows."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from scripts.engine_reference.covering import Row, cover, pairs_of

FACTORS = {"a": ("1", "2"), "b": ("1", "2", "3"), "c": ("1", "2"), "d": ("1", "2", "3", "4")}
ROWS = [dict(zip(FACTORS, values, strict=True)) for values in product(*FACTORS.values())]


@given(st.sets(st.integers(0, len(ROWS) - 1), max_size=40))
def test_every_possible_pair_is_in_a_row_and_every_other_one_is_told(impossible: set[int]) -> None:
    possible = [row for i, row in enumerate(ROWS) if i not in impossible]
    found = list(cover(FACTORS, lambda row: row in possible))
    assert all((row in possible) == is_possible for row, is_possible in found)
    having = {pair for row in possible for pair in pairs_of(row)}
    covered = {pair for row, is_possible in found if is_possible for pair in pairs_of(row)}
    assert covered == having
    told = {pair for row, is_possible in found if not is_possible for pair in pairs_of(row)}
    dead = {item for item in values() if not any(item in row.items() for row in possible)}
    for pair in {pair for row in ROWS for pair in pairs_of(row)} - having:
        assert pair in told or set(pair) & dead
    assert all(any(item in row.items() for row, _ in found) for item in dead)


def values() -> set[tuple[str, str]]:
    return {(name, value) for name, them in FACTORS.items() for value in them}


def test_few_rows_are_enough() -> None:
    asked: list[Row] = []

    def is_possible(row: Row) -> bool:
        asked.append(row)
        return True

    found = list(cover(FACTORS, is_possible))
    largest = max(len(FACTORS[one]) * len(FACTORS[other]) for one, other in combinations(FACTORS, 2))
    assert largest <= len(found) <= largest + 3
    assert len(asked) < len(ROWS)
