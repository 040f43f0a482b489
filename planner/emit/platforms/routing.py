"""The router in Kubernetes: it finds the engines' pods by their labels, which needs the right to watch them."""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch, flag_words
from planner.emit.loading import loading
from planner.emit.platforms.pods import (
    CHECK_SECONDS,
    KEY_SECRET,
    STOP_SECONDS,
    grace_seconds,
    labels,
    scraped,
    secret_of,
    site_image,
)
from planner.emit.quoting import kubernetes_argument
from planner.emit.router import (
    METRICS_PORT,
    PORT,
    container_flags,
    pool_key,
    router_environment,
    router_of,
    router_replicas,
)

_USER = 65532
"""Nobody's: routers need no rights."""


def router_documents(deployment: Deployment, launches: list[Launch]) -> list[dict[str, Any]]:
    """Return the router's account with its right, its workload, and its disruption budget if one may go."""
    name = f"{deployment.slug}-router"
    selected = {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": "router"}
    own = {"name": name, "labels": selected}
    replicas = router_replicas(deployment)
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
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": own,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": selected},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                # A router is ready when an engine is.
                "progressDeadlineSeconds": max(loading(deployment, launch).budget_s for launch in launches),
                "template": {"metadata": _pod_metadata(selected), "spec": _pod(deployment, launches, name, selected)},
            },
        },
    ]
    return documents + ([disruption_budget(own, selected, replicas)] if replicas > 1 else [])


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


def _pod(deployment: Deployment, launches: list[Launch], name: str, selected: dict[str, str]) -> dict[str, Any]:
    secrets = [{"name": secret} for secret in deployment.cluster.site.kubernetes.pull_secrets]
    spread = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
    return {
        "serviceAccountName": name,
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
        "containers": [_container(deployment, launches)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def _container(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    router, key = router_of(deployment), pool_key(deployment)
    words = [kubernetes_argument(word) for word in flag_words(container_flags(deployment))]
    words += ["--service-discovery", "--service-discovery-port", str(launches[0].port)]
    words += ["--service-discovery-namespace", "$(NAMESPACE)"]
    for launch in launches:
        option = "--selector" if launch.pool.role == "serve" else f"--{launch.pool.role}-selector"
        words += [option, *(f"{key}={value}" for key, value in labels(deployment, launch).items())]
    period = {"periodSeconds": CHECK_SECONDS, "timeoutSeconds": 5}
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
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
