"""Replicas in reserve: how many the worst single loss takes, so that what the others serve can be promised.

A replica in reserve works like every other. What is promised is what the replicas serve that are left when one
server fails; on a cluster of one server, when one replica of each group fails.
"""

from __future__ import annotations

import math
from typing import Protocol


class Servers(Protocol):
    """What is asked of a cluster."""

    @property
    def gpus(self) -> int:
        """GPUs in all."""

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one server."""


def lost_replicas(cluster: Servers, gpus: int, step: int = 1) -> int:
    """Replicas of one group that the worst single loss takes.

    Of several servers one may fail, with all replicas that it can hold, wherever the others are. Where experts
    spread over several replicas, all of those stop with one of them.

    Parameters
    ----------
    cluster
        Its servers.
    gpus
        Of one replica.
    step
        Replicas that experts spread over.

    Examples
    --------
    >>> from types import SimpleNamespace as Of
    >>> [lost_replicas(Of(gpus=8, gpus_per_node=8), *each) for each in ((1, 1), (4, 1), (1, 4))]
    [1, 1, 4]
    >>> [lost_replicas(Of(gpus=32, gpus_per_node=8), *each) for each in ((1, 1), (3, 1), (16, 1), (1, 16), (4, 4))]
    [8, 2, 1, 16, 4]
    """
    if cluster.gpus <= cluster.gpus_per_node:
        return step
    held = max(1, cluster.gpus_per_node // gpus)
    # Replicas stand in order, server after server: the first of a server is a multiple of what both have in common.
    return step * -(-(held + step - math.gcd(held, step)) // step)
