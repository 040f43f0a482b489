"""Kubernetes: a Deployment per pool, or a LeaderWorkerSet where an instance spans servers, and the router.

Pods take what a plan needs: GPUs of the planned kind, shared memory for ranks and offloading, and
hours to load. Secrets are named, never written.
"""

from __future__ import annotations

from typing import Any

from planner.emit.checkpoint import SCRIPT
from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, Launch, flag_words
from planner.emit.lmcache import DISK
from planner.emit.platforms.shell import own_files
from planner.emit.quoting import kubernetes_argument, shell, yaml_text
from planner.emit.router import (
    BOOTSTRAP_PORT,
    IMAGE,
    LOAD_SECONDS,
    PORT,
    SGLANG_ROUTER,
    install_and_run,
    is_routed,
    router_environment,
    router_flags,
    router_of,
)
from planner.emit.stamp import header, stamp_of

MODELS_DIRECTORY = "/models"
SECRET = "hf-token"  # noqa: S105 - its name, not its content
"""Secret that holds the model hub's token under the key ``token``; the operator makes it."""
LOAD_CHECK_SECONDS = 10
GPU_RESOURCE = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_MIB = 1 << 20
_LABELLED_SHARE = 0.9
"""GPUs report a little less memory than their data sheet; nodes must have more than this share of it."""


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return one manifest with everything."""
    documents: list[dict[str, Any]] = []
    for launch in launches:
        mounted = own_files(launch)
        if mounted:
            documents.append(_config_map(deployment, launch, mounted))
        documents.append(
            _leader_worker_set(deployment, launch) if launch.nodes > 1 else _deployment(deployment, launch)
        )
    if is_routed(deployment):
        documents += _router(deployment, launches)
    documents.append(_service(deployment))
    return {"kubernetes.yaml": header(deployment, launches[0]) + yaml_text(*documents)}


def pod_name(deployment: Deployment, launch: Launch) -> str:
    """Return the name of a pool's workload."""
    return f"{deployment.slug}-{launch.pool.role}"


def labels(deployment: Deployment, launch: Launch) -> dict[str, str]:
    """Return the labels that select a pool's pods."""
    return {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": launch.pool.role}


def metadata(deployment: Deployment, launch: Launch, name: str | None = None) -> dict[str, Any]:
    """Return name, labels and the plan's stamp."""
    return {
        "name": name or pod_name(deployment, launch),
        "labels": {**labels(deployment, launch), "app.kubernetes.io/version": launch.version},
        "annotations": stamp_of(deployment, launch.pool),
    }


def _config_map(deployment: Deployment, launch: Launch, mounted: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, launch),
        "data": mounted,
    }


def _deployment(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    words = launch.program_words
    command = container_words(launch)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, launch),
        "spec": {
            "replicas": launch.pool.instances,
            "selector": {"matchLabels": labels(deployment, launch)},
            # A new pod can't get GPUs before the old one lets go of them.
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": LOAD_SECONDS,
            "template": pod_template(deployment, launch, command[:words], command[words:]),
        },
    }


def container_words(launch: Launch) -> list[str]:
    """Return the command line inside a container."""
    return [
        kubernetes_argument(word.replace("{models}", MODELS_DIRECTORY)) for word in launch.arguments(CONFIG_DIRECTORY)
    ]


def _leader_worker_set(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    line = _group_line(launch)
    worker = " ".join([_group_line(launch, is_worker=True), shell(flag_words(launch.worker_flags))]).rstrip()
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(deployment, launch),
        "spec": {
            "replicas": launch.pool.instances,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": launch.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": pod_template(deployment, launch, ["sh", "-c"], [_exec(line)]),
                "workerTemplate": pod_template(deployment, launch, ["sh", "-c"], [_exec(worker)], is_worker=True),
            },
        },
    }


def _group_line(launch: Launch, *, is_worker: bool = False) -> str:
    """Return the shell line of an instance's first server, or of the others."""
    words = launch.arguments(CONFIG_DIRECTORY, is_worker=is_worker)
    line = shell([word.replace("{models}", MODELS_DIRECTORY) for word in words])
    for name, value in launch.node_flags:
        spelled = str(value).replace("{rank}", "$LWS_WORKER_INDEX").replace("{head}", "$LWS_LEADER_ADDRESS")
        line += f' {name} "{spelled}"'
    return line


def _exec(line: str) -> str:
    return kubernetes_argument(f"exec {line}")


def pod_template(
    deployment: Deployment, launch: Launch, command: list[str], arguments: list[str], *, is_worker: bool = False
) -> dict[str, Any]:
    """Return the pod of one server of an instance. Workers of a group serve nothing and aren't probed."""
    selected = labels(deployment, launch)
    if is_worker:
        selected = {**selected, "app.kubernetes.io/component": f"{launch.pool.role}-worker"}
    container: dict[str, Any] = {
        "name": "engine",
        "image": launch.image,
        "command": command,
        "args": arguments,
        "env": _environment(launch),
        "resources": _resources(deployment, launch),
        "volumeMounts": _mounts(deployment, launch),
    }
    if not is_worker:
        container["ports"] = [{"name": "http", "containerPort": launch.port}]
        container |= _probes(launch)
    placed = {"nodeSelector": _node_selector(deployment), "affinity": _memory_affinity(deployment)}
    spec: dict[str, Any] = {
        **{key: value for key, value in placed.items() if value},
        "tolerations": [
            {"key": GPU_RESOURCE[deployment.hardware.vendor], "operator": "Exists", "effect": "NoSchedule"}
        ],
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": _volumes(deployment, launch),
    }
    if launch.makes_checkpoint:
        spec["initContainers"] = [_checkpoint_container(deployment, launch)]
    stamp = stamp_of(deployment, launch.pool)
    if launch.pool.role == "prefill" and router_of(deployment) is SGLANG_ROUTER:
        stamp["sglang.ai/bootstrap-port"] = str(BOOTSTRAP_PORT)
    return {"metadata": {"labels": selected, "annotations": stamp}, "spec": spec}


