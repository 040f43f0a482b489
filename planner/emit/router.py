"""The router before several instances: a known session to its instance, a new one to the instance with the fewest.

Idle sessions live in an LRU prefix cache, nothing reserves their memory; a session that comes back to
another instance would prefill everything again. Data-parallel ranks of one instance are caches of their own,
among which the engine itself spreads requests by load: the router names the rank too.

What the pinned routers do was found out by running them (tests/acceptance/test_emit_router.py):
``consistent_hash`` puts sessions together by chance, ``cache_aware`` puts all sessions of a quiet hour on one
instance, and ``--max-concurrent-requests`` is a bucket that refills with time: it limits how many requests
start in a second, not how many are in the system. Instances therefore hold the cap, and the router none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.decision import WEIGHING_ROUTER
from planner.emit.deployment import Deployment, Role
from planner.emit.flags import problems_of_flags, snapshot
from planner.emit.launch import Flags, flag_words
from planner.errors import InputError

PORT = 30000
METRICS_PORT = 29000
LOAD_SECONDS = 7200
"""How long instances may take to load before they count as broken [s]."""
BOOTSTRAP_PORT = 8998
"""On which SGLang's prefill instances meet their decode instances."""
_KNOWS_RANKS = frozenset({"vllm", "sglang"})
"""Engines that take the data-parallel rank from a request's header (``X-data-parallel-rank``)."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router's package and how it is started."""

    name: str
    version: str
    program: tuple[str, ...]
    policy: Flags
    """A known session to its instance, a new one to the least loaded."""
    session_header: str
    """In which a client names its session."""
    idle_setting: str
    """Flag, or environment variable, for how long a session may send nothing before it is forgotten [s]."""
    idle_s: int
    """Its default [s]."""
    pool_flags: Flags
    """Flags for separate prefill and decode pools."""
    image: str
    """The project's own release image."""
    image_program: tuple[str, ...]
    """The command in the image."""
    image_flags: str
    """Name of the snapshot of flags of that command."""
    end_of_session: str = ""
    """Path that tells the router that a session is over; empty if it has none."""
    pool_key: str | None = None
    """Environment variable with the key that it sends to pools instead of the client's, which it doesn't check."""

    @property
    def requirement(self) -> str:
        """Return the pinned package."""
        return f"{self.name}=={self.version}"


VLLM_ROUTER = Router(
    "vllm-router",
    "0.1.17",
    ("vllm-router",),
    (("--policy", "sticky_least_loaded"),),
    "X-Session-ID",
    "VLLM_ROUTER_SLL_SESSION_EXPIRATION_IN_S",
    7200,
    (("--vllm-pd-disaggregation", True), ("--kv-connector", "nixl")),
    # The tag that the project's release pipeline pushes for a version (vllm-project/router,
    # .buildkite/scripts/publish-release-images.sh, e0c942d, read 2026-11-30); it holds the Rust command, which has
    # fewer flags than the Python package's. Nightly tags are deleted after two weeks.
    "vllm/vllm-router:v0.1.17",
    ("vllm-router",),
    "vllm-router-image",
    "/finish_session?session_id=<session>",
    "OPENAI_API_KEY",  # found by running it before engines that show what they are sent, 2026-11-30
)
SGLANG_ROUTER = Router(
    "sglang-router",
    "0.3.2",
    ("python3", "-m", "sglang_router.launch_router"),
    (("--policy", "manual"), ("--assignment-mode", "min_load")),
    "X-SMG-Routing-Key",
    "--max-idle-secs",
    14400,
    (("--pd-disaggregation", True),),
    # On Docker Hub since 2026-05-27; built from docker/gateway.Dockerfile of sgl-project/sglang, which installs the
    # Python package (read 2026-11-30).
    "lmsysorg/sgl-model-gateway:v0.3.2",
    ("python3", "-m", "sglang_router.launch_router"),
    "sglang-router",
)


HAPROXY = Router(
    WEIGHING_ROUTER,
    "3.4.6",
    ("haproxy",),
    (),  # places.lua
    "X-Session-ID",
    "",
    7200,
    (),
    # Docker Official Image: docker-library/haproxy, 3.4/Dockerfile at 0b6d0e8c96b3, which builds it with Lua and the
    # Prometheus exporter (read 2026-12-01).
    "haproxy:3.4.6",
    ("haproxy",),
    "",
    "/finish_session?session_id=<session>",
)
"""Before several kinds of replicas (`planner.emit.weighing`)."""


STATELESS = frozenset({"consistent_hash", "random", "round_robin"})
"""Policies that choose the same instance in every replica of the router, without knowing what it did before."""


def router_of(deployment: Deployment) -> Router:
    """Return the router: vLLM's serves any engine, but SGLang's pools speak only with their own; kinds need places."""
    if deployment.mixed:
        return HAPROXY
    return SGLANG_ROUTER if deployment.engine.id == "sglang" and deployment.disaggregated else VLLM_ROUTER


def is_routed(deployment: Deployment) -> bool:
    """Tell whether there is more than one cache that a session may be in: instances, or their ranks."""
    pools = deployment.pools
    return (
        deployment.mixed or len(pools) > 1 or any(pool.instances > 1 for pool in pools) or ranks_routed(deployment) > 1
    )


def ranks_routed(deployment: Deployment) -> int:
    """Return the data-parallel ranks of each instance among which the router chooses; 1: it chooses instances."""
    ranks = {pool.data_parallel for pool in deployment.pools}
    return ranks.pop() if len(ranks) == 1 and deployment.engine.id in _KNOWS_RANKS else 1


