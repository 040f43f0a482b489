"""Making a checkpoint that nobody publishes: once, before anything serves, into the storage that all pods share.

It is a Job (or a service of compose that ends), never a part of a serving pod: that would make it at each start, and
hold GPUs that it needs itself. Serving pods only look whether it is there.
"""

from __future__ import annotations

from typing import Any

from planner.emit.checkpoint import SCRIPT
from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, Launch
from planner.errors import InputError

FILE = "make-checkpoint.yaml"
SERVICE = "make-checkpoint"
_TRIES = 2
_OF_POD = ("image", "imagePullPolicy", "securityContext")
_CHECK_MEMORY = {"cpu": "100m", "memory": "64Mi"}


def making(launches: list[Launch]) -> list[Launch]:
    """Return the launches that make a checkpoint, the first of those that load the same; empty: nothing has to be."""
    makers: dict[str, Launch] = {}
    for launch in launches:
        if launch.makes_checkpoint:
            makers.setdefault(launch.model, launch)
    return list(makers.values())


def script_name(launch: Launch) -> str:
    """Return the file of the program that makes a launch's checkpoint, where kinds' files lie beside each other."""
    return f"{launch.pool.name}-{SCRIPT}" if launch.pool.kind else SCRIPT


def service_name(launches: list[Launch], launch: Launch) -> str | None:
    """Return the service of compose that makes a launch's checkpoint; None: nothing has to be made for it."""
    maker = next((one for one in making(launches) if one.model == launch.model), None)
    if maker is None or not launch.makes_checkpoint:
        return None
    return f"{SERVICE}-{maker.pool.kind}" if maker.pool.kind else SERVICE


def job_name(deployment: Deployment, launch: Launch) -> str:
    """Return the name of the Job that makes a launch's checkpoint, and of the ConfigMap with its program."""
    return f"{deployment.slug}-make-{launch.pool.kind}" if launch.pool.kind else f"{deployment.slug}-make"


def making_words(launch: Launch, models: str) -> list[str]:
    """Return the command that makes the checkpoint below a directory unless it is there."""
    return [
        "sh",
        "-c",
        launch.make_command(f"{CONFIG_DIRECTORY}/{SCRIPT}"),
        launch.model.replace("{models}", models),
    ]


def check_shared(is_shared: bool) -> None:
    """Refuse storage in which what is made once isn't there for all.

    Raises
    ------
    InputError
        If each pod has storage of its own.
    """
    if not is_shared:
        raise InputError(
            "--target kubernetes: the plan's weights have to be made once and kept for all pods, and the cluster file "
            "gives each pod storage of its own (storage.access ReadWriteOnce); give storage.claim or "
            "storage.access ReadWriteMany, or name a checkpoint with --checkpoint"
        )


def check_container(launch: Launch, container: dict[str, Any], models: str) -> dict[str, Any]:
    """Return an init container that says what to do where the checkpoint isn't there; it makes nothing.

    Parameters
    ----------
    launch
        The pod's launch.
    container
        The engine's container, whose image, rights and storage it has.
    models
        Where the storage is mounted.
    """
    told = f"the checkpoint isn't there: apply {FILE}, wait for its Job, then delete this pod"
    looks = f'[ -e "$0" ] || {{ echo "{told}" >&2; exit 1; }}'
    own: dict[str, Any] = {name: container[name] for name in _OF_POD if name in container}
    return {
        "name": "checkpoint-is-there",
        **own,
        "command": ["sh", "-c", looks, launch.model.replace("{models}", models)],
        "resources": {"requests": _CHECK_MEMORY, "limits": {"memory": _CHECK_MEMORY["memory"]}},
        "volumeMounts": [mount for mount in container["volumeMounts"] if mount["name"] == "models"],
    }


def job_documents(
    deployment: Deployment, launch: Launch, pod: dict[str, Any], metadata: dict[str, Any], models: str
) -> list[dict[str, Any]]:
    """Return the Job and its program, for a file that is applied once, before the others.

    Parameters
    ----------
    deployment
        The plan.
    launch
        Whose checkpoint it makes.
    pod
        A serving pod of the launch, whose servers, GPUs, rights and storage the Job has.
    metadata
        Labels and annotations of the pool.
    models
        Where the storage is mounted.
    """
    name = job_name(deployment, launch)
    own = {**metadata, "name": name, "labels": {**metadata["labels"], "app.kubernetes.io/component": "make-checkpoint"}}
    serving = pod["containers"][0]
    kept = (*_OF_POD, "resources")
    config = {"name": "make", "mountPath": CONFIG_DIRECTORY, "readOnly": True}
    # What the engine's own files and disk tier need, the Job doesn't.
    mounts = [m for m in serving["volumeMounts"] if m["name"] not in ("config", "kv")]
    container = {
        "name": SERVICE,
        **{key: serving[key] for key in kept if key in serving},
        "env": [variable for variable in serving["env"] if variable["name"].startswith("HF_")],
        "command": making_words(launch, models),
        "volumeMounts": [*mounts, config],
    }
    volumes = [v for v in pod["volumes"] if v["name"] not in ("config", "kv")]
    dropped = ("containers", "initContainers", "volumes", "terminationGracePeriodSeconds", "topologySpreadConstraints")
    spec = {
        **{key: value for key, value in pod.items() if key not in dropped},
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [*volumes, {"name": "make", "configMap": {"name": name}}],
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": {SCRIPT: launch.checkpoint_script}},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": own,
            "spec": {"backoffLimit": _TRIES, "template": {"metadata": {"labels": own["labels"]}, "spec": spec}},
        },
    ]


def how_to_make(deployment: Deployment, launches: list[Launch], folder: str) -> str:
    """Return the commands with which an operator runs the Jobs, before the others are applied."""
    jobs = " ".join(f"job/{job_name(deployment, launch)}" for launch in making(launches))
    return f"kubectl apply -f {folder}/{FILE} && kubectl wait --for=condition=complete --timeout=-1s {jobs}"
