"""What an operator should know of the platforms that files are written for, beside the files."""

from __future__ import annotations

from collections.abc import Sequence

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.emit.loading import loading
from planner.emit.platforms.claims import claim_note
from planner.emit.platforms.kserve import TLS_FLAGS
from planner.emit.platforms.network import Where, expert_note, network_warning
from planner.emit.router import key_note, router_note

_PODS = ("kubernetes", "kserve")


def platform_notes(deployment: Deployment, launches: list[Launch], platforms: Sequence[str]) -> list[str]:
    """Return the notes, warnings first.

    Parameters
    ----------
    deployment
        The plan.
    launches
        Its pools.
    platforms
        Those that files are written for; ``shell`` where an engine's own scripts are.
    """
    if not launches[0].is_server:
        return []
    found = [network_warning(deployment, launches, _where(platforms)), expert_note(deployment, launches)]
    if any(name in platforms for name in _PODS):
        found += [claim_note(deployment, launches), _patience(deployment, launches)]
    if "kserve" in platforms and launches[0].engine not in TLS_FLAGS:
        found.append(
            f"{launches[0].engine} serves plain HTTP: where TLS between KServe's parts is switched on, its scheduler "
            "doesn't reach the engine"
        )
    if any(name in platforms for name in ("compose", "kubernetes")):
        found.append(router_note(deployment))
    if any(name != "kserve" for name in platforms):
        found.append(key_note(deployment))
    return [note for note in found if note]


def _where(platforms: Sequence[str]) -> Where:
    """Return what is started that shares least with its like."""
    if any(name in platforms for name in _PODS):
        return "pods"
    return "containers" if "compose" in platforms else "servers"


def _patience(deployment: Deployment, launches: list[Launch]) -> str | None:
    """Say after how long a start counts as broken, where a bandwidth had to be assumed."""
    slowest = max((loading(deployment, launch) for launch in launches), key=lambda found: found.budget_s)
    if slowest.assumption is None:
        return None
    return f"a pod that isn't ready after {slowest.budget_s / 60:.0f} minutes is started again; {slowest.assumption}"
