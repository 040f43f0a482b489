"""The override that lets a model run past the window in its config: YaRN, where it may be applied.

vLLM 0.33 no longer multiplies ``max_position_embeddings`` by the YaRN factor, so both are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from planner.emit.deployment import Deployment
from planner.errors import InputError

_SCALED_ALREADY = {"llama3", "longrope", "su", "dynamic", "linear"}
_TRAINED_TOKENS = {("qwen3", 40_960): 32_768, ("qwen3_moe", 40_960): 32_768}
"""(model_type, window of the config) -> window of its training, where the config adds room for answers.

Their makers apply YaRN to 32,768 tokens (model cards of Qwen3; vLLM 0.33 documentation).
"""
_ROPE_THETA_DEFAULT = 10_000.0
"""What transformers assumes where a config gives no base."""


@dataclass(frozen=True, slots=True)
class LongerWindow:
    """A YaRN override."""

    factor: float
    original_tokens: int
    """Window to which the factor applies [tokens]."""
    rope_theta: float
    max_tokens: int
    """The window after the override [tokens]."""
    kept: dict[str, Any]
    """Rope parameters of the config that stay."""
    nested: bool
    """Whether the text model's config is below ``text_config``."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Return the change to ``config.json``."""
        changed: dict[str, Any] = {
            "rope_parameters": {
                **self.kept,
                "rope_type": "yarn",
                "factor": self.factor,
                "original_max_position_embeddings": self.original_tokens,
                "rope_theta": self.rope_theta,
            },
            "max_position_embeddings": self.max_tokens,
        }
        return {"text_config": changed} if self.nested else changed


def longer_window(deployment: Deployment) -> LongerWindow | None:
    """Return the override for the planned length; None where the config's own window holds it.

    Raises
    ------
    InputError
        If the model's positions are scaled in a way that YaRN can't be put on top of.
    """
    nested = isinstance(deployment.config.get("text_config"), dict)
    config = deployment.config["text_config"] if nested else deployment.config
    length = deployment.max_model_len
    window = _whole(config.get("max_position_embeddings")) or deployment.problem.window_tokens
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind == "yarn":
        original = _whole(rope.get("original_max_position_embeddings")) or window
        # Older configs give the window before scaling; vLLM reads max_position_embeddings as it stands.
        if length <= window:
            return None
    elif length <= window:
        return None
    else:
        original = _TRAINED_TOKENS.get((str(config.get("model_type")), window), window)
    if kind in _SCALED_ALREADY or any(isinstance(value, dict) for value in rope.values()):
        raise InputError(
            f"context: {length} tokens exceed the window of {window} in the config of {deployment.model_source!r}, "
            f"whose positions are already scaled ({kind}); no override is known that extends them, so plan a "
            "shorter --ctx or a model that was trained for it"
        )
    factor = _round_up(length / original)
    theta = float(rope.get("rope_theta", config.get("rope_theta", _ROPE_THETA_DEFAULT)))
    dropped = {"type", "rope_type", "factor", "original_max_position_embeddings", "rope_theta"}
    kept = {key: value for key, value in rope.items() if key not in dropped}
    return LongerWindow(factor, original, theta, length, kept, nested)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _round_up(factor: float) -> float:
    """Round a factor up at the sixth decimal, so that the window is never short of the plan."""
    return math.ceil(factor * 1e6) / 1e6
