"""Which architectures an engine has at a version: lists made from its package by ``scripts.engine_architectures``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

_PACKAGE = "catalog.engine_architectures"

Implementation = Literal["native", "transformers"]


@dataclass(frozen=True)
class EngineModels:
    """The names that ``architectures`` of a ``config.json`` may have for one engine at one version."""

    engine: str
    version: str
    source: str
    """The package or page that says so."""
    native: frozenset[str]
    transformers: frozenset[str]
    """Run through the class of Transformers: no kernels of the model's own."""
    no_pipeline: frozenset[str]
    """Of them, those that can't be split into pipeline stages, where the engine leaves that to its models."""
    removed: Mapping[str, str]
    """Name -> last version of the engine that had it."""
    other_engine: Mapping[str, frozenset[str]]
    """Run by another engine of the same package, which the catalog's entry doesn't describe: its name -> names."""

    def has_stages(self, architectures: tuple[str, ...]) -> bool:
        """Whether a model whose config names these architectures can be split into pipeline stages."""
        own = next((name for name in architectures if name in self.native), None)
        return own not in self.no_pipeline

    def implementation(self, architectures: tuple[str, ...]) -> Implementation | None:
        """How the engine has a model whose config names these architectures; None: it hasn't."""
        if any(name in self.native for name in architectures):
            return "native"
        return "transformers" if any(name in self.transformers for name in architectures[:1]) else None


def models_of(engine: str, version: str) -> EngineModels | None:
    """Return the list of an engine at a version, or at the newest one that has a list; None where none has.

    Examples
    --------
    >>> found = models_of("vllm", "0.33.0")
    >>> found.implementation(("LlamaForCausalLM",)), found.removed["MiniMaxText01ForCausalLM"]
    ('native', '0.23.0')
    """
    known = versions_of(engine)
    if not known:
        return None
    return _read(engine, version if version in known else known[-1])


@cache
def versions_of(engine: str) -> tuple[str, ...]:
    """Return the versions of an engine that have a list, the newest last."""
    names = (f.name.removesuffix(".json") for f in files(_PACKAGE).iterdir() if f.name.endswith(".json"))
    found = (name.removeprefix(f"{engine}-") for name in names if name.startswith(f"{engine}-"))
    return tuple(sorted((version for version in found if version[:1].isdigit()), key=version_key))


def version_key(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare; what isn't a number counts as 0.

    >>> version_key("0.9.2") < version_key("0.33.0")
    True
    """
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


@cache
def _read(engine: str, version: str) -> EngineModels:
    path = files(_PACKAGE).joinpath(f"{engine}-{version}.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return EngineModels(
        engine=engine,
        version=version,
        source=content.get("source") or content["package"],
        native=frozenset(content["native"]),
        no_pipeline=frozenset(content.get("no_pipeline", ())),
        transformers=frozenset(content.get("transformers", {}).get("names", ())),
        removed=content["removed"],
        other_engine={name: frozenset(names) for name, names in content.get("other_engine", {}).items()},
    )
