"""The router before several kinds of replicas: HAProxy, which gives each instance sessions by its number of places.

A replica of eight GPUs serves more users than one of a single GPU. No router of the engines' own projects knows that
(docs/adr/0008-a-router-with-places.md), so that behind them every replica would count as the weakest. HAProxy has
weights; a small program (``places.lua``) keeps a session where it is, and counts how many each instance has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.emit.loading import longest_step_s
from planner.emit.router import LOAD_SECONDS, idle_s, ranks_routed
from planner.errors import InputError

CONFIG, PLACES = "haproxy.cfg", "places.lua"
OLDEST = "2.6"
"""The oldest HAProxy that was run with the emitted files (Debian 12)."""
RANK_HEADER = "X-data-parallel-rank"
MOST_PLACES = 256
"""HAProxy's largest weight."""
CHECK_SECONDS = 30
"""How long a health check may take, at least [s]."""
Platform = Literal["shell", "compose", "kubernetes"]
_RESOLVERS = {
    "compose": ("nameserver dns 127.0.0.11:53",),  # Docker's own
    "kubernetes": ("parse-resolv-conf",),
}


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of one kind as the router sees them."""

    name: str
    addresses: tuple[str, ...]
    """Host and port of each; or the one name under which DNS lists all."""
    places: int
    """Of each, or of each of its ranks: the weight."""
    ranks: int = 1
    """Data-parallel ranks of each that a request's header names."""
    listed: int = 0
    """How many DNS lists under the only address; 0: addresses are those of single instances."""


def places_file() -> str:
    """Return the program that counts sessions."""
    return (Path(__file__).parent / PLACES).read_text(encoding="utf-8")


def places(shares: Mapping[str, float], replicas: Mapping[str, int]) -> dict[str, int]:
    """Return the places of one replica of each kind: the smallest whole numbers in proportion, 256 at most.

    Parameters
    ----------
    shares
        Of new sessions, by kind.
    replicas
        Of each kind.

    Examples
    --------
    >>> places({"a": 0.8, "b": 0.2}, {"a": 1, "b": 1}), places({"a": 0.75, "b": 0.25}, {"a": 1, "b": 2})
    ({'a': 4, 'b': 1}, {'a': 6, 'b': 1})
    """
    each = {name: Fraction(share).limit_denominator(10**9) / replicas[name] for name, share in shares.items()}
    largest = max(each.values())
    ratios = {name: share / largest for name, share in each.items()}

    def error(scale: int) -> float:
        return max(abs(float(ratio * scale) - round(ratio * scale)) for ratio in ratios.values())

    scale = next((n for n in range(1, MOST_PLACES + 1) if error(n) < 1e-6), MOST_PLACES)
    return {name: max(1, round(ratio * scale)) for name, ratio in ratios.items()}


