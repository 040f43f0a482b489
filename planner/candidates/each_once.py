"""Each value once, cheaply: NumPy's own ``unique`` loads masked arrays where it is asked for nothing else."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def each_once(values: NDArray[T]) -> NDArray[T]:
    """The values in ascending order, each once.

    >>> each_once(np.array([3, 1, 3])).tolist(), each_once(np.array([])).tolist()
    ([1, 3], [])
    """
    ordered = np.sort(values, axis=None)
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
