"""How long a context a model holds: the window of its training, the one its config declares, and how to go beyond."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from catalog.architecture import Architecture
from catalog.schema import Extension, Model

WITHOUT_POSITIONS = frozenset({"jamba", "kimi_linear", "nemotron_h"})
"""``model_type`` whose attention over the whole context has no positions (transformers 5.24, vLLM 0.33)."""
_SHAPE = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "dual_chunk_attention_config"),
)
_ROPE_THETA_DEFAULT = 10_000.0
"""What transformers assumes where a config gives no base."""


class NoWindowError(ValueError):
    """No way is known to run a model at a length."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an engine must be told before it serves a length."""

    kind: Literal["none", "raise", "rope"]
    """none: the config declares enough. raise: only the declared number is too small. rope: positions are scaled."""
    factor: float = 1.0
    """YaRN's factor."""
    original_tokens: int = 0
    """Window to which the factor applies [tokens]."""
    max_tokens: int = 0
    """The window after the change [tokens]."""


@dataclass(frozen=True, slots=True)
class Window:
    """The three lengths of a model, and the method between them."""

    trained_tokens: int
    """Of the training [tokens]."""
    declared_tokens: int
    """What the config declares, and engines take without being told more [tokens]."""
    extension: Extension
    positions: bool
    """False: attention has no positions, so that nothing is to be scaled."""
    known: bool
    """Whether the catalog says how the model was trained; False for a config file of the user's own."""

    @property
    def reach_tokens(self) -> int:
        """Longest context by its training, or by a method that engines run [tokens]."""
        usable = self.extension.method not in ("none", "dca")
        return max(self.trained_tokens, (self.extension.to_tokens or 0) if usable else 0)

    def change(self, tokens: int) -> Change:
        """Return what an engine must be told before it serves sessions of a length.

        Parameters
        ----------
        tokens
            Longest session [tokens].

        Raises
        ------
        NoWindowError
            If the length is beyond the config's window, and no method that reaches it is known.
        """
        if tokens <= self.declared_tokens:
            return Change("none", max_tokens=self.declared_tokens)
        if tokens <= self.reach_tokens:
            step = next((step for step in self.extension.steps if step.to_tokens >= tokens), None)
            if step is None or tokens <= self.trained_tokens:
                return Change("raise", max_tokens=tokens)
            original = self.extension.original_tokens or self.trained_tokens
            return Change("rope", step.factor, original, step.to_tokens)
        if not self.positions and not self.known:
            return Change("raise", max_tokens=tokens)
        raise NoWindowError(
            f"{tokens} tokens are beyond the {max(self.reach_tokens, self.declared_tokens)} that the model holds, and "
            "no method that extends it so far is known"
        )


def window_of(architecture: Architecture, config: Mapping[str, Any], entry: Model | None) -> Window:
    """Return the lengths of a model, from its catalog entry or from its config alone."""
    declared = architecture.context_tokens
    positions = has_positions(config)
    if entry is None:
        chunked = text_config(config).get("dual_chunk_attention_config")
        trained = chunked.get("original_max_position_embeddings") if isinstance(chunked, Mapping) else None
        if isinstance(trained, int) and 0 < trained < declared:
            method = Extension(method="dca", to_tokens=declared, source="config.json: dual_chunk_attention_config")
            return Window(trained, declared, method, positions, known=True)
        return Window(declared, declared, Extension(method="none"), positions, known=False)
    positions = positions and entry.extension.method != "nope"
    return Window(entry.trained_tokens, declared, entry.extension, positions, known=True)


def same_positions(config: Mapping[str, Any], models: Iterable[Model]) -> Model | None:
    """Return the model whose layers and positions a config has: fine-tunes and copies keep both; None if there is none.

    Its publisher's method of extension then holds for the config, too.
    """
    return next((model for model in models if _shape(model.config) == _shape(config)), None)


def _shape(config: Mapping[str, Any]) -> tuple[Any, ...]:
    text = text_config(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope = dict(rope) if isinstance(rope, Mapping) else {}
    theta = rope.pop("rope_theta", None) or text.get("rope_theta")
    scaling = {} if rope.get("rope_type", rope.get("type")) == "default" else rope
    return (*(text.get(name) for name in _SHAPE), theta, sorted(scaling.items(), key=str))


def has_positions(config: Mapping[str, Any]) -> bool:
    """Tell whether attention over the whole context has positions that a longer window would have to scale.

    >>> has_positions({"model_type": "nemotron_h", "rope_theta": 10000}), has_positions({"model_type": "llama"})
    (False, True)
    """
    text = text_config(config)
    return not (
        str(text.get("model_type")) in WITHOUT_POSITIONS
        or text.get("position_embedding_type") == "nope"
        or bool(text.get("mla_use_nope"))
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def rope_overrides(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return the change to ``config.json`` that scales positions by YaRN; nothing where none is to be scaled.

    vLLM 0.33 no longer multiplies ``max_position_embeddings`` by the factor, so both are given.
    """
    if change.kind != "rope":
        return {}
    text = text_config(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    dropped = {"type", "rope_type", "factor", "original_max_position_embeddings", "rope_theta"}
    changed: dict[str, Any] = {
        "rope_parameters": {
            **{key: value for key, value in rope.items() if key not in dropped},
            "rope_type": "yarn",
            "factor": change.factor,
            "original_max_position_embeddings": change.original_tokens,
            "rope_theta": float(rope.get("rope_theta", text.get("rope_theta", _ROPE_THETA_DEFAULT))),
        },
        "max_position_embeddings": change.max_tokens,
    }
    return changed if text is config else {"text_config": changed}
