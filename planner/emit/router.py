"""The router before several instances: the same session to the same instance, and no more than fit.

Idle sessions live in an LRU prefix cache, nothing reserves their memory; a session that comes back to
another instance, or too many at once, would prefill everything again.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.emit.deployment import Deployment, Role
from planner.emit.flags import problems_of_flags
from planner.emit.launch import Flags, flag_words
from planner.errors import InputError

VERSION = "0.1.17"
IMAGE = "python:3.12-slim"
"""vllm-router is installed into it at its pinned version; it publishes no image that is known here."""
PORT = 30000
SESSION_HEADER = "X-Session-ID"
LOAD_SECONDS = 7200
"""How long instances may take to load before they count as broken [s]."""


def is_routed(deployment: Deployment) -> bool:
    """Tell whether there is more than one instance to choose from."""
    return len(deployment.pools) > 1 or any(pool.instances > 1 for pool in deployment.pools)


def admission_cap(deployment: Deployment) -> int | None:
    """Requests that may be in the system at a time: one per session that HBM holds; None if the plan counts none."""
    pool = deployment.pools[-1]
    if pool.resident_sessions is None:
        return None
    return max(pool.resident_sessions, pool.sequences) * pool.replicas


def router_flags(deployment: Deployment) -> Flags:
    """Return the flags that don't depend on where the instances are.

    Raises
    ------
    InputError
        If the pinned router would refuse one.
    """
    flags: Flags = (
        ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--port", PORT),
        ("--policy", "consistent_hash"),
        ("--worker-startup-timeout-secs", LOAD_SECONDS),
        ("--request-timeout-secs", LOAD_SECONDS),
    )
    cap = admission_cap(deployment)
    if cap is not None:
        flags += (("--max-concurrent-requests", cap), ("--queue-size", 0))
    if len(deployment.pools) > 1:
        flags += (("--vllm-pd-disaggregation", True), ("--kv-connector", "nixl"))
    problems = problems_of_flags(flags, "vllm-router", VERSION)
    if problems:
        raise InputError(problems)
    return flags


def address_option(role: str) -> str:
    """Return the option that names instances of a role."""
    return "--worker-urls" if role == "serve" else f"--{role}"


def router_words(deployment: Deployment, addresses: Mapping[Role, list[str]]) -> list[str]:
    """Return the router's command line for instances at known addresses, by role."""
    words = ["vllm-router", *flag_words(router_flags(deployment))]
    if len(deployment.pools) == 1:
        return [*words, address_option("serve"), *addresses["serve"]]
    for role, found in addresses.items():
        for address in found:
            words += [address_option(role), address]
    return words


def install_and_run(words: list[str]) -> list[str]:
    """Return a command for `IMAGE` that installs the pinned router and becomes it."""
    return ["sh", "-c", f'pip install --no-cache-dir vllm-router=={VERSION} && exec "$0" "$@"', *words]
