"""What a view with measured times answers in place of the roofline.

The cost model knows no measurements: who prices hands in a `StepTimer`, and `planner.cost.pool.Pool`
asks it. Whatever it answers, a pool is never faster than the roofline.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from planner.cost.compute import Compressed
from planner.cost.replica import Shape, WeightFormat

Floats = NDArray[np.float64]


class ReplicaTimes(Protocol):
    """Times of one replica, pipeline included; arrays are ``(candidate,)``.

    Two promises make the solver's bounds valid. Prefill depends on compression through the factors on
    its linear layers, its attention, its time and its elements only. A decode step is
    ``left.decode_time`` times the largest of `step_parts`, each linear in what compression leaves to
    read, in narrower elements, and in what it leaves to attend to.
    """

    @property
    def known(self) -> dict[Hashable, Any]:
        """What was asked before and its answer, for whoever asks often."""

    def prefill_s(
        self, start: Floats | float, end: Floats | float, size: Floats, left: Compressed
    ) -> tuple[Floats, Floats]:
        """GPU time and latency of tokens ``start`` to ``end`` in chunks of ``size`` [s]."""

    def chunk_s(self, size: Floats, position: Floats | float, left: Compressed) -> Floats:
        """A chunk's time through the whole pipeline, at worst [s]."""

    def step_parts(self, sequences: Floats, tokens: float, left: Compressed) -> tuple[Floats, ...]:
        """What a quiet decode step takes at least, for several reasons, techniques' own time apart [s]."""


class StepTimer(Protocol):
    """Measured times of one GPU with one engine, for any split."""

    def times(self, architecture: Architecture, shape: Shape, weights: WeightFormat) -> ReplicaTimes:
        """Times of a model split so."""
