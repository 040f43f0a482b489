"""The rows that say what fits on servers, for any numbers of replicas of several sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from planner.search.room import Room


@dataclass(frozen=True)
class Row:
    """No more of something than there is: a weighted sum over numbers of GPUs, and over ways to fill a server."""

    name: str
    weights: dict[int, int]
    """Of a replica, by its GPUs."""
    ways: dict[tuple[int, ...], int]
    """Of a server that is filled in a certain way, by the sizes in it; see `fillings`."""
    most: int


def server_rows(room: Room, sizes: list[int]) -> list[Row]:
    """Rows that hold exactly where replicas of some sizes fit.

    Where each size divides the next, the larger ones first always fit: one row per size is enough. Elsewhere
    servers are filled in one of finitely many ways.
    """
    rows = [Row("gpus", {g: g for g in sizes}, {}, room.most)]
    large = {g: room.whole(g) for g in sizes if g > room.size}
    small = [g for g in sizes if g <= room.size]
    if large:
        rows.append(Row("servers", large, {}, room.servers))
    if all(b % a == 0 for a, b in pairwise(small)):
        for least in small:
            most = room.servers * (room.size // least * least) + room.rest // least * least
            weights = {g: g for g in small if g >= least}
            weights |= {g: whole * (room.size // least * least) for g, whole in large.items()}
            rows.append(Row(f"gpus_in_servers_of_{least}", weights, {}, most))
        return rows
    whole, last = list(fillings(small, room.size)), list(fillings(small, room.rest))
    rows.append(Row("servers_filled", dict(large), {(room.size, *way): 1 for way in whole}, room.servers))
    if last:
        rows.append(Row("last_server_filled", {}, {(room.rest, *way): 1 for way in last}, 1))
    for size in small:
        held = {(room.size, *way): -way.count(size) for way in whole}
        held |= {(room.rest, *way): -way.count(size) for way in last}
        rows.append(Row(f"replicas_of_{size}", {size: 1}, held, 0))
    return rows


def fillings(sizes: list[int], room: int) -> Iterator[tuple[int, ...]]:
    """Ways to fill a server to which nothing can be added, each as its sizes, the largest first.

    >>> list(fillings([2, 3], 5))
    [(3, 2), (2, 2)]
    """
    smallest = min(sizes, default=room + 1)

    def fill(left: int, largest: int) -> Iterator[tuple[int, ...]]:
        if left < smallest:
            yield ()
            return
        for size in sorted((s for s in sizes if s <= min(left, largest)), reverse=True):
            for rest in fill(left - size, size):
                yield (size, *rest)

    if room >= smallest:
        yield from fill(room, room)
