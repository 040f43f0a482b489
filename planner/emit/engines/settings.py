"""What several engines write alike: flags as a config file, and the flag of a weight format."""

from __future__ import annotations

import json
from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.launch import Flags
from planner.emit.quoting import yaml_text


def config_settings(flags: Flags) -> dict[str, Any]:
    """Return flags as the keys of a ``--config`` file: without dashes, JSON as a mapping."""
    settings: dict[str, Any] = {}
    for name, value in flags:
        is_json = isinstance(value, str) and value.startswith("{") and not value.startswith(("{models}", "{directory}"))
        settings[name.removeprefix("--")] = json.loads(str(value)) if is_json else value
    return settings


def config_text(flags: Flags, **first: str) -> str:
    """Return a ``--config`` file for use in the directory of the scripts; ``first`` are keys without a flag."""
    settings = first | config_settings(flags)
    local = {key: _in_place(value) for key, value in settings.items()}
    return yaml_text(local)


def _in_place(value: Any) -> Any:
    return value.replace("{models}", "models").replace("{directory}/", "") if isinstance(value, str) else value


def weight_flag(deployment: Deployment) -> Flags:
    """Return the flag with which the catalog says that the engine loads the plan's weights, if it needs one."""
    found = deployment.weight_format
    if found is None or found.setting is None or not found.setting.startswith("--"):
        return ()
    name, _, value = found.setting.partition(" ")
    return ((name, value or True),)
