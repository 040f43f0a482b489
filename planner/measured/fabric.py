"""Collectives inside a server, as measured, and between servers, over their network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.measured.operations import AllReduceFit, all_reduce_s

Floats = NDArray[np.float64]

NETWORK_START_S = 2.0e-5
"""Latency of a message between two servers [s]: assumed; not measured here."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """What connects GPUs beyond a server."""

    gpus_per_node: int
    network_bytes_per_s: float
    """Of one server, each way [bytes/s]."""

    def all_reduce_s(self, fit: AllReduceFit, gpus: int, message: Floats) -> Floats:
        """All-reduce over ``gpus`` GPUs: inside each server, then over the network between them [s]."""
        inside = min(gpus, self.gpus_per_node)
        time = all_reduce_s(fit, inside, message)
        nodes = math.ceil(gpus / self.gpus_per_node)
        if nodes == 1:
            return time
        ring = 2.0 * (nodes - 1) / nodes * message / self.network_bytes_per_s
        return time + 2.0 * (nodes - 1) * NETWORK_START_S + ring

    def pass_on_s(self, fit: AllReduceFit, stage_gpus: int, stages: int, message: Floats) -> Floats:
        """Hidden states from one pipeline stage to the next; over the network where stages span servers [s]."""
        if stage_gpus * stages <= self.gpus_per_node:
            return all_reduce_s(fit, 2, message)
        return np.asarray(NETWORK_START_S + message / self.network_bytes_per_s)


INSIDE = Fabric(1 << 30, math.inf)
"""Everything is in one server."""
