"""One server of an instance as a pod: what it needs, what it may do, when it counts as ready, how it goes.

Secrets are named, never written. Both are optional: without them models that need no token are served without a key.
"""

from __future__ import annotations

import math
from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, KEY_VARIABLE, Launch
from planner.emit.lmcache import DISK
from planner.emit.loading import loading, longest_request_s, longest_step_s
from planner.emit.platforms.claims import models_volume, shares_claim
from planner.emit.platforms.making import check_container, check_shared
from planner.emit.platforms.network import (
    leaves_its_pod,
    network_annotations,
    network_environment,
    pod_network,
    rdma_resource,
)
from planner.emit.quoting import kubernetes_argument
from planner.emit.router import BOOTSTRAP_PORT, SGLANG_ROUTER, router_of
from planner.emit.stamp import stamp_of

MODELS_DIRECTORY = "/models"
SECRET = "hf-token"  # noqa: S105 - its name, not its content
"""Secret that holds the model hub's token under the key ``token``; the operator makes it."""
KEY_SECRET = "plan-api-key"  # noqa: S105 - its name, not its content
"""Secret that holds the API's key under the key ``key``; the operator makes it where clients need a key."""
CHECK_SECONDS = 10
GPU_RESOURCE = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
STOP_SECONDS = 15
"""Before an engine is told to stop: until no router sends it anything more; as KServe's presets have it [s]."""
_EXIT_SECONDS = 30
"""For an engine that has nothing left to do."""
_MIB, _GIB = 1 << 20, 1 << 30
_LABELLED_SHARE = 0.9
"""GPUs report a little less memory than their data sheet; nodes must have more than this share of it."""
_PROCESS_BYTES = 4 * _GIB
"""Allowed for each process of an engine, one per GPU and one for the API; an assumption [bytes]."""
_SCRATCH_BYTES = 20 * _GIB
"""Allowed for logs and compiled kernels on the server's disk; an assumption [bytes]."""
_REQUESTABLE = 0.9
"""Of a server's memory: the rest is the system's."""


def pod_name(deployment: Deployment, launch: Launch) -> str:
    """Return the name of a pool's workload."""
    return f"{deployment.slug}-{launch.pool.name}"


