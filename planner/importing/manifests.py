"""Servers of Kubernetes manifests: containers with their variables, and the resources of serving platforms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.importing.command import Command
from planner.importing.compose import command_words
from planner.importing.documents import mapping, whole
from planner.importing.entrypoints import Server, engine_of_image, servers_of_words, version_of_image
from planner.importing.stamps import role_of, stamp_of
from planner.importing.unknown import unknown

_REFERENCE = re.compile(r"\$(?:\$(?=\()|\(([A-Za-z_][\w.-]*)\))")
_OF_KSERVE = re.compile(r"\{\{\s*if \.GlobalConfig\..*?\{\{\s*end\s*\}\}")
"""What KServe adds for TLS when it fills its templates."""
_PARALLEL = {
    "tensor": "--tensor-parallel-size",
    "pipeline": "--pipeline-parallel-size",
    "data": "--data-parallel-size",
    "dataLocal": "--data-parallel-size-local",
}
"""``parallelism`` of LLMInferenceService and of llm-d -> vLLM's flag."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods of one kind."""

    containers: tuple[Mapping[str, Any], ...]
    replicas: int = 1
    role: str | None = None
    notes: Mapping[str, Any] | None = None
    """Annotations."""
    before: tuple[str, ...] = ()
    """Arguments that the platform itself puts before those of the container."""
    engine: str | None = None
    """What the platform starts where a container has no command."""


