"""Several kinds of replicas side by side, as one deployment: their names, places and servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from planner.decision import WEIGHING_ROUTER, Decision, Group, group_name, place
from planner.emit.deployment import Deployment
from planner.emit.running import Running
from planner.emit.weighing import places
from planner.errors import InputError
from planner.plan import Metrics

_NAME = re.compile(r"(?!rank)[a-z0-9]{1,8}")
"""Ids of groups that are part of every name that Kubernetes and HAProxy know."""


def check_kinds(
    decision: Decision, checkpoint: str | None, engine_version: str | None, running: Running | None
) -> None:
    """Refuse what several kinds can't be deployed with.

    Parameters
    ----------
    decision
        With several services.
    checkpoint, engine_version, running
        What the operator named, if anything.

    Raises
    ------
    InputError
        With every reason.
    """
    problems = []
    if any(group.role != "serve" for group in decision.groups):
        problems.append(
            "the plan: a prefill and a decode pool stand beside other replicas, and no router hands requests from one "
            "pool to the other and knows places too; plan with --pin roles=serve"
        )
    if decision.router.id not in (None, WEIGHING_ROUTER):
        problems.append(
            f"the plan: decision.router.id {decision.router.id}: before several kinds of replicas {WEIGHING_ROUTER} is "
            "written; leave it out"
        )
    if checkpoint is not None and len({group.weights for group in decision.groups}) > 1:
        problems.append(
            "--checkpoint: the plan's kinds of replicas have different weights, and one checkpoint is named; leave it "
            "out, or plan with --weights"
        )
    if engine_version is not None and len({group.engine for group in decision.groups}) > 1:
        problems.append("--engine-version: the plan's kinds of replicas run different engines; leave it out")
    if running is not None:
        problems.append(
            "the plan: several kinds of replicas can't take the place of one server; plan for fewer GPUs, or one kind"
        )
    if problems:
        raise InputError(problems)


def metrics_of_kind(metrics: Metrics, decision: Decision, index: int) -> Metrics:
    """Return the metrics of one service of a decision; what is told of the cluster only stays the cluster's.

    Parameters
    ----------
    metrics
        Of the decision.
    decision
        Its services.
    index
        Of the service.
    """
    own = metrics.services[index]
    rows = [row for row, group in enumerate(decision.groups) if group in decision.groups_of_services[index]]
    return metrics.model_copy(
        update={
            "concurrency": own.concurrency,
            "users": own.users,
            "interactions_per_hour": own.interactions_per_hour,
            "latency": own.latency,
            "services": (own,),
            "groups": tuple(metrics.groups[row] for row in rows),
        }
    )


def side_by_side(decision: Decision, metrics: Metrics, kinds: Sequence[Deployment]) -> Deployment:
    """Return the deployments of a decision's services as one, behind a router that knows their places.

    Raises
    ------
    InputError
        If a replica finds no room on the cluster's servers.
    """
    groups = decision.groups
    shares = {group.id: decision.router.weights.get(group.id, 0.0) for group in groups}
    if not all(shares.values()):
        shares = {group.id: float(group.replicas) for group in groups}
    each = places(shares, {group.id: group.replicas for group in groups})
    names = _names(groups)
    where = _servers(groups, kinds)
    found = [
        replace(kind, pools=(replace(pool, kind=names[row], places=each[group.id], servers=where[row]),))
        for row, (group, kind) in enumerate(zip(groups, kinds, strict=True))
        for pool in kind.pools
    ]
    at_most = [kind.requests_at_most or 0 for kind in found]
    found = [replace(kind, others_at_most=sum(at_most) - own) for kind, own in zip(found, at_most, strict=True)]
    return replace(
        found[0],
        metrics=metrics,
        pools=tuple(pool for kind in found for pool in kind.pools),
        notes=tuple(dict.fromkeys(note for kind in found for note in kind.notes)),
        services=tuple(found),
        others_at_most=0,
    )


def _names(groups: Sequence[Group]) -> list[str]:
    """Return the groups' ids where they may be part of names everywhere, else letters."""
    own = [group.id for group in groups]
    return own if all(_NAME.fullmatch(name) for name in own) else [group_name(row) for row in range(len(groups))]


def _servers(groups: Sequence[Group], kinds: Sequence[Deployment]) -> list[tuple[int, ...]]:
    """Return the server of each instance: the plan's, else the first that has room."""
    cluster = kinds[0].cluster
    told = [tuple(one.server for one in group.servers for _ in range(one.replicas)) for group in groups]
    pools = [kind.pools[0] for kind in kinds]
    if all(len(servers) == pool.instances for servers, pool in zip(told, pools, strict=True)):
        return told
    placed = place([(pool.instance_gpus, pool.instances) for pool in pools], cluster.gpus, cluster.gpus_per_node)
    problems = [
        f"the plan: group {group.id}: {pool.instances} instances of {pool.instance_gpus} GPUs find no room on servers "
        f"of {cluster.gpus_per_node} beside the others; use fewer replicas"
        for group, pool, servers in zip(groups, pools, placed, strict=True)
        if servers is None
    ]
    if problems:
        raise InputError(problems)
    return [tuple(servers or ()) for servers in placed]
