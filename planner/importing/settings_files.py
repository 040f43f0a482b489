"""Settings that a command names as a file: ``--config`` of vLLM and SGLang, TensorRT-LLM's options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from planner.importing.command import Command, Neighbour
from planner.importing.unknown import shown

_TENSORRT_FILES = ("--extra_llm_api_options", "--config")


def words_of_config(content: Mapping[str, Any]) -> list[str]:
    """Return the keys of a ``--config`` file as words of the command line.

    >>> words_of_config({"max-num-seqs": 17, "enforce_eager": True, "async": False})
    ['--max-num-seqs', '17', '--enforce-eager', '--no-async']
    """
    words: list[str] = []
    for key, value in content.items():
        name = f"--{str(key).replace('_', '-')}"
        if value is False:
            words.append(f"--no-{name[2:]}")
        elif value is not True:
            items = value if isinstance(value, list) else [value]
            words += [name, *(json.dumps(v) if isinstance(v, dict) else str(v) for v in items)]
        else:
            words.append(name)
    return words


def file_text(command: Command, path: str, neighbour: Neighbour) -> str | None:
    """Return the text of a file that a command names: one that came with it, or one beside what was read."""
    name = shown(path).rsplit("/", 1)[-1]
    found = command.config_files.get(name)
    if found is None:
        found = neighbour(shown(path))
    return neighbour(name) if found is None else found


def flags_of_settings(
    command: Command, flags: Mapping[str, Any], notes: list[str], neighbour: Neighbour
) -> dict[str, Any]:
    """Return the keys of TensorRT-LLM's options by their path, with dots; empty for other engines."""
    if command.engine != "tensorrt-llm":
        return {}
    path = next((str(flags[name]) for name in _TENSORRT_FILES if name in flags), None)
    if path is None:
        return {}
    content = _mapping_of(file_text(command, path, neighbour))
    if content is None:
        notes.append(f"{path}: the file isn't part of what was given; its settings aren't read")
        return {}
    return dict(_paths(content, ""))


def lmcache_tier(command: Command, flags: Mapping[str, Any], neighbour: Neighbour) -> str | None:
    """Return the tier that LMCache keeps caches in, by its file or its variables; None where neither says it."""
    path = flags.get("--lmcache-config-file") or command.environment.get("LMCACHE_CONFIG_FILE")
    variables = {key.removeprefix("LMCACHE_").lower(): value for key, value in command.environment.items()}
    settings = variables if path is None else _mapping_of(file_text(command, str(path), neighbour))
    if settings is None:
        return None
    if settings.get("local_disk") and str(settings["local_disk"]).lower() not in ("false", "none", "null"):
        return "nvme"
    return "ddr"


def _mapping_of(text: str | None) -> dict[str, Any] | None:
    try:
        content = yaml.safe_load(text) if text is not None else None
    except yaml.YAMLError:
        return None
    return content if isinstance(content, dict) else None


def _paths(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and key in ("kv_cache_config", "sparse_attention_config"):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
