"""The router before several instances: the same session to the same instance, and no more than fit.

Idle sessions live in an LRU prefix cache, nothing reserves their memory; a session that comes back to
another instance, or too many at once, would prefill everything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.emit.deployment import Deployment, Role
from planner.emit.flags import problems_of_flags
from planner.emit.launch import Flags, flag_words
from planner.errors import InputError

IMAGE = "python:3.12-slim"
"""The router is installed into it at its pinned version; it publishes no image that is known here."""
PORT = 30000
SESSION_HEADER = "X-Session-ID"
LOAD_SECONDS = 7200
"""How long instances may take to load before they count as broken [s]."""
BOOTSTRAP_PORT = 8998
"""On which SGLang's prefill instances meet their decode instances."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router's package and how it is started."""

    name: str
    version: str
    program: tuple[str, ...]
    policy: str
    pool_flags: Flags
    """Flags for separate prefill and decode pools."""

    @property
    def requirement(self) -> str:
        """Return the pinned package."""
        return f"{self.name}=={self.version}"


VLLM_ROUTER = Router(
    "vllm-router",
    "0.1.17",
    ("vllm-router",),
    "consistent_hash",
    (("--vllm-pd-disaggregation", True), ("--kv-connector", "nixl")),
)
SGLANG_ROUTER = Router(
    "sglang-router",
    "0.3.2",
    ("python3", "-m", "sglang_router.launch_router"),
    "cache_aware",
    (("--pd-disaggregation", True),),
)


def router_of(deployment: Deployment) -> Router:
    """Return the router: vLLM's serves any engine, but SGLang's pools speak only with their own."""
    return SGLANG_ROUTER if deployment.engine.id == "sglang" and len(deployment.pools) > 1 else VLLM_ROUTER


def is_routed(deployment: Deployment) -> bool:
    """Tell whether there is more than one instance to choose from."""
    return len(deployment.pools) > 1 or any(pool.instances > 1 for pool in deployment.pools)


def admission_cap(deployment: Deployment) -> int | None:
    """Requests that may be in the system at a time, over all replicas; None if the plan counts no sessions."""
    pool = deployment.pools[-1]
    most = deployment.requests_at_most(pool)
    return None if most is None else most * pool.replicas


def router_flags(deployment: Deployment) -> Flags:
    """Return the flags that don't depend on where the instances are.

    Raises
    ------
    InputError
        If the pinned router would refuse one.
    """
    router = router_of(deployment)
    flags: Flags = (
        ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--port", PORT),
        ("--policy", router.policy),
        ("--worker-startup-timeout-secs", LOAD_SECONDS),
        ("--request-timeout-secs", LOAD_SECONDS),
    )
    cap = admission_cap(deployment)
    if cap is not None:
        flags += (("--max-concurrent-requests", cap), ("--queue-size", 0))
    if len(deployment.pools) > 1:
        flags += router.pool_flags
    problems = problems_of_flags(flags, router.name, router.version)
    if problems:
        raise InputError(problems)
    return flags


def worker_words(deployment: Deployment, role: Role, address: str) -> list[str]:
    """Return the words that name one instance."""
    words = ["--worker-urls" if role == "serve" else f"--{role}", address]
    if role == "prefill" and router_of(deployment) is SGLANG_ROUTER:
        words.append(str(BOOTSTRAP_PORT))
    return words


def router_words(deployment: Deployment, addresses: Mapping[Role, list[str]]) -> list[str]:
    """Return the router's command line for instances at known addresses, by role."""
    words = [*router_of(deployment).program, *flag_words(router_flags(deployment))]
    for role, found in addresses.items():
        if role == "serve":
            words += ["--worker-urls", *found]
        else:
            words += [word for address in found for word in worker_words(deployment, role, address)]
    return words


def install_and_run(deployment: Deployment, words: list[str]) -> list[str]:
    """Return a command for `IMAGE` that installs the pinned router and becomes it."""
    install = f"pip install --no-cache-dir {router_of(deployment).requirement}"
    return ["sh", "-c", f'{install} && exec "$0" "$@"', *words]
