"""Where a deployment's model comes from: the hub id that was asked for, or a local directory."""

from __future__ import annotations

from pathlib import Path

from planner.emit.running import Running
from planner.errors import InputError
from planner.problem import Problem

PLACES = ("{models}", "{directory}", "{rank}", "{head}", "{file}")
"""What launches leave for platforms to fill in; no user's text may contain it."""


_AS_MADE = ("bf16", "native")
"""Weights of a checkpoint that nobody quantised after its makers."""


def is_path(name: str) -> bool:
    """Whether what is loaded is a directory or file of a server."""
    return name.startswith(("/", ".", "~"))


def kept_checkpoint(running: Running | None, weights: str) -> str | None:
    """Return the quantised checkpoint of a running server where the plan has weights of its precision."""
    if running is None or running.model is None or running.weights in _AS_MADE:
        return None
    return one_word(running.model, "the command: model") if running.weights == weights else None


def model_source(problem: Problem, checkpoint: str | None, running: Running | None) -> str:
    """Return the hub id that was asked for, or the directory of a local model; what runs already stays.

    Raises
    ------
    InputError
        If nobody publishes the model's weights and no checkpoint is named.
    """
    if running is not None and running.model is not None and running.weights in _AS_MADE:
        return one_word(running.model, "the command: model")
    if problem.model_entry is None:
        path = Path(problem.model_id)
        return one_word(str((path.parent if path.is_file() else path).absolute()), "the plan: model")
    if problem.hub_id is None and checkpoint is None:
        raise InputError(
            f"the plan: model {problem.model_id}: no weights of it are published; name yours with --checkpoint"
        )
    return one_word(problem.hub_id or checkpoint or "", "the plan: model")


def one_word(name: str, where: str) -> str:
    """Return a name that can be one word of a command line.

    Raises
    ------
    InputError
        If a program would take it for a flag, a terminal for a command, or this program for a place to fill in.
    """
    if not name or name.startswith("-") or any(not character.isprintable() for character in name):
        raise InputError(f"{where} {name!r}: is empty, begins with a dash or has control characters; rename it")
    filled = [place for place in PLACES if place in name]
    if filled:
        raise InputError(f"{where} {name!r}: contains {filled[0]}, which stands for something here; rename it")
    return name
