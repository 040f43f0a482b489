"""What several engines write alike: flags as a config file, and the flag of a weight format."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.launch import Flags, Value
from planner.emit.quoting import yaml_text

_NAMES = frozenset({"--served-model-name", "--model-path", "--model", "--alias", "--chat-template", "--tokenizer"})
"""Flags with a text of the user's, which may look like JSON and is none."""


def config_settings(flags: Flags) -> dict[str, Any]:
    """Return flags as the keys of a ``--config`` file: without dashes, JSON as a mapping."""
    settings: dict[str, Any] = {}
    for name, value in flags:
        settings[name.removeprefix("--")] = _setting(name, value)
    return settings


def _setting(name: str, value: Value) -> Any:
    if isinstance(value, tuple):
        return list(value)
    text = value if isinstance(value, str) and name not in _NAMES else ""
    if text.startswith("{") and not text.startswith(("{models}", "{directory}")):
        with contextlib.suppress(ValueError):  # a text of the user's that only looks like JSON
            return json.loads(text)
    return value


def config_text(flags: Flags, **first: str) -> str:
    """Return a ``--config`` file for use in the directory of the scripts; ``first`` are keys without a flag."""
    settings = first | config_settings(flags)
    local = {key: _in_place(value) for key, value in settings.items()}
    return yaml_text(local)


def _in_place(value: Any) -> Any:
    return value.replace("{models}", "models").replace("{directory}/", "") if isinstance(value, str) else value


def several(count: int) -> int | None:
    """Return a count that is more than one, which is all that engines have to be told."""
    return count if count > 1 else None


def weight_flag(deployment: Deployment) -> Flags:
    """Return the flag with which the catalog says that the engine loads the plan's weights, if it needs one."""
    found = deployment.weight_format
    if found is None or found.setting is None or not found.setting.startswith("--"):
        return ()
    name, _, value = found.setting.partition(" ")
    return ((name, value or True),)


def expert_traffic(deployment: Deployment, pool: PoolPlan, nodes: int, flag: str) -> Flags:
    """Return the flag for what moves tokens between experts of several servers, where the cluster file names it."""
    named = deployment.cluster.site.network.all2all
    engine: str = deployment.engine.id
    found = next((backend for name, backend in named.items() if name == engine), None)
    return ((flag, found),) if found is not None and pool.ep > 1 and nodes > 1 else ()
