"""The decision of a plan: groups of replicas on servers, and the router before them.

A group is so many replicas of one kind with one role. A serve group is a service by itself; a decode
group is one together with the prefill group that feeds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from planner.errors import InputError
from planner.service import (
    Batch,
    Compression,
    Count,
    Division,
    OffloadChoice,
    Parallel,
    Part,
    Pool,
    Pools,
    Service,
)

Role = Literal["serve", "prefill", "decode"]

WEIGHING_ROUTER = "haproxy"
"""Gives instances of different size new sessions by their places (docs/adr/0008-a-router-with-places.md)."""
_SHARED = ("engine", "weights", "compression", "offload")
"""What a prefill group and the decode group that it feeds have in common."""


class OnServer(Part):
    """Replicas of a group on one server; a replica of several servers counts at its first."""

    server: int = Field(ge=0)
    """Number of the server, from 0."""
    replicas: Count


class Group(Part):
    """Replicas of one kind and role. What is left out is as for a `planner.service.Service`."""

    id: str = Field(min_length=1, max_length=40)
    role: Role = "serve"
    feeds: tuple[str, ...] = ()
    """Of a prefill group: the decode group that its caches go to."""
    gpu: str | None = None
    """Catalog id of the GPU; None: the cluster's."""
    servers: tuple[OnServer, ...] = ()
    """Where the replicas are; empty: anywhere."""
    replicas: Count = 1
    users_per_replica: Count | None = None
    """Whole users that each replica promises to serve; None: no number is promised per replica."""
    engine: str = "any"
    weights: str = "bf16"
    compression: Compression = Compression()
    parallel: Division = Division()
    batch: Batch = Batch()
    offload: OffloadChoice = OffloadChoice()

    @property
    def pool(self) -> Pool:
        """The group as a pool of a service."""
        return Pool(parallel=Parallel(**_given(self.parallel), replicas=self.replicas), batch=self.batch)

    @property
    def replica_gpus(self) -> int:
        """GPUs of one replica; `parallel.tp` is filled in."""
        return gpus_of(self.parallel)


class Router(Part):
    """Who sends which session where."""

    id: str | None = None
    """The router's program: `WEIGHING_ROUTER` before several kinds; None: the emitted files' own, or none is needed."""
    policy: str | None = None
    """How a new session finds its replica: ``equal`` over replicas of one kind, ``weighted`` over several kinds;
    later questions go where their session is. None: there is one replica."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Share of new sessions by the group that takes them in: of several kinds in proportion to the promised users."""


class Decision(Part):
    """One deployment: everything that the planner may choose."""

    groups: tuple[Group, ...] = Field(min_length=1)
    router: Router = Router()

    @model_validator(mode="after")
    def _groups_make_services(self) -> Decision:
        problems = list(_problems(self.groups))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def services(self) -> tuple[Service, ...]:
        """What the groups make: each serve group, and each decode group with the prefill group that feeds it."""
        return tuple(_service(group, self._fed_by(group)) for group in self.groups if group.role != "prefill")

    @property
    def service(self) -> Service:
        """The only service.

        Raises
        ------
        InputError
            If there are several.
        """
        found = self.services
        if len(found) > 1:
            raise InputError(
                f"the decision has {len(found)} services side by side, and this is told of one only; take a plan of one"
            )
        return found[0]

    @property
    def groups_of_services(self) -> tuple[tuple[Group, ...], ...]:
        """The groups of each service, in the order of `services`: one that serves, or prefill before decode."""
        return tuple(
            tuple(one for one in (self._fed_by(group), group) if one is not None)
            for group in self.groups
            if group.role != "prefill"
        )

    def anywhere_else(self) -> Decision:
        """The decision without its GPU and servers, to be priced on others."""
        there = {"gpu": None, "servers": ()}
        return self.model_copy(update={"groups": tuple(group.model_copy(update=there) for group in self.groups)})

    def _fed_by(self, group: Group) -> Group | None:
        return next((one for one in self.groups if group.id in one.feeds), None)

    @staticmethod
    def of(
        services: Sequence[Service], gpu: str, gpus: int, gpus_per_server: int, names: Sequence[str] | None = None
    ) -> Decision:
        """Tell complete services as groups on the servers of a cluster.

        Parameters
        ----------
        services
            With every `tp` filled in.
        gpu
            Catalog id of the cluster's GPU.
        gpus, gpus_per_server
            Of the cluster, and of one of its servers; the last one may have fewer.
        names
            Ids of the groups; None: a, b, ...

        Returns
        -------
        Decision
            With a router that spreads new sessions evenly over replicas.

        Examples
        --------
        >>> eight, one = (Service(parallel=Parallel(tp=tp)) for tp in (8, 1))
        >>> made = Decision.of([one, eight], "a100", 9, 8)
        >>> [(group.id, group.parallel.tp, group.servers[0].server) for group in made.groups]
        [('a', 1, 1), ('b', 8, 0)]
        """
        groups = Decision.anywhere(services, names).groups
        placed = place([(group.replica_gpus, group.replicas) for group in groups], gpus, gpus_per_server)
        return Decision(
            groups=tuple(
                group.model_copy(update={"gpu": gpu, "servers": _on_servers(where)})
                for group, where in zip(groups, placed, strict=True)
            ),
            router=_even(groups),
        )

    @staticmethod
    def anywhere(services: Sequence[Service], names: Sequence[str] | None = None) -> Decision:
        """Tell services as groups, without a cluster."""
        groups: list[Group] = []
        for service in services:
            count = 1 if service.pools is None else 2
            ids = [names[row] if names else group_name(row) for row in range(len(groups), len(groups) + count)]
            groups += _groups(service, ids)
        return Decision(groups=tuple(groups), router=_even(groups))


