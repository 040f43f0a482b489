"""The running server as an emission has to know it, to take its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from planner.emit.running import Running
from planner.importing.decision import Imported
from planner.problem import Problem


def running_server(imported: Imported, problem: Problem) -> Running:
    """Return what clients and operators of an imported deployment see of it.

    Parameters
    ----------
    imported
        The deployment, its weights filled in.
    problem
        The question with the model that it serves.
    """
    model = imported.model if imported.model and not imported.model.startswith("$") else None
    named = imported.flags.get("--served-model-name")
    names = tuple(map(str, named)) if isinstance(named, list) else (str(named),) if named else ()
    window = imported.context_tokens or problem.window_tokens
    return Running(
        flags=_newer(imported.flags, problem, window),
        model=model,
        served_names=names or ((model,) if model else ()),
        weights=imported.decision.weights,
        window_tokens=window,
        unread=imported.unread,
    )


def _newer(flags: Mapping[str, Any], problem: Problem, window_tokens: int) -> dict[str, Any]:
    """Return flags with positions scaled by older vLLM's own flags as overrides of the config."""
    found = {name: value for name, value in flags.items() if name not in ("--rope-scaling", "--rope-theta")}
    scaling, theta = flags.get("--rope-scaling"), flags.get("--rope-theta")
    if scaling is None and theta is None:
        return found
    try:
        rope = json.loads(str(scaling or "{}"))
    except ValueError:
        return dict(flags)
    config = problem.model_entry.config if problem.model_entry is not None else {}
    nested = isinstance(config.get("text_config"), dict)
    text = config["text_config"] if nested else config
    known = text.get("rope_parameters") or {}
    base = theta or rope.get("rope_theta") or known.get("rope_theta") or text.get("rope_theta") or 10_000.0
    kind = rope.pop("type", None)
    changed = {
        "rope_parameters": {**({"rope_type": kind} if kind else {}), **rope, "rope_theta": float(base)},
        "max_position_embeddings": window_tokens,
    }
    given = found.get("--hf-overrides")
    before = json.loads(given) if isinstance(given, str) and given.startswith("{") else {}
    found["--hf-overrides"] = json.dumps({**before, **({"text_config": changed} if nested else changed)})
    return found
