"""The plan inside every file: which engine version, which catalog, and the decision itself.

What no flag expresses (resident sessions, the techniques' names) is read back from here by
``plan import``.
"""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.launch import Launch
from planner.emit.quoting import comment, json_line

DECISION_KEY = "plan/decision"
POOL_KEY = "plan/pool"
DECISION_LINE = "# plan-decision: "


def decision_text(deployment: Deployment) -> str:
    """Return the decision as one line of JSON."""
    return json_line(deployment.decision.model_dump(mode="json"))


def header(deployment: Deployment, launch: Launch) -> str:
    """Return the comment lines with which a shell or YAML file begins."""
    provenance = deployment.document.provenance
    pool = launch.pool
    lines = [
        comment(f"{launch.engine} {launch.version} for {deployment.served_name}, {pool.role} pool"),
        comment(f"catalog {provenance.catalog_hash}, efficiency {provenance.efficiency}; edit the plan, not this file"),
        DECISION_LINE + decision_text(deployment),
    ]
    return "\n".join(lines) + "\n"


def stamp_of(deployment: Deployment, pool: PoolPlan) -> dict[str, Any]:
    """Return Kubernetes annotations, or labels of compose, with the stamp."""
    return {DECISION_KEY: decision_text(deployment), POOL_KEY: pool.role}
