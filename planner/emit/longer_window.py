"""What an engine must be told so that a model runs past the window in its config."""

from __future__ import annotations

from typing import Any

from catalog.schema import Model
from catalog.units import format_tokens
from catalog.window import Change, NoWindowError, rope_overrides
from planner.emit.deployment import Deployment
from planner.errors import InputError
from planner.problem import Problem


def window_change(deployment: Deployment) -> Change:
    """Return what the deployment's longest session needs: nothing, a higher declared window, or scaled positions.

    Raises
    ------
    InputError
        If no way is known to serve that length.
    """
    return change_for(deployment.problem, deployment.max_model_len)


def window_overrides(deployment: Deployment) -> dict[str, Any]:
    """Return the change to ``config.json`` for the planned length; nothing where no positions are to be scaled."""
    return rope_overrides(deployment.config, window_change(deployment))


def change_for(problem: Problem, tokens: int) -> Change:
    """Return what sessions of a length need.

    Raises
    ------
    InputError
        If no way is known to serve that length.
    """
    try:
        return problem.lengths.change(tokens)
    except NoWindowError as error:
        models = problem.catalog.all(Model)
        fitting = [m for m in models if m.config_grade != "recalled" and m.trained_tokens >= tokens]
        fitting.sort(key=lambda model: (model.trained_tokens, model.id))
        others = ", ".join(model.id for model in fitting[:3])
        instead = f", or a model that was trained for it ({others})" if others else ""
        raise InputError(
            f"--ctx: a session at {format_tokens(problem.request.ctx)} grows to {tokens} tokens. {error}. Plan a "
            f"shorter --ctx{instead}. "
            "If its publisher gives a method, say so in a catalog entry of your own (extension:)"
        ) from None
