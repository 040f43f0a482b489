"""What a request's pins leave of a space of decisions, and whether a plan keeps them.

A pin without a role holds in every group that has the field. Pins that hold in every role shorten the
space's menus; those of one role are asked of each split and batch in that role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalog.load import Catalog
from catalog.schema import Engine, Technique
from planner.errors import InputError
from planner.pins import FIELDS, ROLES, Pin, Role, read_pins
from planner.service import DIMENSIONS, UNCOMPRESSED, Service

if TYPE_CHECKING:
    from planner.problem import Problem
    from planner.space.space import Space
    from planner.space.splits import Split

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
T = TypeVar("T")

SIZES = ("tp", "pp", "dcp", "pcp", "ep")


@dataclass(frozen=True)
class Pins:
    """The fields that a request fixes."""

    pins: tuple[Pin, ...] = ()

    @staticmethod
    def of(text: str | None) -> Pins:
        """As a request states them."""
        return Pins() if text is None else Pins(read_pins(text))

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """Groups that a plan may have."""
        named = next((str(pin.value).split("+") for pin in self.pins if pin.field == "roles"), list(ROLES))
        return tuple(role for role in ROLES if role in named)

    def wanted(self, field: str, role: Role | None = None) -> Any:
        """The value of a field in the groups of a role, or in all groups that have it; None: it is free."""
        found = [p.value for p in self.pins if p.field == field and (p.role is None or p.role == role)]
        return found[0] if found else None

    def values(self, field: str) -> tuple[int, ...]:
        """Every value that a counted field is fixed to in some role: menus that lack one get it."""
        return tuple(sorted({int(p.value) for p in self.pins if p.field == field}))

    def is_free(self, field: str) -> bool:
        """Whether a group of some role may have any value of a field."""
        return any(role in self.roles and self.wanted(field, role) is None for role in FIELDS[field].roles)

    # ------------------------------------------------------------- predicates of one role

    def allows_split(self, role: Role, split: Split) -> bool:
        """Whether the groups of a role may be split so, and the cluster holds as many replicas as they should have."""
        if role not in self.roles:
            return False
        if any(self.wanted(size, role) not in (None, getattr(split, size)) for size in SIZES):
            return False
        replicas = self.wanted("replicas", role)
        return replicas is None or (replicas <= split.replicas and replicas % split.replica_step == 0)

    def allows_batch(
        self, role: Role, decode_sequences: Ints | int, *, alone: bool, chunk: Ints | int | None = None
    ) -> Bools:
        """Which decode caps and chunks the groups of a role may have; broadcast.

        Parameters
        ----------
        role
            Of the groups.
        decode_sequences
            Of a replica, over all its stages.
        alone
            Whether one session at a time is resident although more might fit.
        chunk
            Prefill chunk; None: not asked [tokens].
        """
        keep = np.asarray(np.full(np.shape(decode_sequences), role in self.roles))
        wanted = self.wanted("decode_sequences", role)
        if wanted is not None:
            keep = keep & (np.asarray(decode_sequences) == wanted)
        resident = self.wanted("resident_sessions", role)
        if resident is not None:
            keep = keep & (alone == (resident == 1))
        wanted = self.wanted("prefill_chunk_tokens", role)
        if wanted is not None and chunk is not None:
            keep = keep & (np.asarray(chunk) == wanted)
        return keep

    def allows_replicas(self, role: Role, replicas: Ints) -> Bools:
        """Which numbers of replicas the groups of a role may have."""
        wanted = self.wanted("replicas", role)
        return np.full(replicas.shape, True) if wanted is None else np.asarray(replicas == wanted)

    def resident(self, role: Role) -> int:
        """Sessions that a replica may hold at most; 0: as many as fit."""
        return int(self.wanted("resident_sessions", role) or 0)

    # ------------------------------------------------------------- does a plan keep them

    def broken(self, service: Service, catalog: Catalog) -> list[str]:
        """Pins that a service doesn't keep, each with what it has instead."""
        groups = _groups(service)
        problems = []
        if not set(groups) <= set(self.roles):
            problems.append(f"roles: {'+'.join(groups)}, but --pin roles={'+'.join(self.roles)}")
        for pin in self.pins:
            for role, fields in groups.items():
                if pin.field == "roles" or role not in pin.roles:
                    continue
                has = fields[pin.field]
                named = {pin.value}
                if pin.field in DIMENSIONS:
                    named = set(points_of(str(pin.value), pin.field, catalog))
                if has not in named:
                    problems.append(f"{role}.{pin.field}: {has}, but --pin {pin.text}")
        return problems


