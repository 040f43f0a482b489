"""Kubernetes: a Deployment per pool, or a LeaderWorkerSet where an instance spans servers, and the router.

An update replaces one instance at a time: GPUs are full, so that the old one goes before the new one comes.
"""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, Launch, flag_words
from planner.emit.loading import loading
from planner.emit.platforms.claims import models_claim
from planner.emit.platforms.making import FILE, job_documents, making
from planner.emit.platforms.network import check_ports, network_warning
from planner.emit.platforms.pods import (
    MODELS_DIRECTORY,
    container_words,
    labels,
    metadata,
    pod_name,
    pod_template,
)
from planner.emit.platforms.routing import disruption_budget, router_documents, weighing_documents
from planner.emit.quoting import comment, kubernetes_argument, shell, yaml_text
from planner.emit.router import METRICS_PORT, is_routed
from planner.emit.stamp import header

_ONE_AT_A_TIME = {"maxUnavailable": 1, "maxSurge": 0}


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return one manifest with everything.

    Raises
    ------
    InputError
        If pods would want the same port of a server, or have no storage that they share and need.
    """
    check_ports(deployment, launches)
    claim = models_claim(deployment, launches)
    documents: list[dict[str, Any]] = [] if claim is None else [claim]
    for launch in launches:
        documents += config_maps(deployment, launch)
        make = _leader_worker_set if launch.nodes > 1 else _deployment
        documents.append(make(deployment, launches, launch))
        documents += _budgets(deployment, launch)
    if is_routed(deployment):
        documents += (weighing_documents if deployment.mixed else router_documents)(deployment, launches)
        documents += [_pool_service(deployment, launch) for launch in launches]
    documents.append(_service(deployment))
    written = {"kubernetes.yaml": top(deployment, launches, launches[0]) + yaml_text(*documents)}
    return written | making_files(deployment, launches)


def making_files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return the manifest that makes checkpoints, with the claim that they fill; empty where nothing is made."""
    makers = making(launches)
    if not makers:
        return {}
    claim = models_claim(deployment, launches)
    documents = [] if claim is None else [claim]
    for launch in makers:
        pod = pod_template(deployment, launches, launch, container_words(launch))["spec"]
        documents += job_documents(deployment, launch, pod, metadata(deployment, launch), MODELS_DIRECTORY)
    return {FILE: header(deployment, makers[0]) + yaml_text(*documents)}


def top(deployment: Deployment, launches: list[Launch], launch: Launch) -> str:
    """Return the comments with which a manifest begins: what it is, and loudly what is missing."""
    warning = network_warning(deployment, launches, "pods")
    return header(deployment, launch) + ("" if warning is None else comment(warning) + "\n")


def config_maps(deployment: Deployment, launch: Launch) -> list[dict[str, Any]]:
    """Return the map of the files that a launch reads, if it reads any."""
    mounted = dict(launch.files)
    own = metadata(deployment, launch)
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": mounted}] if mounted else []


def _deployment(deployment: Deployment, launches: list[Launch], launch: Launch) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, launch),
        "spec": {
            "replicas": launch.pool.instances,
            "selector": {"matchLabels": labels(deployment, launch)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _ONE_AT_A_TIME},
            "progressDeadlineSeconds": loading(deployment, launch).budget_s,
            "template": pod_template(deployment, launches, launch, container_words(launch)),
        },
    }


def _leader_worker_set(deployment: Deployment, launches: list[Launch], launch: Launch) -> dict[str, Any]:
    leader = group_words(launch)
    worker = group_words(launch, is_worker=True)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(deployment, launch),
        "spec": {
            "replicas": launch.pool.instances,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": _ONE_AT_A_TIME},
            "leaderWorkerTemplate": {
                "size": launch.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": pod_template(deployment, launches, launch, leader),
                "workerTemplate": pod_template(deployment, launches, launch, worker, is_worker=True),
            },
        },
    }


def group_words(launch: Launch, *, is_worker: bool = False) -> tuple[list[str], list[str]]:
    """Return command and arguments of an instance's first server, or of the others: a shell that knows its rank."""
    words = launch.arguments(CONFIG_DIRECTORY, is_worker=is_worker)
    line = shell([word.replace("{models}", MODELS_DIRECTORY) for word in words])
    for name, value in launch.node_flags:
        spelled = str(value).replace("{rank}", "$LWS_WORKER_INDEX").replace("{head}", "$LWS_LEADER_ADDRESS")
        line += f' {name} "{spelled}"'
    own = shell(flag_words(launch.worker_flags)) if is_worker else launch.key_words
    return ["sh", "-c"], [kubernetes_argument(f"exec {line} {own}".rstrip())]


def _budgets(deployment: Deployment, launch: Launch) -> list[dict[str, Any]]:
    """Return the budgets with which a drained server stops one instance at a time."""
    others = launch.pool.instances - 1
    if not others:
        return []
    own = metadata(deployment, launch)
    found = [disruption_budget(own, labels(deployment, launch), launch.pool.instances)]
    if launch.nodes > 1:
        each = launch.nodes - 1
        workers = {**own, "name": f"{pod_name(deployment, launch)}-worker"}
        budget = disruption_budget(workers, labels(deployment, launch, is_worker=True), launch.pool.instances)
        budget["spec"]["minAvailable"] = others * each
        found.append(budget)
    return found


def _service(deployment: Deployment) -> dict[str, Any]:
    """The door for clients: the router, or the only instance."""
    component = "router" if is_routed(deployment) else "serve"
    metrics = [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}] if is_routed(deployment) else []
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment.slug, "labels": {"app.kubernetes.io/name": deployment.slug}},
        "spec": {
            "selector": {"app.kubernetes.io/name": deployment.slug, "app.kubernetes.io/component": component},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, *metrics],
        },
    }


def _pool_service(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """A name for a pool's pods behind the router, by which a ServiceMonitor finds their metrics."""
    port = {"name": "http", "port": launch.port, "targetPort": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, launch),
        "spec": {"clusterIP": "None", "selector": labels(deployment, launch), "ports": [port]},
    }
