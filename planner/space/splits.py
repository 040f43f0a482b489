"""How a model may be split over the GPUs of a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from catalog.schema import Engine
from planner.cost.replica import Shape, shape_problems
from planner.problem import Problem
from planner.request import Cluster
from planner.reserve import lost_replicas
from planner.space.pins import Pins

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """One way of splitting a replica, and how many replicas the cluster holds."""

    tp: int = 1
    pp: int = 1
    dcp: int = 1
    pcp: int = 1
    ep: int = 1
    replicas: int = 1
    """The most that fit on the cluster, and that a limit on its GPUs together allows."""
    replica_step: int = 1
    """Replicas come in multiples of this: experts spread over whole replicas."""

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.pp * self.pcp

    @property
    def text(self) -> str:
        """Sizes above 1: ``tp 4 x pp 2``; ``tp 1`` where there are none."""
        sizes = [f"{name} {size}" for name in ("tp", "pp", "dcp", "pcp", "ep") if (size := getattr(self, name)) > 1]
        return " x ".join(sizes) or "tp 1"

    def shape(self, weights: str) -> Shape:
        """The replica's shape with a weight precision."""
        return Shape(self.tp, self.pp, self.dcp, self.pcp, self.ep, weights)


def splits(problem: Problem, engines: tuple[Engine, ...]) -> tuple[Split, ...]:
    """Every split of the model that an engine runs and that fits the cluster, fewest GPUs first."""
    return tuple(sorted(_splits(problem, engines), key=lambda s: (s.gpus, s.pp, s.pcp, s.dcp, s.ep)))


def engine_runs(engine: Engine, split: Split) -> bool:
    """Whether an engine has every parallelism of a split."""
    has = engine.parallelism
    return (
        (split.tp == 1 or has.tensor)
        and (split.pp == 1 or has.pipeline)
        and (split.dcp == 1 or has.decode_context)
        and (split.pcp == 1 or has.prefill_context)
        and (split.ep == 1 or has.expert)
        and (split.ep <= split.tp or has.attention_data)
    )


def replicas_that_fit(cluster: Cluster, gpus: int) -> int:
    """Replicas of so many GPUs that fit: inside servers, or over whole ones.

    >>> from types import SimpleNamespace as Of
    >>> replicas_that_fit(Of(gpus=16, gpus_per_node=8), 4), replicas_that_fit(Of(gpus=24, gpus_per_node=8), 16)
    (4, 1)
    """
    per_node = cluster.gpus_per_node
    if gpus <= per_node:
        whole, rest = divmod(cluster.gpus, per_node)
        return whole * (per_node // gpus) + rest // gpus
    nodes = -(-gpus // per_node)
    return cluster.gpus // per_node // nodes


def fit_together(cluster: Cluster, gpus: int, replicas: Ints, other: int, others: Ints) -> Bools:
    """Whether replicas of two sizes fit side by side: the larger ones first, server by server; broadcast.

    Parameters
    ----------
    gpus, other
        GPUs of a replica of each size.
    replicas, others
        How many there are of each.

    Examples
    --------
    >>> from types import SimpleNamespace as Of
    >>> fit_together(Of(gpus=6, gpus_per_node=3), 2, np.array([1, 1, 2]), 2, np.array([1, 2, 1])).tolist()
    [True, False, False]
    """
    if gpus < other:
        return fit_together(cluster, other, others, gpus, replicas)
    size = cluster.gpus_per_node
    servers, rest = divmod(cluster.gpus, size)
    if gpus > size:
        left = servers - -(-gpus // size) * replicas
        room = left // -(-other // size) if other > size else left * (size // other) + rest // other
        return np.asarray((left >= 0) & (others <= room))
    each = size // gpus
    full = np.minimum(replicas // each, servers)
    last = replicas - full * each
    in_rest = full == servers
    room = full * ((size - each * gpus) // other) + (np.where(in_rest, rest, size) - last * gpus) // other
    room = room + np.where(in_rest, 0, (servers - full - 1) * (size // other) + rest // other)
    return np.asarray((last * gpus <= np.where(in_rest, rest, size)) & (others <= room))


def _splits(problem: Problem, engines: tuple[Engine, ...]) -> Iterator[Split]:
    cluster, architecture = problem.cluster, problem.architecture
    pins = Pins.of(problem.request.pin)
    has_experts = any(layer.experts for layer in architecture.layers)
    tensor = tuple(_tensor(architecture, cluster.gpus_per_node))
    for tp in tensor:
        for pp in _sizes(pins, "pp", min(len(architecture.layers), cluster.gpus // tp)):
            # Prefill context parallelism repeats the weights: worth it where tensor parallelism ends.
            for pcp in _sizes(pins, "pcp", cluster.gpus // (tp * pp), repeats=tp == tensor[-1]):
                replicas = min(replicas_that_fit(cluster, tp * pp * pcp), problem.most_gpus // (tp * pp * pcp))
                if replicas < 1:
                    continue
                for dcp in _sizes(pins, "dcp", tp):
                    plain = Split(tp, pp, dcp, pcp, 1, replicas)
                    candidates = [plain]
                    if has_experts:
                        candidates += _expert_splits(plain, problem)
                    for split in candidates:
                        fits = not shape_problems(architecture, split.shape("bf16"), split.replicas)
                        if fits and any(engine_runs(engine, split) for engine in engines):
                            yield split


def _expert_splits(plain: Split, problem: Problem) -> Iterator[Split]:
    """Experts over the ranks of one replica, or of all replicas (attention is data parallel then).

    Where replicas are kept in reserve, over as many replicas as leave a group when the others are lost.
    """
    if plain.tp > 1:
        yield Split(plain.tp, plain.pp, plain.dcp, plain.pcp, plain.tp, plain.replicas)
    group = 1 << (plain.replicas.bit_length() - 1)
    if problem.request.spare:
        while group > 1 and lost_replicas(problem.cluster, plain.gpus, group) > plain.replicas // group * group - group:
            group //= 2
    if group > 1 and plain.pp == 1 and plain.pcp == 1:
        whole = plain.replicas - plain.replicas % group
        yield Split(plain.tp, plain.pp, plain.dcp, plain.pcp, plain.tp * group, whole, group)


def _tensor(architecture: Architecture, most: int) -> Iterator[int]:
    """Tensor-parallel sizes: ranks hold whole KV heads, or whole groups of ranks share one."""
    heads = {term.kv_heads for layer in architecture.layers for term in layer.cache if term.v_dim}
    for tp in range(1, most + 1):
        if all(max(tp, kv) % min(tp, kv) == 0 for kv in heads):
            yield tp


def _sizes(pins: Pins, name: str, most: int, *, repeats: bool = True) -> tuple[int, ...]:
    """Sizes of a parallelism: powers of two, or 1 alone, and those that a pin names."""
    own = set(_powers_of_two(most)) if repeats else {1}
    return tuple(sorted(own | {size for size in pins.values(name) if size <= most}))


def _powers_of_two(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2