NO_PINS = Pins()
"""Everything is free."""


def _groups(service: Service) -> Mapping[Role, Mapping[str, Any]]:
    """The groups of a service by role, each with the fields that can be fixed."""
    shared: dict[str, Any] = {
        "engine": service.engine,
        "weights": service.weights,
        "policy": service.offload.policy,
        "tier": service.offload.tier,
        **{name: _point(name, service) for name in DIMENSIONS},
    }

    def group(of: Any, throttled: bool) -> dict[str, Any]:
        return {**shared, **of.parallel.model_dump(), **of.batch.model_dump(), "prefill_throttled": throttled}

    if service.pools is None:
        return {"serve": group(service, service.batch.prefill_throttled)}
    throttled = service.pools.prefill.batch.prefill_throttled
    return {
        "prefill": group(service.pools.prefill, throttled),
        "decode": group(service.pools.decode, throttled),
    }


def _point(dimension: str, service: Service) -> str:
    """Id of a dimension's choice as a space's options have it."""
    choice = getattr(service.compression, dimension)
    return "none" if choice.technique in ("none", UNCOMPRESSED[dimension]) else choice.point or choice.technique


# ----------------------------------------------------------------- a space under pins


def pinned(space: Space, problem: Problem) -> Space:
    """The space without what pins rule out.

    Raises
    ------
    InputError
        With every pin for which nothing of the space is left, and what there would be.
    """
    pins = space.pins
    if not pins.pins:
        return space
    menus = _Menus(pins, space, problem)
    changes = menus.changes()
    if menus.problems:
        raise InputError(menus.problems)
    return replace(space, **changes)


