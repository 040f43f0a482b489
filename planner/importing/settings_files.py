"""Settings that a command names as a file: ``--config`` of vLLM and SGLang, TensorRT-LLM's options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from planner.importing.command import Command

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


def flags_of_settings(command: Command, flags: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the keys of TensorRT-LLM's options by their path, with dots; empty for other engines."""
    if command.engine != "tensorrt-llm":
        return {}
    path = next((str(flags[name]) for name in _TENSORRT_FILES if name in flags), None)
    if path is None:
        return {}
    text = command.config_files.get(path.rsplit("/", 1)[-1])
    try:
        content = yaml.safe_load(text) if text is not None else None
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        notes.append(f"{path}: the file isn't part of what was given; its settings aren't read")
        return {}
    return dict(_paths(content, ""))


def _paths(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and key in ("kv_cache_config", "sparse_attention_config"):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
