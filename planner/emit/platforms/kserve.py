"""KServe: one ``LLMInferenceService``; its scheduler sends a session where its prefix is cached."""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.emit.platforms.kubernetes import MODELS_DIRECTORY, container_words, metadata, pod_name, pod_template
from planner.emit.platforms.shell import own_files
from planner.emit.quoting import yaml_text
from planner.emit.stamp import header
from planner.errors import InputError

CONTAINER = "main"
"""The container that KServe takes for the engine."""


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return one manifest.

    Raises
    ------
    InputError
        If an instance spans servers: KServe starts those with commands of its own.
    """
    if any(launch.nodes > 1 for launch in launches):
        raise InputError(
            "--target kserve: an instance of the plan spans servers, which KServe starts with flags of its own; "
            "use --target kubernetes"
        )
    documents: list[dict[str, Any]] = []
    for launch in launches:
        mounted = own_files(launch)
        if mounted:
            documents.append(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(deployment, launch), "data": mounted}
            )
    documents.append(_service(deployment, launches))
    return {"llm-inference-service.yaml": header(deployment, launches[-1]) + yaml_text(*documents)}


def _service(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    main = launches[-1]
    spec: dict[str, Any] = {
        "model": {"uri": _uri(main.model), "name": deployment.served_name},
        # The engine loads the model itself, from the hub or the directory that is mounted.
        "storageInitializer": {"enabled": False},
        **_workload(deployment, main),
        "router": {"route": {}, "gateway": {}, "scheduler": {}},
    }
    if len(launches) > 1:
        spec["prefill"] = _workload(deployment, launches[0])
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": metadata(deployment, main, deployment.slug),
        "spec": spec,
    }


def _uri(model: str) -> str:
    local = model.replace("{models}", MODELS_DIRECTORY)
    return f"file://{local}" if local.startswith("/") else f"hf://{local}"


def _workload(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    words = container_words(launch)
    template = pod_template(deployment, launch, words[: launch.program_words], words[launch.program_words :])
    pod: dict[str, Any] = template["spec"]
    pod["containers"][0]["name"] = CONTAINER
    return {
        "replicas": launch.pool.instances,
        "annotations": template["metadata"]["annotations"],
        "labels": {"app.kubernetes.io/part-of": pod_name(deployment, launch)},
        "template": pod,
    }