class _Menus:
    """Each menu of a space, shortened."""

    def __init__(self, pins: Pins, space: Space, problem: Problem) -> None:
        self.pins, self.space, self.problem = pins, space, problem
        self.problems: list[str] = []

    def changes(self) -> dict[str, Any]:
        """Fields of the space to replace."""
        space, wanted = self.space, self.pins.wanted
        engines = self._left("engine", space.engines, lambda engine: engine.id)
        throttled = wanted("prefill_throttled")
        if throttled is not None:
            able = [engine for engine in engines if (engine.long_prefill_throttle is not None) == throttled]
            self._told("prefill_throttled", engines, able, "no engine here has that")
            engines = tuple(able)
        changes: dict[str, Any] = {
            "engines": engines,
            "weights": self._left("weights", space.weights, lambda option: option.id),
            "options": {name: self._options(name) for name in DIMENSIONS},
            "policies": self._policies(),
            "splits": self._splits(),
            "chunks": self._chunks(engines),
            "pool_chunk": wanted("prefill_chunk_tokens", "prefill") or space.pool_chunk,
        }
        changes["sequences"] = self._sequences(changes["splits"])
        changes["aggregated"] = space.aggregated and "serve" in self.pins.roles
        changes["disaggregated"] = space.disaggregated and "prefill" in self.pins.roles
        if not changes["aggregated"] and not changes["disaggregated"]:
            self.problems.append("--pin roles=prefill+decode: no engine here serves with separate pools on these GPUs")
        return changes

    def _told(self, field: str, before: Sequence[object], left: Sequence[object], instead: str) -> None:
        """Note a pin that leaves nothing of what there was."""
        if before and not left:
            texts = [pin.text for pin in self.pins.pins if pin.field == field]
            self.problems.append(f"--pin {','.join(texts)}: {instead}")

    def _left(self, field: str, menu: tuple[T, ...], name: Callable[[T], str]) -> tuple[T, ...]:
        wanted = self.pins.wanted(field)
        if wanted is None:
            return menu
        left = tuple(one for one in menu if name(one) == wanted)
        self._told(field, menu, left, f"not available here; use one of {', '.join(sorted(map(name, menu)))}")
        return left

    def _options(self, dimension: str) -> tuple[Any, ...]:
        menu, wanted = self.space.options[dimension], self.pins.wanted(dimension)
        if wanted is None:
            return menu
        try:
            ids = points_of(str(wanted), dimension, self.problem.catalog)
        except InputError as error:
            self.problems += error.problems
            return menu
        left = tuple(option for option in menu if option.id in ids)
        why = next((self.space.dropped[name] for name in sorted(ids) if name in self.space.dropped), None)
        known = ", ".join(option.id for option in menu)
        self._told(dimension, menu, left, why or f"not available here; use one of {known}")
        return left

    def _policies(self) -> tuple[Any, ...]:
        menu, wanted = self.space.policies, self.pins.wanted
        left = tuple(
            one for one in menu if wanted("policy") in (None, one.policy) and wanted("tier") in (None, one.tier)
        )
        field = "policy" if wanted("policy") is not None else "tier"
        self._told(field, menu, left, f"not available here; there is {', '.join(one.id for one in menu)}")
        return left

    def _splits(self) -> tuple[Split, ...]:
        menu, pins = self.space.splits, self.pins
        roles = [role for role in pins.roles if role != "prefill" or self.space.disaggregated]
        left = tuple(split for split in menu if any(pins.allows_split(role, split) for role in roles))
        if menu and not left:
            texts = [pin.text for pin in pins.pins if pin.field in (*SIZES, "replicas")]
            have = "; ".join(f"{size} {_listed(getattr(split, size) for split in menu)}" for size in SIZES)
            self.problems.append(
                f"--pin {','.join(texts)}: no split of {self.problem.model_name} here is so; there is {have}, "
                f"and up to {max(split.replicas for split in menu)} replicas"
            )
        return left

    def _chunks(self, engines: Sequence[Engine]) -> tuple[int, ...]:
        menu, values = self.space.chunks, self.pins.values("prefill_chunk_tokens")
        if engines and not any(engine.chunked_prefill for engine in engines):
            self._told("prefill_chunk_tokens", values, [v for v in values if v in menu], "no engine here has chunks")
            return menu
        return self._numbers("prefill_chunk_tokens", menu, values)

    def _numbers(self, field: str, menu: tuple[int, ...], values: Iterable[int]) -> tuple[int, ...]:
        """A menu of numbers: those that are fixed, and the menu's own where some role is free."""
        found = set(values)
        if not found:
            return menu
        return tuple(sorted(found | {*menu} if self.pins.is_free(field) else found))

    def _sequences(self, splits: tuple[Split, ...]) -> tuple[int, ...]:
        """Decode caps of a stage: what is fixed is the whole replica's."""
        caps = self.pins.values("decode_sequences")
        if not caps:
            return self.space.sequences
        stages = {split.pp for split in splits}
        each = {cap // pp for cap in caps for pp in stages if cap % pp == 0}
        left = self._numbers("decode_sequences", self.space.sequences, each)
        if stages and not each:
            self._told("decode_sequences", ("any",), (), f"isn't a multiple of pp, which is {_listed(stages)} here")
        return left


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(sizes))))


def points_of(name: str, dimension: str, catalog: Catalog) -> frozenset[str]:
    """Ids of the options that a technique's or a point's name means.

    Raises
    ------
    InputError
        If the catalog has no such technique, or it is one of another dimension.
    """
    if name in ("none", UNCOMPRESSED[dimension]):
        return frozenset(("none",))
    try:
        if catalog.has(Technique, name):
            technique = catalog.get(Technique, name)
            points = technique.points
        else:
            technique, point = catalog.point(name)
            points = (point,)
    except LookupError as error:
        raise InputError(f"--pin {dimension}={name}: {error}") from None
    if technique.dimension != dimension:
        raise InputError(f"--pin {dimension}={name}: {technique.id} works on the {technique.dimension} dimension")
    return frozenset(point.id for point in points)