def labels(deployment: Deployment, launch: Launch, *, is_worker: bool = False) -> dict[str, str]:
    """Return the labels that select a pool's pods; those of a group's further servers serve no API."""
    component = f"{launch.pool.name}-worker" if is_worker else launch.pool.name
    return {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": component}


def metadata(deployment: Deployment, launch: Launch, name: str | None = None) -> dict[str, Any]:
    """Return name, labels and the plan's stamp."""
    return {
        "name": name or pod_name(deployment, launch),
        "labels": {**labels(deployment, launch), "app.kubernetes.io/version": launch.version},
        "annotations": stamp_of(deployment, launch.pool),
    }


def site_image(deployment: Deployment, image: str) -> str:
    """Return an image, from the cluster's own registry where the cluster file names one."""
    registry = deployment.cluster.site.kubernetes.registry
    return image if registry is None else f"{registry.rstrip('/')}/{image}"


def container_words(launch: Launch) -> tuple[list[str], list[str]]:
    """Return command and arguments of an instance's container; a key that is a flag is added by a shell, if there."""
    words = [word.replace("{models}", MODELS_DIRECTORY) for word in launch.arguments(CONFIG_DIRECTORY)]
    words = [kubernetes_argument(word) for word in words]
    program, arguments = words[: launch.program_words], words[launch.program_words :]
    if launch.key_flag is not None:
        program = ["sh", "-c", f'exec "$0" "$@" {launch.key_words}', *program]
    return program, arguments


def pod_template(
    deployment: Deployment,
    launches: list[Launch],
    launch: Launch,
    words: tuple[list[str], list[str]],
    *,
    is_worker: bool = False,
) -> dict[str, Any]:
    """Return the pod of one server of an instance. Workers of a group serve nothing and aren't probed.

    Parameters
    ----------
    deployment
        The plan.
    launches
        All of its pools, which may share storage.
    launch
        The pod's own.
    words
        Command and arguments of the engine.
    is_worker
        Whether it is a server after an instance's first.
    """
    command, arguments = words
    container: dict[str, Any] = {
        "name": "engine",
        "image": site_image(deployment, launch.image),
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "args": arguments,
        "env": pod_environment(deployment, launch),
        "resources": resources(deployment, launch),
        "securityContext": security(deployment, launch),
        "volumeMounts": _mounts(deployment, launch),
    }
    if not is_worker:
        container["ports"] = [{"name": "http", "containerPort": launch.port, "protocol": "TCP"}]
        container |= probes(deployment, launch)
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": stop_seconds(deployment, launch)}}}
    spec: dict[str, Any] = {
        **_placement(deployment, launch),
        **pod_network(deployment, launch),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds(deployment),
        "containers": [container],
        "volumes": _volumes(deployment, launches, launch),
    }
    if launch.makes_checkpoint:
        check_shared(shares_claim(deployment, launches))
        spec["initContainers"] = [check_container(launch, container, MODELS_DIRECTORY)]
    own = {"labels": labels(deployment, launch, is_worker=is_worker)}
    return {"metadata": {**own, "annotations": _annotations(deployment, launch, is_worker)}, "spec": spec}


def drain_seconds(deployment: Deployment) -> int:
    """Time that an engine gets to finish what it has begun: that of the longest request, whole seconds [s]."""
    return math.ceil(longest_request_s(deployment))


def stop_seconds(deployment: Deployment, launch: Launch) -> int:
    """Time between the decision to stop a pod and the signal: for routers to notice, and for answers if need be [s]."""
    return STOP_SECONDS if launch.drains else STOP_SECONDS + drain_seconds(deployment)


def grace_seconds(deployment: Deployment) -> int:
    """Time between the decision to stop a pod and its end by force [s]."""
    return STOP_SECONDS + drain_seconds(deployment) + _EXIT_SECONDS


def _annotations(deployment: Deployment, launch: Launch, is_worker: bool) -> dict[str, str]:
    found = stamp_of(deployment, launch.pool)
    if leaves_its_pod(deployment, launch):
        found |= network_annotations(deployment)
    if launch.metrics_path is not None and not is_worker:
        found |= scraped(launch.port, launch.metrics_path)
    if launch.pool.role == "prefill" and router_of(deployment) is SGLANG_ROUTER:
        found["sglang.ai/bootstrap-port"] = str(BOOTSTRAP_PORT)
    return found


def scraped(port: int, path: str) -> dict[str, str]:
    """Return the annotations by which Prometheus finds a pod's metrics."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": path}


def probes(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return when a pod counts as started, ready and alive.

    It has started when it has generated, where the engine can be asked so. Later an answer may wait for a step of a
    long prefill, in which nothing is wrong.
    """
    health = {"path": launch.health_path, "port": "http"}
    patience = math.ceil(2 * longest_step_s(deployment.of(launch.pool), launch.pool) / CHECK_SECONDS)
    start = health if launch.generation_path is None else {**health, "path": launch.generation_path}
    period = {"periodSeconds": CHECK_SECONDS}
    tries = -(-loading(deployment, launch).budget_s // CHECK_SECONDS)
    return {
        "startupProbe": {"httpGet": start, **period, "timeoutSeconds": 5, "failureThreshold": tries},
        "readinessProbe": {"httpGet": health, **period, "timeoutSeconds": 5, "failureThreshold": max(3, patience)},
        "livenessProbe": {"httpGet": health, **period, "timeoutSeconds": 30, "failureThreshold": max(6, 2 * patience)},
    }


def security(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return what an engine's container may do: nothing but what its GPUs and its network need.

    The engines' images run as root, and say no other user. AMD's containers need ptrace and no seccomp filter (ROCm's
    documentation, running containers); locked memory is what RDMA registers.
    """
    if deployment.hardware.vendor == "amd":
        return {
            "runAsNonRoot": False,
            "capabilities": {"add": ["SYS_PTRACE", *_locked(deployment, launch)]},
            "seccompProfile": {"type": "Unconfined"},
        }
    locked = _locked(deployment, launch)
    return {
        "runAsNonRoot": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], **({"add": locked} if locked else {})},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _locked(deployment: Deployment, launch: Launch) -> list[str]:
    return ["IPC_LOCK"] if leaves_its_pod(deployment, launch) else []


def pod_environment(deployment: Deployment, launch: Launch) -> list[dict[str, Any]]:
    """Return the variables of an engine's container."""
    environment: list[dict[str, Any]] = [
        {"name": "HF_HOME", "value": f"{MODELS_DIRECTORY}/hub"},
        {"name": "HF_TOKEN", "valueFrom": secret_of(SECRET, "token")},
    ]
    key = launch.key_variable or (KEY_VARIABLE if launch.key_flag else None)
    if key is not None:
        environment.append({"name": key, "valueFrom": secret_of(KEY_SECRET, "key")})
    if launch.pod_address_variable:
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment.append({"name": launch.pod_address_variable, "valueFrom": address})
    own = {name: value.replace("{directory}", CONFIG_DIRECTORY) for name, value in launch.environment.items()}
    shared = network_environment(deployment) if leaves_its_pod(deployment, launch) else {}
    return environment + [{"name": n, "value": kubernetes_argument(v)} for n, v in (shared | own).items()]


def secret_of(name: str, key: str) -> dict[str, Any]:
    """Return a variable's source: a key of a secret that may be missing."""
    return {"secretKeyRef": {"name": name, "key": key, "optional": True}}


def resources(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return what a pod reserves and may take at most; CPU has no limit, which would slow an engine that has work.

    A core per GPU and two more is what vLLM's documentation asks for (optimization, CPU resources). Memory is limited
    to the share of the server that belongs to the pod's GPUs.
    """
    node = deployment.cluster.node
    devices = {GPU_RESOURCE[deployment.hardware.vendor]: str(launch.gpus_per_node)}
    if leaves_its_pod(deployment, launch):
        devices |= rdma_resource(deployment)
    share = int(node.host_memory * launch.gpus_per_node / node.gpus)
    processes = _PROCESS_BYTES * (launch.gpus_per_node + 1)
    tier = max(launch.host_memory_bytes // launch.nodes, 0)
    wanted = min(tier + processes, int(_REQUESTABLE * share)) if tier < _REQUESTABLE * share else tier
    return {
        "limits": {**devices, "memory": str(max(share, wanted))},
        "requests": {
            **devices,
            "cpu": str(launch.gpus_per_node + 2),
            "memory": str(wanted),
            "ephemeral-storage": str(launch.disk_bytes + _SCRATCH_BYTES),
        },
    }


def _placement(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return on which servers a pod may run."""
    site = deployment.cluster.site.kubernetes
    own = [t.model_dump(exclude_none=True) for t in site.tolerations]
    gpu = {"key": GPU_RESOURCE[deployment.hardware.vendor], "operator": "Exists", "effect": "NoSchedule"}
    found: dict[str, Any] = {
        "nodeSelector": {**_gpu_labels(deployment), **site.node_selector},
        "affinity": _memory_affinity(deployment),
        "tolerations": [gpu, *own],
        "priorityClassName": site.priority_class,
        "runtimeClassName": site.runtime_class,
        "imagePullSecrets": [{"name": name} for name in site.pull_secrets],
    }
    if launch.pool.instances > 1 and launch.nodes == 1:
        spread = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
        found["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": labels(deployment, launch)}}]
    return {key: value for key, value in found.items() if value}


def _gpu_labels(deployment: Deployment) -> dict[str, str]:
    """Select nodes by the labels of NVIDIA's GPU feature discovery; AMD's are left to the resource name."""
    if deployment.hardware.vendor != "nvidia":
        return {}
    major, _, minor = deployment.hardware.compute_capability.partition(".")
    return {"nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": minor}


def _memory_affinity(deployment: Deployment) -> dict[str, Any]:
    if deployment.hardware.vendor != "nvidia":
        return {}
    least = str(int(deployment.hardware.hbm * _LABELLED_SHARE / _MIB))
    term = {"matchExpressions": [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [least]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _mounts(deployment: Deployment, launch: Launch) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - where ranks talk
        {"name": "models", "mountPath": MODELS_DIRECTORY},
    ]
    if launch.files:
        mounts.append({"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True})
    if launch.disk_bytes:
        mounts.append({"name": "kv", "mountPath": DISK})
    for index, path in enumerate(deployment.of(launch.pool).local_paths):
        mounts.append({"name": f"local-{index}", "mountPath": path, "readOnly": True})
    return mounts


def _volumes(deployment: Deployment, launches: list[Launch], launch: Launch) -> list[dict[str, Any]]:
    shared = {"medium": "Memory", "sizeLimit": str(launch.shared_memory_bytes)}
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": shared},
        {"name": "models", **models_volume(deployment, launches, launch)},
    ]
    if launch.files:
        volumes.append({"name": "config", "configMap": {"name": pod_name(deployment, launch)}})
    if launch.disk_bytes:
        # Beyond its limit a pod is evicted: only where the engine keeps to it.
        limit = {"sizeLimit": str(launch.disk_bytes)} if launch.disk_is_bounded else {}
        volumes.append({"name": "kv", "emptyDir": limit})
    for index, path in enumerate(deployment.of(launch.pool).local_paths):
        volumes.append({"name": f"local-{index}", "hostPath": {"path": path, "type": "Directory"}})
    return volumes