def _probes(launch: Launch) -> dict[str, Any]:
    check = {"httpGet": {"path": launch.health_path, "port": "http"}, "periodSeconds": LOAD_CHECK_SECONDS}
    return {
        # Weights of hundreds of gigabytes take long to load; only then do the other probes begin.
        "startupProbe": {**check, "failureThreshold": LOAD_SECONDS // LOAD_CHECK_SECONDS},
        "readinessProbe": {**check, "timeoutSeconds": 5},
        "livenessProbe": {**check, "timeoutSeconds": 30, "failureThreshold": 6},
    }


def _environment(launch: Launch) -> list[dict[str, Any]]:
    token = {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}}
    environment: list[dict[str, Any]] = [
        {"name": "HF_HOME", "value": f"{MODELS_DIRECTORY}/hub"},
        {"name": "HF_TOKEN", "valueFrom": token},
    ]
    if launch.pod_address_variable:
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment.append({"name": launch.pod_address_variable, "valueFrom": address})
    for name, value in launch.environment.items():
        environment.append({"name": name, "value": kubernetes_argument(value.replace("{directory}", CONFIG_DIRECTORY))})
    return environment


def _resources(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    gpus = {GPU_RESOURCE[deployment.hardware.vendor]: str(launch.gpus_per_node)}
    requests: dict[str, str] = dict(gpus)
    host = launch.host_memory_bytes // launch.nodes
    if host:
        requests["memory"] = str(host)
    return {"limits": gpus, "requests": requests}


def _node_selector(deployment: Deployment) -> dict[str, str]:
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
    if own_files(launch):
        mounts.append({"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True})
    if launch.disk_bytes:
        mounts.append({"name": "kv", "mountPath": DISK})
    for index, path in enumerate(deployment.local_paths):
        mounts.append({"name": f"local-{index}", "mountPath": path, "readOnly": True})
    return mounts


def _volumes(deployment: Deployment, launch: Launch) -> list[dict[str, Any]]:
    shared = {"medium": "Memory", "sizeLimit": str(launch.shared_memory_bytes)}
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": shared}, {"name": "models", "emptyDir": {}}]
    if own_files(launch):
        volumes.append({"name": "config", "configMap": {"name": pod_name(deployment, launch)}})
    if launch.disk_bytes:
        # Beyond its limit a pod is evicted: only where the engine keeps to it.
        limit = {"sizeLimit": str(launch.disk_bytes)} if launch.disk_is_bounded else {}
        volumes.append({"name": "kv", "emptyDir": limit})
    for index, path in enumerate(deployment.local_paths):
        volumes.append({"name": f"local-{index}", "hostPath": {"path": path, "type": "Directory"}})
    return volumes


def _checkpoint_container(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    target = launch.model.replace("{models}", MODELS_DIRECTORY)
    make = launch.make_command(f"{CONFIG_DIRECTORY}/{SCRIPT}")
    return {
        "name": "make-checkpoint",
        "image": launch.image,
        "command": ["sh", "-c", make, target],
        "env": _environment(launch),
        "resources": _resources(deployment, launch),
        "volumeMounts": _mounts(deployment, launch),
    }


def _router(deployment: Deployment, launches: list[Launch]) -> list[dict[str, Any]]:
    """The router finds the pods by their labels, which needs the right to watch them."""
    name = f"{deployment.slug}-router"
    words = [*router_of(deployment).program, *flag_words(router_flags(deployment)), "--service-discovery"]
    words += ["--service-discovery-port", str(launches[0].port), "--service-discovery-namespace", "$(NAMESPACE)"]
    for launch in launches:
        option = "--selector" if launch.pool.role == "serve" else f"--{launch.pool.role}-selector"
        words += [option, *(f"{key}={value}" for key, value in labels(deployment, launch).items())]
    selected = {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": "router"}
    container = {
        "name": "router",
        "image": IMAGE,
        "command": install_and_run(deployment, words),
        "env": [
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *({"name": name, "value": value} for name, value in router_environment(deployment).items()),
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": LOAD_CHECK_SECONDS},
    }
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": [pods]},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": selected},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": selected},
                "template": {
                    "metadata": {"labels": selected},
                    "spec": {"serviceAccountName": name, "containers": [container]},
                },
            },
        },
    ]


def _service(deployment: Deployment) -> dict[str, Any]:
    """The door for clients: the router, or the only instance."""
    component = "router" if is_routed(deployment) else "serve"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment.slug, "labels": {"app.kubernetes.io/name": deployment.slug}},
        "spec": {
            "selector": {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": component},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
