"""What the operator's page says of several kinds of replicas."""

from __future__ import annotations

from collections.abc import Callable

from planner.emit.deployment import Deployment

PLACES_NOTE = (
    "- Without that message a session holds its place until it is forgotten: new sessions then go round by places, and "
    "may come where all places are taken while another instance has one."
)
KINDS_NOTE = (
    " The router's address answers from all kinds of replicas; ask an instance of each kind at its own address where "
    "their compression differs."
)


def said_of_kinds(deployment: Deployment, say: Callable[[Deployment], str]) -> list[str]:
    """Say something of every kind of replica, by name; once where it is the same of all."""
    if not deployment.services:
        return [say(deployment)]
    texts = {kind.pools[0].name: say(kind) for kind in deployment.services}
    if len(set(texts.values())) == 1:
        return list(texts.values())[:1]
    return [f"{name}: {text}" for name, text in texts.items()]


def kinds_table(deployment: Deployment) -> list[str]:
    """Return what each kind is to serve, as a Markdown table after the cluster's; empty where there is one kind."""
    if not deployment.services:
        return []
    rows = [
        "",
        "Of that, by kind; the router counts an instance's sessions against its places:",
        "",
        "| kind | instances | users | answers per hour | places of a replica | time to first token, idle |",
        "|---|---|---|---|---|---|",
    ]
    for kind in deployment.services:
        (pool,), metrics = kind.pools, kind.metrics
        first_s = metrics.latency.ttft_s.idle
        first = "not applicable" if first_s is None else f"{first_s:.4g} s"
        rows.append(
            f"| {pool.name} | {pool.instances} | {metrics.users:.1f} | {metrics.interactions_per_hour:.1f} | "
            f"{pool.places} | {first} |"
        )
    return rows
