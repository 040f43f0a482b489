"""Whether a rule of an engine applies to a request: its model's config, its GPU, its length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from catalog.architecture import Architecture
from catalog.engine_models import Implementation, version_key
from catalog.schema import ConfigKey, EngineCondition, EngineRule

INNER = ("text_config", "llm_config", "language_config")
"""Where a config of several models keeps the one that answers in text."""


@dataclass(frozen=True)
class Subject:
    """What rules are judged on."""

    config: Mapping[str, Any]
    architecture: Architecture
    compute_capability: str
    ctx_tokens: int
    session_tokens: int
    """The longest session [tokens]."""
    rounds: int
    """Questions of a session."""
    implementation: Implementation | None

    @cached_property
    def architectures(self) -> tuple[str, ...]:
        """Names of the model's class, as its config has them."""
        return architectures_of(self.config)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of attention that some layers have."""
        return self.architecture.attention_kinds

    @cached_property
    def heads(self) -> frozenset[tuple[int, int]]:
        """Widths of a head's keys and values, where both are kept [elements]."""
        return frozenset((t.k_dim, t.v_dim) for layer in self.architecture.layers for t in layer.cache if t.v_dim)

    @cached_property
    def rope_types(self) -> set[str]:
        """How positions are scaled, of every kind of layer."""
        return rope_types(self.config)

    @property
    def declared_tokens(self) -> int | None:
        """The window that the config declares, as engines derive it: stretched by some types of positions [tokens]."""
        return self.architecture.context_tokens or None


def applies(rule: EngineRule, subject: Subject, version: str) -> bool:
    """Whether a rule speaks of this version of its engine, and of this model, GPU and length."""
    key = version_key(version)
    if rule.since is not None and key < version_key(rule.since):
        return False
    if rule.until is not None and key > version_key(rule.until):
        return False
    return _model_holds(rule.when, subject) and _place_holds(rule.when, subject)


def architectures_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in ``architectures`` of a config that nobody has checked."""
    found = config.get("architectures")
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list | tuple) else ()


def value_of(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path with dots, of the model that answers in text first; None where it is missing."""
    inner = [config[name] for name in INNER if isinstance(config.get(name), Mapping)]
    for place in (*inner, config):
        found: Any = place
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            return found
    return None


def rope_types(config: Mapping[str, Any]) -> set[str]:
    """Return how positions are scaled, of every kind of layer; empty where the config has no rope parameters."""
    found = {name for key in ("rope_parameters", "rope_scaling") for name in _rope_types(value_of(config, key))}
    return found or ({"default"} if value_of(config, "rope_theta") is not None else set())


def _rope_types(value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    named = value.get("rope_type", value.get("type"))
    if isinstance(named, str):
        yield named
    for inner in value.values():
        yield from _rope_types(inner)


def _model_holds(when: EngineCondition, subject: Subject) -> bool:
    types, names = subject.rope_types, subject.architectures
    return (
        (not when.architectures or any(fnmatchcase(name, p) for name in names for p in when.architectures))
        and when.implementation in (None, subject.implementation)
        and all(_key_holds(key, subject.config) for key in when.config)
        and (not when.rope_types or bool(types & set(when.rope_types)))
        and (not when.rope_types_beside or bool(types - set(when.rope_types_beside)))
        and (not when.attention or bool(subject.kinds & set(when.attention)))
        and when.attention_sinks in (None, subject.architecture.attention_sinks)
        and when.experts in (None, not subject.architecture.dense)
        and (not when.head_dims_beside or any(k not in when.head_dims_beside for k, _ in subject.heads))
        and (when.head_dim_above is None or any(k > when.head_dim_above for k, _ in subject.heads))
        and when.k_v_differ in (None, any(k != v for k, v in subject.heads))
    )


def _place_holds(when: EngineCondition, subject: Subject) -> bool:
    declared = subject.declared_tokens
    beyond = declared is not None and subject.session_tokens > declared
    return (
        (not when.compute_capabilities or subject.compute_capability in when.compute_capabilities)
        and (when.ctx_above is None or subject.ctx_tokens > when.ctx_above)
        and (when.rounds_above is None or subject.rounds > when.rounds_above)
        and when.beyond_declared in (None, beyond)
    )


def _key_holds(key: ConfigKey, config: Mapping[str, Any]) -> bool:
    found = value_of(config, key.key)
    if key.present is not None and (found is not None) != key.present:
        return False
    if key.values and not any(
        found == value and isinstance(found, bool) == isinstance(value, bool) for value in key.values
    ):
        return False
    return key.above is None or (isinstance(found, int | float) and not isinstance(found, bool) and found > key.above)