def config_of(
    deployment: Deployment,
    launches: Sequence[Launch],
    addresses: Mapping[str, Sequence[str]],
    *,
    bind: str,
    metrics: str,
    platform: Platform,
) -> str:
    """Return HAProxy's configuration before a deployment of several kinds.

    Parameters
    ----------
    deployment
        The plan.
    launches
        Its kinds.
    addresses
        Of each kind, by its pool's name: of every instance, or the one name under which DNS lists them.
    bind, metrics, platform
        As for `config`.

    Raises
    ------
    InputError
        If the engines answer health checks at different paths.
    """
    paths = sorted({launch.health_path for launch in launches})
    if len(paths) > 1:
        raise InputError(f"the plan: its engines answer health checks at {' and '.join(paths)}; plan with one --engine")
    ranks = {launch.pool.name: ranks_routed(deployment.of(launch.pool)) for launch in launches}
    kinds = [
        Instances(
            name=launch.pool.name,
            addresses=tuple(addresses[launch.pool.name]),
            # A server is a replica, which may be a rank, or an instance whose engine spreads sessions over its ranks.
            places=launch.pool.places * (launch.pool.data_parallel // ranks[launch.pool.name]),
            ranks=ranks[launch.pool.name],
            listed=launch.pool.instances if platform == "kubernetes" else 0,
        )
        for launch in launches
    ]
    return config(
        kinds,
        bind=bind,
        metrics=metrics,
        health=paths[0],
        idle_s=idle_s(deployment),
        request_s=LOAD_SECONDS,
        step_s=max(longest_step_s(deployment.of(launch.pool), launch.pool) for launch in launches),
        platform=platform,
    )


def config(
    kinds: Sequence[Instances],
    *,
    bind: str,
    metrics: str,
    health: str,
    idle_s: int,
    request_s: int,
    step_s: float,
    platform: Platform,
) -> str:
    """Return HAProxy's configuration.

    Parameters
    ----------
    kinds
        The instances.
    bind, metrics
        Host and port for clients, and for whoever reads metrics.
    health
        Path that an instance answers when it is well.
    idle_s
        How long a session may send nothing before it is forgotten [s].
    request_s
        How long a request may take [s].
    step_s
        How long an instance may answer nothing though it is well [s].
    platform
        What knows the instances' names.
    """
    return "\n".join(
        [
            *_GLOBAL,
            *_defaults(request_s, max(CHECK_SECONDS, math.ceil(2 * step_s))),
            *_resolvers(platform),
            "frontend clients",
            f"    bind {bind}",
            *_CLIENTS,
            "frontend metrics",
            f"    bind {metrics}",
            "    http-request use-service prometheus-exporter if { path /metrics }",
            "    http-request return status 404",
            "",
            *_instances(idle_s, health, platform),
            *(line for kind in kinds for line in _servers(kind)),
            "",
        ]
    )


_GLOBAL = (
    "global",
    "    default-path config",
    "    .if version_atleast(3.1)",
    "    tune.lua.bool-sample-conversion normal",
    "    .endif",
    f"    lua-load {PLACES}",
    "    log stdout format raw local0 notice",
    "",
)
_CLIENTS = (
    "    http-request return status 200 if { path /liveness }",
    "    http-request return status 503 if { path /health /readiness } !{ nbsrv(instances) ge 1 }",
    "    http-request return status 200 if { path /health /readiness }",
    "    http-request lua.finish if { path /finish_session }",
    "    http-request return status 200 if { path /finish_session }",
    "    default_backend instances",
    "",
)


def _defaults(request_s: int, check_s: int) -> list[str]:
    return [
        "defaults",
        "    mode http",
        "    log global",
        "    timeout connect 10s",
        f"    timeout client {request_s}s",
        f"    timeout server {request_s}s",
        f"    timeout check {check_s}s",
        "    # An engine closes a connection that idles just when it would be used again.",
        "    option http-server-close",
        "    option redispatch",
        "",
    ]


def _instances(idle_s: int, health: str, platform: Platform) -> list[str]:
    return [
        "backend instances",
        "    # Requests that name no session go round by weight.",
        "    balance roundrobin",
        f"    http-request lua.place {idle_s}",
        f"    http-request set-header {RANK_HEADER} %[var(txn.rank)] if {{ var(txn.rank) -m found }}",
        "    use-server %[var(txn.instance)] if { var(txn.instance) -m found }",
        f"    option httpchk GET {health}",
        "    http-check expect status 200",
        f"    default-server check inter 10s fastinter 1s fall 6 rise 1{_resolved(platform)}",
    ]


def _servers(kind: Instances) -> list[str]:
    """Return a line per instance and rank; DNS gives its addresses to as many servers as it lists."""
    ranks = [f"-rank{rank}" for rank in range(kind.ranks)] if kind.ranks > 1 else [""]
    weight = f"weight {kind.places}"
    if kind.listed:
        return [f"    server-template {kind.name}{rank}- {kind.listed} {kind.addresses[0]} {weight}" for rank in ranks]
    return [
        f"    server {kind.name}{rank}-{index} {address} {weight}"
        for index, address in enumerate(kind.addresses)
        for rank in ranks
    ]


def _resolvers(platform: str) -> list[str]:
    if platform not in _RESOLVERS:
        return []
    return [
        f"resolvers {platform}",
        *(f"    {line}" for line in _RESOLVERS[platform]),
        "    accepted_payload_size 8192",
        "    hold valid 10s",
        "    hold obsolete 10s",
        "",
    ]


def _resolved(platform: str) -> str:
    first = {"compose": "libc,none", "kubernetes": "none"}
    return f" resolvers {platform} init-addr {first[platform]}" if platform in first else ""