def client_port(deployment: Deployment, engine: int) -> int:
    """Return the port for clients: that of the server before, else the router's, or the only instance's own."""
    kept = deployment.running.port if deployment.running is not None else None
    return kept or (PORT if is_routed(deployment) else engine)


def engine_port(deployment: Deployment, usual: int) -> int:
    """Return the first port of instances: clients' port belongs to the router, if there is one."""
    kept = deployment.running.port if deployment.running is not None else None
    if kept is None:
        return usual
    return kept + 1 if is_routed(deployment) else kept


def router_flags(deployment: Deployment, port: int = PORT, host: str = "0.0.0.0") -> Flags:  # noqa: S104
    """Return the flags that don't depend on where the instances are.

    Raises
    ------
    InputError
        If the pinned router would refuse one.
    """
    router = router_of(deployment)
    flags: Flags = (
        ("--host", host),
        ("--port", port),
        *router.policy,
        ("--worker-startup-timeout-secs", LOAD_SECONDS),
        ("--request-timeout-secs", LOAD_SECONDS),
        # It would take every full instance for a broken one, and then refuse the sessions of all.
        ("--disable-circuit-breaker", True),
    )
    if router.idle_setting.startswith("--") and idle_s(deployment) > router.idle_s:
        flags += ((router.idle_setting, idle_s(deployment)),)
    if deployment.disaggregated:
        flags += router.pool_flags
    if router is VLLM_ROUTER and ranks_routed(deployment) > 1:
        flags += (("--intra-node-data-parallel-size", ranks_routed(deployment)),)
    problems = problems_of_flags(flags, router.name, router.version)
    if problems:
        raise InputError(problems)
    return flags


def router_environment(deployment: Deployment) -> dict[str, str]:
    """Return the environment variables that the router needs, by name."""
    router = router_of(deployment)
    if not router.idle_setting or router.idle_setting.startswith("--") or idle_s(deployment) <= router.idle_s:
        return {}
    return {router.idle_setting: str(idle_s(deployment))}


def idle_s(deployment: Deployment) -> int:
    """Return how long a session may send nothing before the router may forget it [s].

    The router hears of a session when a request arrives: between two of them an answer, those of all other users of
    the instance before it, and the thinking. Twice that, and never less than the router's own default.
    """
    if deployment.services:
        return max(idle_s(service) for service in deployment.services)
    metrics, request, pool = deployment.metrics, deployment.request, deployment.pools[-1]
    cold_s = metrics.latency.ttft_s.full or 0.0
    turn_s = cold_s + request.output_tokens * (metrics.latency.itl_s.full or 0.0)
    users = math.ceil(metrics.users / (pool.replicas - pool.spare_replicas))
    gap_s = deployment.workload.think_s + max(users, 1) * turn_s
    return max(router_of(deployment).idle_s, math.ceil(2 * gap_s))


def worker_words(deployment: Deployment, role: Role, address: str) -> list[str]:
    """Return the words that name one instance."""
    words = ["--worker-urls" if role == "serve" else f"--{role}", address]
    if role == "prefill" and router_of(deployment) is SGLANG_ROUTER:
        words.append(str(BOOTSTRAP_PORT))
    return words


def container_flags(deployment: Deployment) -> Flags:
    """Return the flags of the router in its image: those that its command has, and metrics for whoever asks.

    Raises
    ------
    InputError
        If the command would refuse one.
    """
    router = router_of(deployment)
    known = snapshot(router.image_flags, router.version)["flags"]
    kept = tuple(flag for flag in router_flags(deployment) if flag[0] in known)
    flags: Flags = (
        *kept,
        ("--prometheus-host", "0.0.0.0"),  # noqa: S104 - a scraper reaches it
        ("--prometheus-port", METRICS_PORT),
    )
    problems = problems_of_flags(flags, router.image_flags, router.version)
    if problems:
        raise InputError(problems)
    return flags


def router_replicas(deployment: Deployment) -> int:
    """Return how many routers may run side by side: two, so that one may go, where they agree without talking."""
    if deployment.mixed:
        return 1
    return 2 if dict(router_flags(deployment)).get("--policy") in STATELESS else 1


def pool_key(deployment: Deployment) -> str | None:
    """Return the variable with the key that the router needs for its pools; None if it passes the client's key on."""
    return router_of(deployment).pool_key if deployment.disaggregated else None


def key_note(deployment: Deployment) -> str | None:
    """Say that clients need no key, where the router sends its own."""
    if pool_key(deployment) is None:
        return None
    return (
        f"where an API key is set, {router_of(deployment).name} sends it to pools itself and asks clients for none: "
        "put a gateway that does before it"
    )


def router_note(deployment: Deployment) -> str | None:
    """Say what the router's image does otherwise than the package."""
    if not is_routed(deployment) or deployment.mixed:
        return None
    kept = {name for name, _ in container_flags(deployment)}
    lost = [f"{name} {value}" for name, value in router_flags(deployment) if name not in kept]
    if not lost:
        return None
    return f"in containers {router_of(deployment).image} runs, whose command has no {', '.join(lost)}"


def router_words(deployment: Deployment, addresses: Mapping[Role, list[str]], *, in_image: bool = False) -> list[str]:
    """Return the router's command line for instances at known addresses, by role.

    Parameters
    ----------
    deployment
        The plan.
    addresses
        Of its instances.
    in_image
        Whether it is the command of the router's image instead of the package's.
    """
    router = router_of(deployment)
    words = [*(router.image_program if in_image else router.program)]
    words += flag_words(container_flags(deployment) if in_image else router_flags(deployment))
    for role, found in addresses.items():
        if role == "serve":
            words += ["--worker-urls", *found]
        else:
            words += [word for address in found for word in worker_words(deployment, role, address)]
    return words
