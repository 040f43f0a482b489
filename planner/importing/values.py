"""Servers of Helm values: vLLM's production-stack and llm-d's modelservice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from planner.importing.command import Command
from planner.importing.compose import command_words
from planner.importing.documents import mapping, whole
from planner.importing.entrypoints import engine_of_image, servers_of_words
from planner.importing.manifests import parallel_words

_EXTRA = ("extraArgs", "extraargs")
_GIVEN = {
    "maxModelLen": "--max-model-len",
    "tensorParallelSize": "--tensor-parallel-size",
    "pipelineParallelSize": "--pipeline-parallel-size",
    "dtype": "--dtype",
    "gpuMemoryUtilization": "--gpu-memory-utilization",
    "maxNumSeqs": "--max-num-seqs",
    "maxNumBatchedTokens": "--max-num-batched-tokens",
    "kvCacheDtype": "--kv-cache-dtype",
    "quantization": "--quantization",
    "maxLoras": "--max-loras",
}
_SWITCHED = {"enableChunkedPrefill": "enable-chunked-prefill", "enablePrefixCaching": "enable-prefix-caching"}


def commands_of_values(document: Mapping[str, Any]) -> Iterable[Command]:
    """Return what the values of a known chart start."""
    engines = mapping(document.get("servingEngineSpec")).get("modelSpec")
    if isinstance(engines, list):
        for spec in engines:
            if isinstance(spec, dict):
                yield _of_production_stack(spec)
    elif "modelArtifacts" in document and ("decode" in document or "prefill" in document):
        yield from _of_modelservice(document)


def _of_production_stack(spec: Mapping[str, Any]) -> Command:
    config = mapping(spec.get("vllmConfig"))
    words = [str(spec.get("modelURL", ""))]
    for name, flag in _GIVEN.items():
        if config.get(name) not in (None, ""):
            words += [flag, str(config[name])]
    for name, flag in _SWITCHED.items():
        if isinstance(config.get(name), bool):
            words.append(f"--{flag}" if config[name] else f"--no-{flag}")
    extra: Any = next((config[name] for name in _EXTRA if name in config), [])
    words += [str(word) for word in extra] if isinstance(extra, list) else command_words(str(extra))
    cache = mapping(spec.get("lmcacheConfig"))
    role = None
    if cache.get("enabled") is True:
        role = {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(cache.get("kvRole")))
        connector = {"kv_connector": "LMCacheConnectorV1", "kv_role": cache.get("kvRole", "kv_both")}
        if "--kv-transfer-config" not in words:
            words += ["--kv-transfer-config", json.dumps(connector)]
    tag = str(spec.get("tag", ""))
    version = re.fullmatch(r"v?(\d+\.\d+\.\d+)[\w.-]*", tag)
    return Command(
        arguments=tuple(words),
        where=f"model {spec.get('name', '')}".strip(),
        replicas=whole(spec.get("replicaCount"), 1),
        version=version[1] if version and str(spec.get("repository", "")).endswith("vllm/vllm-openai") else None,
        role=role,
    )


def _of_modelservice(document: Mapping[str, Any]) -> Iterable[Command]:
    artifacts = mapping(document["modelArtifacts"])
    name = str(artifacts.get("name") or "")
    uri = re.sub(r"^\w+(?:\+\w+)?://", "", str(artifacts.get("uri", "")))
    sections = [(role, mapping(document.get(role))) for role in ("prefill", "decode")]
    used = [(r, s) for r, s in sections if s and s.get("create", True) is not False and whole(s.get("replicas"), 1)]
    for role, section in used:
        parallel = parallel_words(mapping(section.get("parallelism")))
        for container in section.get("containers") or ():
            given = mapping(container)
            arguments = [str(word) for word in given.get("args") or ()]
            own = given.get("command") if given.get("modelCommand", "custom") == "custom" else None
            if own:
                words = [str(word) for word in own] if isinstance(own, list) else command_words(str(own))
                found = servers_of_words([*words, *arguments], {})
                lists = [server.arguments for server in found]
            elif engine_of_image(str(given.get("image", ""))) == "vllm":
                lists = [(uri or name, *(["--served-model-name", name] if name else []), *parallel, *arguments)]
            else:
                lists = []
            for words_given in lists:
                yield Command(
                    arguments=words_given,
                    where=role,
                    replicas=whole(section.get("replicas"), 1),
                    role=role if len(used) == 2 else None,
                )


def is_values(document: Mapping[str, Any]) -> bool:
    """Whether a mapping looks like the values of a chart: images by repository and tag, and no resource."""
    if "kind" in document or "services" in document:
        return False
    return any(_names_image(value) for value in document.values()) or "repository" in document


def _names_image(value: Any) -> bool:
    if isinstance(value, dict):
        return "repository" in value or any(map(_names_image, value.values()))
    return isinstance(value, list) and any(map(_names_image, value))
