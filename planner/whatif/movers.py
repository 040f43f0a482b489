"""Changes of hardware, technique and session that might make a long context cheaper, each to be planned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from catalog.schema import Hardware
from planner.clusters import sizes_of
from planner.errors import InputError
from planner.limits import limits_of
from planner.problem import Problem
from planner.request import Request, resolve_cluster

GPUS = ("H100", "H200", "B200", "MI300X")
"""Whose clusters of the same size are tried."""
MOST_LOSS = 0.5


@dataclass(frozen=True)
class Change:
    """One change, as a request and in words."""

    words: str
    request: Request


def changes(problem: Problem, request: Request, *, own_price: bool) -> list[Change]:
    """Changes of a request that might lower its cost: quality, session, limits, hardware.

    Parameters
    ----------
    own_price
        The request's price is for its own GPU only; other GPUs have theirs.
    """
    found = []
    budget = min(2.0 * request.max_quality_loss, MOST_LOSS) or 0.05
    found.append(
        Change(
            f"twice the quality budget (--max-quality-loss {budget * 100:g}%)", _with(request, max_quality_loss=budget)
        )
    )
    rounds = min(4 * request.rounds, 1000)
    found.append(Change(f"more questions per document (--rounds {rounds})", _with(request, rounds=rounds)))
    for limit, amount in reversed(limits_of(request)):
        if limit.at_least or limit.of_options:
            continue
        twice = _with(request, **{limit.field: 2.0 * amount})
        found.append(Change(f"twice the limit ({limit.typed(2.0 * amount)})", twice))
    sizes = sizes_of(problem)
    if sizes is not None:
        text = sizes.text(2 * sizes.count)
        found.append(Change(f"twice the GPUs (--gpus {text})", _with(request, gpus=text)))
    found += _other_gpus(problem, request, own_price=own_price)
    return found


def _other_gpus(problem: Problem, request: Request, *, own_price: bool) -> Iterator[Change]:
    cluster, catalog = problem.cluster, problem.catalog
    counts = re.match(r"^(?:\s*[0-9]+\s*[x×])+\s*", request.gpus, re.IGNORECASE)
    prefix = counts.group() if counts and cluster.assumed_node else f"{cluster.gpus}x"
    for name in GPUS:
        if not catalog.has(Hardware, name) or catalog.get(Hardware, name) == cluster.hardware:
            continue
        text = f"{prefix}{name}"
        try:
            resolve_cluster(text, catalog)
        except InputError:
            continue
        price = None if own_price else request.usd_per_gpu_hour
        yield Change(f"--gpus {text}", _with(request, gpus=text, usd_per_gpu_hour=price))


def _with(request: Request, **changed: object) -> Request:
    return request.model_copy(update=changed)
