"""A covering array: few rows in which every pair of values of two factors occurs, where a row may be impossible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, product

Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """Return the pairs of values that a row has."""
    return set(combinations(row.items(), 2))


def cover(factors: Mapping[str, Sequence[str]], is_possible: Callable[[Row], bool]) -> Iterator[tuple[Row, bool]]:
    """Yield rows until each pair is in a possible row, or in none at all.

    Greedy and without chance: the row that covers most comes first. Tools for pairwise tests take rules for what
    is impossible; here only a trial tells.

    Parameters
    ----------
    factors
        Name -> values.
    is_possible
        Whether a row can be had; asked once per row.

    Yields
    ------
    tuple
        A row, and whether it is possible. An impossible row stands for a pair that no possible row has, and its
        values that no possible row has stand for all of their pairs.
    """
    rows = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    possible = cache(lambda i: is_possible(rows[i]))
    for name, value in [(name, value) for name, values in factors.items() for value in values]:
        having = [i for i, row in enumerate(rows) if row.get(name) == value]
        if having and not any(possible(i) for i in having):
            yield rows[having[0]], False
            rows = [row if row.get(name) != value else {} for row in rows]  # keeps the numbers
    left = dict.fromkeys(pair for row in rows for pair in sorted(pairs_of(row)))
    while left:
        wanted = next(iter(left))
        having = [i for i, row in enumerate(rows) if wanted in pairs_of(row)]
        having.sort(key=lambda i: -len(pairs_of(rows[i]) & left.keys()))
        found = next((i for i in having if possible(i)), None)
        for pair in {wanted} if found is None else pairs_of(rows[found]) & left.keys():
            del left[pair]
        yield rows[having[0] if found is None else found], found is not None