def commands_of_manifest(document: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Iterable[Command]:
    """Return what a manifest starts.

    Parameters
    ----------
    document
        The manifest.
    documents
        All of the file, among them the ConfigMaps that it can name.
    """
    name = str(mapping(document.get("metadata")).get("name", document.get("kind")))
    notes = mapping(mapping(document.get("metadata")).get("annotations"))
    maps = config_maps(documents)
    files = {key: text for data in maps.values() for key, text in data.items()}
    for workload in _workloads(document):
        own = {**notes, **(workload.notes or {})}
        for container in workload.containers:
            environment = _environment(container, maps)
            for server in _servers(container, workload, environment):
                image = str(container.get("image", ""))
                yield Command(
                    arguments=server.arguments,
                    where=f"{document.get('kind')} {name}",
                    replicas=workload.replicas,
                    version=server.version or version_of_image(image, server.engine),
                    environment=environment,
                    role=server.role or role_of(str(own.get("plan/pool", workload.role or name))),
                    stamp=stamp_of(own),
                    config_files=files,
                    engine=server.engine,
                    notes=server.notes,
                )


def config_maps(documents: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the ConfigMaps of a file, by name."""
    found: dict[str, dict[str, str]] = {}
    for document in documents:
        if document.get("kind") == "ConfigMap":
            data = {str(k): str(v) for k, v in mapping(document.get("data")).items()}
            found[str(mapping(document.get("metadata")).get("name", ""))] = data
    return found


def _servers(container: Mapping[str, Any], workload: Workload, environment: Mapping[str, str]) -> list[Server]:
    command = [_filled(word, environment) for word in _words(container.get("command"))]
    arguments = [_filled(word, environment) for word in _words(container.get("args"))]
    image = str(container.get("image", ""))
    found = servers_of_words([*command, *arguments], environment, image="" if command else image)
    if found or command:
        return found
    engine = workload.engine if workload.before else None
    if engine is None or (engine_of_image(image) is None and image and "name" not in container):
        return []
    added = command_words(_filled(environment.get("VLLM_ADDITIONAL_ARGS", ""), environment))
    return [Server(engine, (*workload.before, *added, *arguments), version_of_image(image, engine), environment)]


def _environment(container: Mapping[str, Any], maps: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found |= maps.get(str(mapping(mapping(source).get("configMapRef")).get("name")), {})
    for item in container.get("env") or ():
        entry = mapping(item)
        key = mapping(mapping(entry.get("valueFrom")).get("configMapKeyRef"))
        value = entry.get("value")
        if key:
            value = maps.get(str(key.get("name")), {}).get(str(key.get("key")))
        if value is not None:
            found[str(entry.get("name"))] = _filled(str(value), found)
    return found


def _filled(text: str, environment: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does; what isn't set in the file stays, marked."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] is None else environment.get(match[1], unknown(match[0]))

    return _REFERENCE.sub(value, _OF_KSERVE.sub("", text))


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return command_words(value)
    return [str(word) for word in value] if isinstance(value, list) else []


def _workloads(document: Mapping[str, Any]) -> Iterator[Workload]:
    spec = mapping(document.get("spec"))
    kind = document.get("kind")
    if kind == "LLMInferenceService":
        yield from _of_llm_service(spec)
    elif kind == "InferenceService":
        yield from _of_inference_service(spec)
    elif kind == "DynamoGraphDeployment":
        yield from _of_dynamo(spec)
    else:
        yield from _of_pods(spec, 1, {}, document)


def _of_pods(
    found: Mapping[str, Any], replicas: int, notes: Mapping[str, Any], top: Mapping[str, Any]
) -> Iterator[Workload]:
    """Follow a resource of any kind down to its pods; replicas and annotations stand above them."""
    replicas = whole(found.get("replicas"), replicas)
    notes = {**notes, **mapping(mapping(found.get("metadata")).get("annotations"))}
    containers = found.get("containers")
    if isinstance(containers, list):
        given = tuple(container for container in containers if isinstance(container, dict))
        yield Workload(given, replicas, None, notes)
        return
    group = mapping(found.get("leaderWorkerTemplate"))
    if group:
        inner = mapping(group.get("leaderTemplate") or group.get("workerTemplate"))
        yield from _of_pods(inner, replicas, notes, top)
        return
    for value in found.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from _of_pods(item, replicas, notes, top)


def _of_llm_service(spec: Mapping[str, Any]) -> Iterator[Workload]:
    model = mapping(spec.get("model"))
    prefill = mapping(spec.get("prefill"))
    parts = [(spec, "decode" if prefill else None), *([(prefill, "prefill")] if prefill else [])]
    for part, role in parts:
        template = mapping(part.get("template"))
        containers = [c for c in template.get("containers") or () if isinstance(c, dict)]
        before = [re.sub(r"^\w+://", "", str(model.get("uri", "")))]
        before += ["--served-model-name", str(model["name"])] if "name" in model else []
        before += parallel_words(mapping(part.get("parallelism")))
        main = [c for c in containers if c.get("name") == "main"] or containers or [{"name": "main"}]
        yield Workload(tuple(main), whole(part.get("replicas"), 1), role, None, tuple(before), "vllm")


def parallel_words(parallelism: Mapping[str, Any]) -> list[str]:
    """Return vLLM's flags for a ``parallelism`` mapping."""
    words = []
    for name, flag in _PARALLEL.items():
        if isinstance(parallelism.get(name), int):
            words += [flag, str(parallelism[name])]
    return [*words, "--enable-expert-parallel"] if parallelism.get("expert") is True else words


def _of_inference_service(spec: Mapping[str, Any]) -> Iterator[Workload]:
    predictor = mapping(spec.get("predictor"))
    replicas = whole(predictor.get("minReplicas"), 1)
    containers = tuple(c for c in predictor.get("containers") or () if isinstance(c, dict))
    if containers:
        yield Workload(containers, replicas)
    model = mapping(predictor.get("model"))
    formats = str(mapping(model.get("modelFormat")).get("name", "")).lower()
    if not model:
        return
    if "huggingface" not in f"{formats} {model.get('runtime', '')}".lower():
        yield Workload((model,), replicas)
        return
    uri = re.sub(r"^hf://", "", str(model.get("storageUri", "")))
    words = [_huggingface(word) for word in _words(model.get("args"))]
    named = any(word.partition("=")[0] in ("--model", "--model_id") for word in words)
    before = ["--model", uri] if uri and not named else ["--trust-remote-code"] if named else []
    yield Workload(({**model, "args": words, "name": "kserve-container"},), replicas, None, None, tuple(before), "vllm")


def _huggingface(word: str) -> str:
    """Return KServe's own name of a flag as vLLM's."""
    name, equals, value = word.partition("=")
    own = {"--model_id": "--model", "--model_name": "--served-model-name", "--model-id": "--model"}
    return f"{own.get(name, name)}{equals}{value}"


def _of_dynamo(spec: Mapping[str, Any]) -> Iterator[Workload]:
    for name, service in mapping(spec.get("services")).items():
        given = mapping(service)
        pod = mapping(given.get("extraPodSpec"))
        main = mapping(pod.get("mainContainer"))
        role = str(given.get("subComponentType") or name).lower()
        yield Workload((main,), whole(given.get("replicas"), 1), role)
