"""Where checkpoints live in Kubernetes: a claim that outlives pods, so that a model is downloaded once.

Several pods that share a claim are safe: the hub's client downloads a file under a lock, and the others wait for it.
That needs a file system whose locks hold between nodes, as those that offer ReadWriteMany have.
"""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.emit.loading import loading

MANY, ONE = "ReadWriteMany", "ReadWriteOnce"
_GIB = 1 << 30


def claim_name(deployment: Deployment) -> str:
    """Return the name of the claim that holds the plan's checkpoints."""
    return deployment.cluster.site.storage.claim or f"{deployment.slug}-models"


def shares_claim(deployment: Deployment, launches: list[Launch]) -> bool:
    """Tell whether all pods have one claim; else each has its own, since only one may mount it."""
    storage = deployment.cluster.site.storage
    return storage.claim is not None or storage.access != ONE or _pods(launches) == 1


def needs_claim(launch: Launch) -> bool:
    """Tell whether anything is downloaded or made; a directory of the server is mounted as it is."""
    return launch.makes_checkpoint or not launch.model.startswith("/")


def models_claim(deployment: Deployment, launches: list[Launch]) -> dict[str, Any] | None:
    """Return the claim that all pods share; None if there is one already, or each pod has its own."""
    wanted = any(needs_claim(launch) for launch in launches)
    if deployment.cluster.site.storage.claim is not None or not wanted or not shares_claim(deployment, launches):
        return None
    metadata = {"name": claim_name(deployment), "labels": {"app.kubernetes.io/name": deployment.slug}}
    spec = _spec(deployment, launches)
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def models_volume(deployment: Deployment, launches: list[Launch], launch: Launch) -> dict[str, Any]:
    """Return the source of a pod's volume of models."""
    if not needs_claim(launch):
        return {"emptyDir": {}}
    if shares_claim(deployment, launches):
        return {"persistentVolumeClaim": {"claimName": claim_name(deployment)}}
    return {"ephemeral": {"volumeClaimTemplate": {"spec": _spec(deployment, launches)}}}


def claim_note(deployment: Deployment, launches: list[Launch]) -> str | None:
    """Say what the storage has to be able to do."""
    if not any(needs_claim(launch) for launch in launches):
        return None
    storage = deployment.cluster.site.storage
    if not shares_claim(deployment, launches):
        return (
            "each pod has a claim of its own (the cluster file says ReadWriteOnce), which goes with it: one that is "
            "replaced downloads its model again; a ReadWriteMany class or a claim in the cluster file avoids it"
        )
    if storage.claim is not None or _pods(launches) == 1:
        return None
    named = f"storage class {storage.storage_class}" if storage.storage_class else "the cluster's default storage class"
    return (
        f"pods share the claim {claim_name(deployment)}: {named} must offer ReadWriteMany with locks that hold between "
        "nodes (storage.class in the cluster file names another); the first pod downloads, the others wait for its lock"
    )


def _spec(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    storage = deployment.cluster.site.storage
    sizes = {launch.model: loading(deployment, launch).claim_bytes for launch in launches}
    size = storage.size or sum(sizes.values())
    single = _pods(launches) == 1 or not shares_claim(deployment, launches)
    spec: dict[str, Any] = {
        "accessModes": [storage.access or (ONE if single else MANY)],
        "resources": {"requests": {"storage": f"{-(-int(size) // _GIB)}Gi"}},
    }
    return spec if storage.storage_class is None else {**spec, "storageClassName": storage.storage_class}


def _pods(launches: list[Launch]) -> int:
    return sum(launch.pool.instances * launch.nodes for launch in launches)
