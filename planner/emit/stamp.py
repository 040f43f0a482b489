"""The stamp in every file: of which plan it is.

The decision itself stands in ``plan.json`` beside the files. A file only carries its hash, so that ``plan import``
can tell whether the ``plan.json`` that it finds is the file's own, and take from it what no flag expresses
(resident sessions, the techniques' names).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.launch import Launch
from planner.emit.quoting import comment, json_line
from planner.service import Service

HASH_KEY = "plan/hash"
POOL_KEY = "plan/pool"
HASH_WORD = "plan-hash:"
_NOT_DEPLOYED = {"users_per_replica"}
"""A promise, which no flag says."""
HASH_DIGITS = 12
"""Of a SHA-256, in hexadecimal: enough to tell an operator's plans apart."""


def decision_hash(service: Service) -> str:
    """Return the short hash of a decision of one service: the same for equal ones, however their file is written."""
    text = json_line(service.model_dump(mode="json", exclude=_NOT_DEPLOYED))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:HASH_DIGITS]


def services_hash(services: Sequence[Service]) -> str:
    """Return the short hash of a decision: of its service, or of all of them."""
    found = [decision_hash(service) for service in services]
    if len(found) == 1:
        return found[0]
    return hashlib.sha256(json_line(found).encode("ascii")).hexdigest()[:HASH_DIGITS]


def deployment_hash(deployment: Deployment) -> str:
    """Return the hash of what a deployment's plan decides: of its service, or of all of them."""
    return services_hash([one.decision for one in deployment.services] or [deployment.decision])


def header(deployment: Deployment, launch: Launch, program: str | None = None) -> str:
    """Return the comment lines with which a shell or YAML file begins.

    ``program`` names what the file starts where it isn't the launch's engine.
    """
    provenance = deployment.document.provenance
    engine = f"{launch.engine} {launch.version}"
    # The only pool needs no name.
    part = f"{launch.pool.role} pool" if not launch.pool.kind else f"kind {launch.pool.kind}"
    what = engine if launch.pool.name == "serve" else f"{engine} {part}"
    lines = [
        comment(f"{program or what} for {deployment.served_name}"),
        comment(f"catalog {provenance.catalog_hash}, efficiency {provenance.efficiency}; edit the plan, not this file"),
        comment(f"{HASH_WORD} {deployment_hash(deployment)} (the decision is in plan.json)"),
    ]
    return "\n".join(lines) + "\n"


def stamp_of(deployment: Deployment, pool: PoolPlan) -> dict[str, str]:
    """Return Kubernetes annotations, or labels of compose, with the stamp."""
    return {HASH_KEY: deployment_hash(deployment), POOL_KEY: pool.name}
