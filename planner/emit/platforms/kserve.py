"""KServe: one ``LLMInferenceService``; its scheduler sends a session where its prefix is cached.

KServe merges its own presets below what is written here (a strategic merge, by names of containers, ports, variables
and mount paths), and then reads the whole as a Go template (kserve/kserve aaac4e2,
pkg/controller/v1alpha2/llmisvc/config_merge.go, read 2026-11-30). So everything that a preset sets and that the
plan's engine needs otherwise is set here too: the user, the probes, how a pod stops, the port of a decode pool. And a
name that holds template braces has to be written so that it stays itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.emit.platforms.claims import models_claim
from planner.emit.platforms.kubernetes import config_maps, group_words, making_files, top
from planner.emit.platforms.network import check_ports
from planner.emit.platforms.pods import (
    MODELS_DIRECTORY,
    container_words,
    metadata,
    pod_name,
    pod_template,
    stop_seconds,
)
from planner.emit.quoting import yaml_text
from planner.errors import InputError
from planner.targets import PLATFORMS

CONTAINER = "main"
"""The container that KServe takes for the engine."""
DECODE_PORT = 8001
"""Of a decode pool's engine: KServe puts a proxy of its own on port 8000 before it."""
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_CERTIFICATES = "/var/run/kserve/tls"
_TLS = "{{ if .GlobalConfig.EnableTLS }}%s{{ else }}%s{{ end }}"
TLS_FLAGS = {
    "vllm": ("--ssl-certfile", "--ssl-keyfile"),
    "sglang": ("--ssl-certfile", "--ssl-keyfile"),
    "llama.cpp": ("--ssl-cert-file", "--ssl-key-file"),
}
"""Engine -> its flags for a certificate and its key; those without serve plain HTTP."""


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return one manifest.

    Raises
    ------
    InputError
        If an instance spans servers in another way than by data-parallel ranks on each, for which KServe has no preset;
        or if pools are of another engine than vLLM, whose transfers alone KServe's proxy knows.
    """
    pool_engines = PLATFORMS["kserve"].pool_engines
    if len(launches) > 1 and pool_engines is not None and launches[0].engine not in pool_engines:
        raise InputError(
            f"--target kserve: KServe's proxy before a decode pool passes requests on as vLLM's pools expect, not as "
            f"{launches[0].engine}'s do; use --target kubernetes, or plan with --engine vllm"
        )
    for launch in launches:
        if launch.nodes > 1 and (launch.pool.data_parallel % launch.nodes or launch.node_flags == ()):
            raise InputError(
                "--target kserve: an instance of the plan spans servers by tensor or pipeline parallelism, for which "
                "KServe has no preset (only for data-parallel ranks on each); use --target kubernetes"
            )
    check_ports(deployment, launches)
    launches = [_at_port(launch, DECODE_PORT) if launch.pool.role == "decode" else launch for launch in launches]
    claim = models_claim(deployment, launches)
    documents: list[dict[str, Any]] = [] if claim is None else [claim]
    for launch in launches:
        documents += config_maps(deployment, launch)
    documents.append(_service(deployment, launches))
    written = {"llm-inference-service.yaml": top(deployment, launches, launches[-1]) + yaml_text(*documents)}
    return written | making_files(deployment, launches)


def _at_port(launch: Launch, port: int) -> Launch:
    flags = tuple((name, port if name == launch.port_flag else value) for name, value in launch.flags)
    return replace(launch, port=port, flags=flags)


def _service(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    main = launches[-1]
    spec: dict[str, Any] = {
        "model": {"uri": _uri(main.model), "name": _braces(deployment.served_name)},
        # The engine loads the model itself, from the hub or the directory that is mounted.
        "storageInitializer": {"enabled": False},
        **_workload(deployment, launches, main),
        "router": {"route": {}, "gateway": {}, "scheduler": {}},
    }
    if len(launches) > 1:
        spec["prefill"] = _workload(deployment, launches, launches[0])
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        **_literal({"metadata": metadata(deployment, main, deployment.slug)}),
        "spec": spec,
    }


def _uri(model: str) -> str:
    local = model.replace("{models}", MODELS_DIRECTORY)
    return _braces(f"file://{local}" if local.startswith("/") else f"hf://{local}")


def _workload(deployment: Deployment, launches: list[Launch], launch: Launch) -> dict[str, Any]:
    words = group_words(launch) if launch.nodes > 1 else container_words(launch)
    template = pod_template(deployment, launches, launch, words)
    found: dict[str, Any] = {
        "replicas": launch.pool.instances,
        "rolloutStrategy": {"maxUnavailable": 1, "maxSurge": 0},
        "annotations": template["metadata"]["annotations"],
        "labels": {"app.kubernetes.io/part-of": pod_name(deployment, launch)},
        "template": _pod(deployment, launch, template["spec"]),
    }
    if launch.nodes > 1:
        pool = launch.pool
        worker = pod_template(deployment, launches, launch, group_words(launch, is_worker=True), is_worker=True)
        found["worker"] = _pod(deployment, launch, worker["spec"], is_worker=True)
        found["parallelism"] = {
            "data": pool.data_parallel,
            "dataLocal": pool.data_parallel // launch.nodes,
            "tensor": pool.tp,
            "expert": pool.ep > 1,
        }
    return found


def _pod(deployment: Deployment, launch: Launch, spec: dict[str, Any], *, is_worker: bool = False) -> dict[str, Any]:
    """Return a pod's spec as KServe's presets need it, with every name in it literal."""
    spec = _literal(spec)
    # KServe gives pods an account of its own, whose token the proxy before a decode pool uses.
    spec.pop("automountServiceAccountToken")
    (container,) = spec["containers"]
    container["name"] = CONTAINER
    # The presets' own variable comes before HF_HOME.
    container["env"].append({"name": "HF_HUB_CACHE", "value": f"{MODELS_DIRECTORY}/hub/hub"})
    if is_worker:
        return spec
    # Beside the presets' command a sleep of another form would be a second handler, which no pod may have.
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sleep", str(stop_seconds(deployment, launch))]}}}
    flags = TLS_FLAGS.get(launch.engine)
    scheme = "HTTP" if flags is None else _TLS % ("HTTPS", "HTTP")
    for probe in _PROBES:
        container[probe]["httpGet"]["scheme"] = scheme
    if flags is not None:
        _serve_tls(container, flags)
    return spec


def _serve_tls(container: dict[str, Any], flags: tuple[str, str]) -> None:
    """Let a shell add the certificate where the cluster's KServe says that pods speak TLS."""
    given = f"{flags[0]} {_CERTIFICATES}/tls.crt {flags[1]} {_CERTIFICATES}/tls.key"
    added = _TLS % (f" {given}", "")
    if container["command"][:2] == ["sh", "-c"] and len(container["command"]) > 2:
        container["command"][2] += added
    elif container["command"] == ["sh", "-c"]:
        container["args"][0] += added
    else:
        container["command"] = ["sh", "-c", f'exec "$0" "$@"{added}', *container["command"]]


def _literal(value: Any) -> Any:
    """Return a value whose texts a Go template gives back as they are."""
    if isinstance(value, dict):
        return {name: _literal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return _braces(value) if isinstance(value, str) else value


def _braces(text: str) -> str:
    return text.replace("{{", "{{`{{`}}")
