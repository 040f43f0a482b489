"""Servers of Ray Serve's LLM applications: vLLM's arguments in Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from planner.importing.command import Command
from planner.importing.documents import mapping
from planner.importing.stamps import stamp_in, version_in


def commands_of_applications(document: Mapping[str, Any], text: str) -> Iterable[Command]:
    """Return what the applications of a Serve config start."""
    for application in document["applications"]:
        for config in mapping(mapping(application).get("args")).get("llm_configs") or ():
            given = mapping(config)
            loading = mapping(given.get("model_loading_config"))
            source = loading.get("model_source") or loading.get("model_id") or ""
            words = [str(source if isinstance(source, str) else loading.get("model_id", ""))]
            words += ["--served-model-name", str(loading["model_id"])] if "model_id" in loading else []
            words += words_of_settings(mapping(given.get("engine_kwargs")))
            replicas, notes = _replicas(mapping(given.get("deployment_config")))
            yield Command(
                arguments=tuple(words),
                where=f"application {mapping(application).get('name', '')}".strip(),
                replicas=replicas,
                version=version_in(text, "vllm"),
                stamp=stamp_in(text),
                notes=notes,
            )


def commands_of_ray_service(document: Mapping[str, Any]) -> Iterable[Command]:
    """Return what a RayService's Serve config starts."""
    text = str(mapping(document.get("spec")).get("serveConfigV2", ""))
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    if isinstance(config, dict) and isinstance(config.get("applications"), list):
        yield from commands_of_applications(config, text)


def words_of_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return settings of Python as words of the command line.

    >>> words_of_settings({"tensor_parallel_size": 2, "enforce_eager": False})
    ['--tensor-parallel-size', '2', '--no-enforce-eager']
    """
    words: list[str] = []
    for key, value in settings.items():
        name = f"--{str(key).replace('_', '-')}"
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif value is not None:
            words += [name, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return words


def _replicas(deployed: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    scaled = mapping(deployed.get("autoscaling_config"))
    least, most = scaled.get("min_replicas", 1), scaled.get("max_replicas")
    count = deployed.get("num_replicas", least)
    if not isinstance(count, int):
        count = least if isinstance(least, int) else 1
    if "num_replicas" not in deployed and isinstance(most, int) and most > count:
        return count, (f"scales from {count} to {most} replicas; read as {count}",)
    return count, ()
