"""Vectors of which every component is better when smaller: which ones no other beats.

A vector beats another if it is no larger in any component; of equal vectors the first one stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BLOCK = 256


def undominated(vectors: Floats) -> Ints:
    """Rows that no other row beats, in their own order.

    Parameters
    ----------
    vectors
        ``(row, component)``.

    Examples
    --------
    >>> undominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [2.0, 2.0]])).tolist()
    [0, 1]
    """
    count = len(vectors)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    if vectors.shape[1] == 1:
        return np.array([int(np.argmin(vectors[:, 0]))], dtype=np.int64)
    if vectors.shape[1] == 2:
        order = np.lexsort((vectors[:, 1], vectors[:, 0]))
        second = vectors[order, 1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        return np.sort(order[second < before])
    # A row can only be beaten by one with no larger sum; equal sums mean equal rows or no relation.
    remaining = np.argsort(vectors.sum(axis=1), kind="stable")
    found = []
    while len(remaining):
        block, remaining = remaining[:_BLOCK], remaining[_BLOCK:]
        here = vectors[block]
        smaller = np.asarray((here[:, None, :] <= here[None, :, :]).all(axis=2))
        beaten = (smaller & np.triu(np.ones_like(smaller), 1)).any(axis=0)
        kept = block[~beaten]
        found.append(kept)
        remaining = remaining[~beaten_by(vectors[remaining], vectors[kept])]
    return np.sort(np.concatenate(found))


def beaten_by(vectors: Floats, rivals: Floats, slack: float = 0.0) -> Bools:
    """Which rows some rival beats, give or take a relative slack.

    Parameters
    ----------
    vectors, rivals
        ``(row, component)``; components aren't negative.
    slack
        A rival may be larger by this share.

    Examples
    --------
    >>> beaten_by(np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[2.0, 2.0]])).tolist()
    [False, True]
    >>> beaten_by(np.array([[1.0, 1.0]]), np.array([[0.5, 1.0005]]), slack=1e-3).tolist()
    [True]
    """
    if not len(rivals) or not len(vectors):
        return np.zeros(len(vectors), dtype=np.bool_)
    reach = vectors * (1.0 + slack)
    if vectors.shape[1] == 1:
        return np.asarray(reach[:, 0] >= rivals[:, 0].min())
    if vectors.shape[1] == 2:
        order = np.argsort(rivals[:, 0], kind="stable")
        first, least = rivals[order, 0], np.minimum.accumulate(rivals[order, 1])
        place = np.searchsorted(first, reach[:, 0], side="right") - 1
        return np.asarray((place >= 0) & (least[np.maximum(place, 0)] <= reach[:, 1]))
    found = np.zeros(len(vectors), dtype=np.bool_)
    alive = np.arange(len(vectors))
    for start in range(0, len(rivals), _BLOCK):
        some = rivals[start : start + _BLOCK]
        hit = np.zeros(len(alive), dtype=np.bool_)
        for part in range(0, len(alive), 4096):
            here = reach[alive[part : part + 4096]]
            smaller = np.asarray((some[None, :, :] <= here[:, None, :]).all(axis=2))
            hit[part : part + 4096] = smaller.any(axis=1)
        found[alive[hit]] = True
        alive = alive[~hit]
        if not len(alive):
            break
    return found


def distinct(vectors: Floats, tie: float) -> Ints:
    """Rows that aren't beaten, where differences below a relative share don't count; by their components.

    Examples
    --------
    >>> distinct(np.array([[2.0, 1.0], [1.0, 2.0], [1.0 - 1e-12, 3.0]]), tie=1e-9).tolist()
    [1, 0]
    """
    kept: list[int] = []
    for row in np.lexsort(vectors.T[::-1]).tolist():
        mine, slack = vectors[row], vectors[row] * tie + tie * tie
        as_good = (vectors <= mine + slack).all(axis=1)
        better = as_good & (vectors < mine - slack).any(axis=1)
        same = bool(kept) and bool(as_good[kept].any())
        if not better.any() and not same:
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def cover(vectors: Floats, slack: float) -> Ints:
    """A few rows such that every row is beaten by one of them, give or take a relative slack.

    Rows are taken greedily in the order of their first component.

    Examples
    --------
    >>> cover(np.array([[1.0, 2.0], [1.0004, 1.9999], [2.0, 1.0]]), slack=1e-3).tolist()
    [0, 2]
    """
    kept: list[int] = []
    for row in np.lexsort(vectors.T[::-1]).tolist():
        if not kept or not beaten_by(vectors[row : row + 1], vectors[kept], slack)[0]:
            kept.append(row)
    return np.sort(np.array(kept, dtype=np.int64))
