"""What prefill pools reach by themselves, to whatever decode pool they feed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Feeding:
    """Prefill pools of one cell, for one view and weights."""

    units: Ints
    gpus: Ints
    replicas: Ints
    rates: Floats
    """Sessions per second of one replica, ``(policy, unit)``; 0 where no session fits or a limit is broken."""
    cold_s: Floats
    """The first prompt's time to its first token, at best, of those that feed ``(policy, unit)`` [s]."""
    warm_s: Floats
    """A later question's ``(policy, unit)`` [s]."""
    switch_s: Floats
    longest_s: Floats
    """What prefills, waits and the ways to the decode pool add to a session, at worst ``(policy, unit)`` [s]."""

    def most(self, total: int, policy: int) -> Floats:
        """Sessions per second that so many GPUs prefill at most, for every number up to the total."""
        spare = np.arange(total + 1)[None, :]
        counts = np.minimum(self.replicas[:, None], spare // self.gpus[:, None])
        return np.asarray((self.rates[policy][:, None] * counts).max(axis=0))

    def least(self, policy: int) -> tuple[float, float, float]:
        """Times to the first tokens and of a switch, at best of those that feed [s]."""
        feeds = self.rates[policy] > 0
        return tuple(float(times[policy][feeds].min()) for times in (self.cold_s, self.warm_s, self.switch_s))  # type: ignore[return-value]
