"""What fits on the servers of a cluster: replicas inside servers, or over whole ones.

A replica of no more GPUs than a server has sits in one server; a larger one takes whole servers. For a worth
that adds up, `Room.best` is exact; `Room.beside` bounds what can stand beside something that is placed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.request import Cluster

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Room:
    """The GPUs that may be used, server by server."""

    servers: int
    """Whole servers."""
    size: int
    """GPUs of a whole server."""
    rest: int
    """GPUs of a last server that is used in part; 0 where there is none."""
    most: int
    """GPUs that may be used in all."""

    @staticmethod
    def of(cluster: Cluster, most: int | None = None) -> Room:
        """The room of a cluster, of which so many GPUs may be used (None: all).

        >>> from types import SimpleNamespace as Of
        >>> Room.of(Of(gpus=12, gpus_per_node=8))
        Room(servers=1, size=8, rest=4, most=12)
        """
        servers, rest = divmod(cluster.gpus, cluster.gpus_per_node)
        return Room(servers, cluster.gpus_per_node, rest, cluster.gpus if most is None else min(most, cluster.gpus))

    def limited(self, most: int) -> Room:
        """The room of fewer GPUs, on whatever servers."""
        return replace(self, most=min(most, self.most))

    @cached_property
    def filled(self) -> Room:
        """The room of as many GPUs as may be used, in as few servers as they take."""
        servers, rest = divmod(self.most, self.size)
        return self if self.most == self.servers * self.size + self.rest else Room(servers, self.size, rest, self.most)

    def whole(self, gpus: int) -> int:
        """Whole servers that a replica of more GPUs than a server has takes; 0 for one inside a server."""
        return -(-gpus // self.size) if gpus > self.size else 0

    def copies(self, gpus: Ints, reserve: Ints | int = 0) -> Ints:
        """How many replicas of so many GPUs each fit where nothing else is but those on the GPUs in reserve.

        >>> Room(2, 8, 4, 20).copies(np.array([1, 3, 8, 16, 24]))
        array([20,  5,  2,  1,  0])
        """
        each = np.maximum(gpus, 1)
        inside = self.servers * (self.size // each) + self.rest // each
        over = self.servers // -(-each // self.size)
        copies = np.minimum(np.where(each <= self.size, inside, over), self.most // each)
        return np.asarray(np.maximum(copies - reserve // each, 0))

    def best(self, worth: Floats) -> tuple[float, dict[int, int]]:
        """The most worth that fits, and how many replicas of which number of GPUs reach it.

        Parameters
        ----------
        worth
            Of a replica, by its GPUs ``(GPUs + 1,)``; nothing or less: there is none.

        Examples
        --------
        >>> worth = np.zeros(10); worth[8], worth[1] = 10.0, 1.0
        >>> Room(1, 8, 1, 9).best(worth)
        (11.0, {8: 1, 1: 1})
        """
        room = self.filled
        inside, last = room._inside(worth)
        over = room._over(worth, inside)
        counts: dict[int, int] = {}
        servers = room.servers
        while servers > 0:
            taken = int(over[1][servers])
            if taken:
                counts[taken] = counts.get(taken, 0) + 1
                servers -= room.whole(taken)
            else:
                _count(counts, last, room.size)
                servers -= 1
        _count(counts, last, room.rest)
        return float(over[0][room.servers] + inside[room.rest]), counts

    def beside(self, worth: Floats) -> Floats:
        """What can be worth how much at most beside a replica, by the GPUs of that one; -inf where it doesn't fit."""
        inside, _ = self._inside(worth)
        over, _ = self._over(worth, inside)
        found = np.full(len(worth), -np.inf)
        sizes = np.arange(len(worth))
        per_gpu = float(np.max(worth[1:] / sizes[1:], initial=0.0))
        if self.servers:
            here = min(self.size, len(worth) - 1)
            found[: here + 1] = over[self.servers - 1] + inside[self.size - sizes[: here + 1]] + inside[self.rest]
        here = min(self.rest, len(worth) - 1)
        found[: here + 1] = np.maximum(found[: here + 1], over[self.servers] + inside[self.rest - sizes[: here + 1]])
        if len(worth) > self.size + 1:
            left = self.servers - -(-sizes[self.size + 1 :] // self.size)
            found[self.size + 1 :] = np.where(left >= 0, over[np.maximum(left, 0)] + inside[self.rest], -np.inf)
        left = self.most - sizes
        return np.asarray(np.where(left >= 0, np.minimum(found, per_gpu * np.maximum(left, 0)), -np.inf))

    def _inside(self, worth: Floats) -> tuple[Floats, Ints]:
        """The most worth inside so many GPUs of one server, and a replica that is part of it (0: none)."""
        best, last = np.zeros(self.size + 1), np.zeros(self.size + 1, dtype=np.int64)
        sizes = [g for g in range(1, min(self.size, len(worth) - 1) + 1) if worth[g] > 0]
        for room in range(1, self.size + 1):
            best[room] = best[room - 1]
            for gpus in sizes:
                if gpus <= room and best[room - gpus] + worth[gpus] > best[room]:
                    best[room], last[room] = best[room - gpus] + worth[gpus], gpus
        return best, last

    def _over(self, worth: Floats, inside: Floats) -> tuple[Floats, Ints]:
        """The most worth on so many whole servers, and a replica over several that is part of it (0: none)."""
        best, last = np.zeros(self.servers + 1), np.zeros(self.servers + 1, dtype=np.int64)
        large = (np.flatnonzero(worth[self.size + 1 :] > 0) + self.size + 1).tolist()
        if not large:
            return np.arange(self.servers + 1) * inside[self.size], last
        needs = [(gpus, self.whole(gpus), float(worth[gpus])) for gpus in large]
        for servers in range(1, self.servers + 1):
            most, taken = best[servers - 1] + inside[self.size], 0
            for gpus, whole, each in needs:
                if whole <= servers and best[servers - whole] + each > most:
                    most, taken = best[servers - whole] + each, gpus
            best[servers], last[servers] = most, taken
        return best, last


def _count(counts: dict[int, int], last: Ints, room: int) -> None:
    """Add the replicas that fill one server best."""
    while room > 0:
        gpus = int(last[room])
        if gpus:
            counts[gpus] = counts.get(gpus, 0) + 1
        room -= gpus or 1