def gpus_of(parallel: Division) -> int:
    """GPUs of one replica."""
    return (parallel.tp or 1) * parallel.pp * parallel.pcp


def group_name(place: int) -> str:
    """Return a group's id by its place: letters, as many as it needs.

    >>> group_name(0), group_name(25), group_name(26), group_name(701)
    ('a', 'z', 'aa', 'zz')
    """
    name = ""
    place += 1
    while place:
        place, letter = divmod(place - 1, 26)
        name = chr(ord("a") + letter) + name
    return name


def place(kinds: Sequence[tuple[int, int]], gpus: int, gpus_per_server: int) -> list[list[int] | None]:
    """Place replicas on servers, larger ones first, each on the first server that has room.

    A replica of more GPUs than a server holds takes whole servers, and counts at the first of them.

    Parameters
    ----------
    kinds
        GPUs of a replica, and replicas, for each kind.
    gpus, gpus_per_server
        Of the cluster, and of one of its servers; the last one may have fewer.

    Returns
    -------
    list
        For each kind the server of each replica; None where one finds no room.

    Examples
    --------
    >>> place([(1, 1), (4, 3)], 16, 8), place([(16, 1), (8, 1)], 24, 8), place([(6, 2)], 12, 8)
    ([[1], [0, 0, 1]], [[0], [2]], [None])
    """
    sizes = [min(gpus_per_server, gpus - first) for first in range(0, gpus, gpus_per_server)]
    free = list(sizes)
    placed: list[list[int] | None] = [None] * len(kinds)
    for kind in sorted(range(len(kinds)), key=lambda row: -kinds[row][0]):
        size, replicas = kinds[kind]
        where: list[int] = []
        while len(where) < replicas and (found := _first_room(free, sizes, size)) is not None:
            if size <= sizes[0]:
                free[found] -= size
            else:
                free[found : found + -(-size // sizes[0])] = [0] * -(-size // sizes[0])
            where.append(found)
        placed[kind] = where if len(where) == replicas else None
    return placed


def _first_room(free: Sequence[int], sizes: Sequence[int], gpus: int) -> int | None:
    """Return the first server with so many free GPUs, or the first of enough whole free servers in a row."""
    if gpus <= sizes[0]:
        return next((server for server, left in enumerate(free) if left >= gpus), None)
    servers = -(-gpus // sizes[0])
    for first in range(len(free) - servers + 1):
        row = free[first : first + servers]
        if list(row) == list(sizes[first : first + servers]) and sum(row) >= gpus:
            return first
    return None


def _on_servers(where: Sequence[int] | None) -> tuple[OnServer, ...]:
    return tuple(
        OnServer(server=server, replicas=list(where or ()).count(server)) for server in sorted(set(where or ()))
    )


def _even(groups: Sequence[Group]) -> Router:
    first = [group for group in groups if group.role != "decode"]
    replicas = sum(group.replicas for group in first)
    policy = None if replicas == 1 else "equal" if len(first) == 1 else "weighted"
    return Router(policy=policy, weights={group.id: group.replicas / replicas for group in first})


def _groups(service: Service, ids: Sequence[str]) -> list[Group]:
    shared = {name: getattr(service, name) for name in _SHARED}
    users = {"users_per_replica": service.users_per_replica}
    if service.pools is None:
        pool = Pool(parallel=service.parallel, batch=service.batch)
        return [_group(ids[0], "serve", pool, {**shared, **users})]
    prefill = _group(ids[0], "prefill", service.pools.prefill, {**shared, "feeds": (ids[1],)})
    return [prefill, _group(ids[1], "decode", service.pools.decode, {**shared, **users})]


def _group(name: str, role: Role, pool: Pool, others: dict[str, Any]) -> Group:
    return Group(
        id=name,
        role=role,
        replicas=pool.parallel.replicas,
        parallel=Division(**pool.parallel.model_dump(exclude={"replicas"})),
        batch=pool.batch,
        **others,
    )


def _service(group: Group, prefill: Group | None) -> Service:
    """Make a service that leaves out what its groups leave out."""
    given = {name: getattr(group, name) for name in (*_SHARED, "users_per_replica") if name in group.model_fields_set}
    if given.get("users_per_replica", 0) is None:
        del given["users_per_replica"]
    pool = group.pool
    if group.model_fields_set & {"parallel", "replicas"}:
        given["parallel"] = pool.parallel
    if "batch" in group.model_fields_set:
        given["batch"] = pool.batch
    if prefill is not None:
        given["serving"] = "disaggregated"
        given["pools"] = Pools(prefill=prefill.pool, decode=pool)
    return Service(**given)


def _given(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.model_fields_set}


def _problems(groups: Sequence[Group]) -> Iterable[str]:
    names = [group.id for group in groups]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two groups have the id {name}; give each its own"
    roles = {group.id: group.role for group in groups}
    fed = [name for group in groups for name in group.feeds]
    for group in groups:
        if group.role != "prefill" and group.feeds:
            yield f"group {group.id}: feeds is for a prefill group; leave it out"
        if group.role == "prefill" and (len(group.feeds) != 1 or roles.get(group.feeds[0]) != "decode"):
            yield f"group {group.id}: a prefill group feeds one decode group; name it in feeds"
        if group.role == "decode" and fed.count(group.id) != 1:
            yield f"group {group.id}: a decode group is fed by one prefill group; name it in that group's feeds"
    for group in groups:
        target = next((one for one in groups if one.id in group.feeds), None)
        for name in _SHARED:
            if target is not None and getattr(group, name) != getattr(target, name):
                yield f"group {group.id}: {name} isn't that of group {target.id}, which it feeds; give both the same"
