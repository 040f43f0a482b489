"""The router in Kubernetes: it finds pods by their labels, which needs the right to watch them, or by DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, Launch, flag_words
from planner.emit.loading import loading
from planner.emit.platforms.pods import (
    CHECK_SECONDS,
    KEY_SECRET,
    STOP_SECONDS,
    grace_seconds,
    labels,
    pod_name,
    scraped,
    secret_of,
    site_image,
)
from planner.emit.quoting import kubernetes_argument
from planner.emit.router import (
    HAPROXY,
    METRICS_PORT,
    PORT,
    container_flags,
    pool_key,
    router_environment,
    router_of,
    router_replicas,
)
from planner.emit.weighing import CONFIG, PLACES, config_of, places_file

CLUSTER_DOMAIN = "cluster.local"
"""Of Kubernetes' DNS where nobody chose another."""
_USER = 65532
"""Nobody's: routers need no rights."""


def router_documents(deployment: Deployment, launches: list[Launch]) -> list[dict[str, Any]]:
    """Return the router's account with its right, its workload, and its disruption budget if one may go."""
    name = f"{deployment.slug}-router"
    selected = {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": "router"}
    own = {"name": name, "labels": selected}
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    rights = "rbac.authorization.k8s.io"
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own},
        {"apiVersion": f"{rights}/v1", "kind": "Role", "metadata": own, "rules": [pods]},
        {
            "apiVersion": f"{rights}/v1",
            "kind": "RoleBinding",
            "metadata": own,
            "roleRef": {"apiGroup": rights, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
        _workload(deployment, launches, own, {"serviceAccountName": name}, _container(deployment, launches)),
    ]
    replicas = router_replicas(deployment)
    return documents + ([disruption_budget(own, selected, replicas)] if replicas > 1 else [])


def weighing_documents(deployment: Deployment, launches: list[Launch]) -> list[dict[str, Any]]:
    """Return HAProxy's configuration and its workload; it finds instances by DNS, which needs no right."""
    selected = {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": "router"}
    own = {"name": f"{deployment.slug}-router", "labels": selected}
    everywhere = "0.0.0.0"  # noqa: S104
    config = config_of(
        deployment,
        launches,
        {
            launch.pool.name: [f'"{pod_name(deployment, launch)}.${{NAMESPACE}}.svc.${{CLUSTER_DOMAIN}}:{launch.port}"']
            for launch in launches
        },
        bind=f"{everywhere}:{PORT}",
        metrics=f"{everywhere}:{METRICS_PORT}",
        platform="kubernetes",
    )
    data = {CONFIG: config, PLACES: places_file()}
    volume = {"name": "config", "configMap": {"name": own["name"]}}
    account = {"automountServiceAccountToken": False}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": data},
        _workload(deployment, launches, own, account, _weighing_container(deployment), [volume]),
    ]


def _workload(
    deployment: Deployment,
    launches: list[Launch],
    own: dict[str, Any],
    account: dict[str, Any],
    container: dict[str, Any],
    volumes: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the router's Deployment.

    Parameters
    ----------
    deployment, launches
        The plan.
    own
        The router's metadata; its labels select its pods.
    account
        Fields of its pod that say as whom it asks Kubernetes.
    container
        Its container.
    volumes
        What that mounts beside a directory for temporary files.
    """
    selected = own["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": own,
        "spec": {
            "replicas": router_replicas(deployment),
            "selector": {"matchLabels": selected},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            # A router is ready when an engine is.
            "progressDeadlineSeconds": max(loading(deployment, launch).budget_s for launch in launches),
            "template": {
                "metadata": _pod_metadata(selected),
                "spec": {**account, **_pod(deployment, selected, container, volumes)},
            },
        },
    }


def disruption_budget(own: dict[str, Any], selected: dict[str, str], replicas: int) -> dict[str, Any]:
    """Return the budget with which a drained server takes one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": own,
        "spec": {"minAvailable": replicas - 1, "selector": {"matchLabels": selected}},
    }


def _pod_metadata(selected: dict[str, str]) -> dict[str, Any]:
    return {"labels": selected, "annotations": scraped(METRICS_PORT, "/metrics")}


def _pod(
    deployment: Deployment,
    selected: dict[str, str],
    container: dict[str, Any],
    volumes: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    secrets = [{"name": secret} for secret in deployment.cluster.site.kubernetes.pull_secrets]
    spread = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
    return {
        **({"imagePullSecrets": secrets} if secrets else {}),
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Answers pass through it for as long as the longest takes.
        "terminationGracePeriodSeconds": grace_seconds(deployment),
        "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": selected}}],
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
    }


def _container(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    router, key = router_of(deployment), pool_key(deployment)
    words = [kubernetes_argument(word) for word in flag_words(container_flags(deployment))]
    words += ["--service-discovery", "--service-discovery-port", str(launches[0].port)]
    words += ["--service-discovery-namespace", "$(NAMESPACE)"]
    for launch in launches:
        option = "--selector" if launch.pool.role == "serve" else f"--{launch.pool.role}-selector"
        words += [option, *(f"{key}={value}" for key, value in labels(deployment, launch).items())]
    return {
        "name": "router",
        "image": site_image(deployment, router.image),
        "imagePullPolicy": "IfNotPresent",
        "command": list(router.image_program),
        "args": words,
        "env": [
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a volume of the pod's own
            *({"name": name, "value": value} for name, value in router_environment(deployment).items()),
            *([{"name": key, "valueFrom": secret_of(KEY_SECRET, "key")}] if key is not None else []),
        ],
        **_any_router(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _weighing_container(deployment: Deployment) -> dict[str, Any]:
    config = {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True}
    return {
        "name": "router",
        "image": site_image(deployment, HAPROXY.image),
        "imagePullPolicy": "IfNotPresent",
        "command": ["haproxy"],
        "args": ["-db", "-f", f"{CONFIG_DIRECTORY}/{CONFIG}"],
        "env": [
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CLUSTER_DOMAIN", "value": CLUSTER_DOMAIN},
        ],
        **_any_router(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, config],  # noqa: S108
    }


def _any_router() -> dict[str, Any]:
    """Return what any router's container has: its ports, what it needs and may do, when it is ready, how it goes."""
    period = {"periodSeconds": CHECK_SECONDS, "timeoutSeconds": 5}
    return {
        "ports": [
            {"name": "http", "containerPort": PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
            "limits": {"memory": "4Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": {"httpGet": {"path": "/readiness", "port": "http"}, **period},
        "livenessProbe": {"httpGet": {"path": "/liveness", "port": "http"}, **period, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": STOP_SECONDS}}},
    }
