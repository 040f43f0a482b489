"""Check flags, keys and values against the snapshot of the engine's own parser at a version.

Snapshots are JSON files in ``catalog/engine_flags``, made by ``python -m scripts.engine_flags``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from catalog.errors import nearest
from planner.emit.launch import Flags, Value
from planner.errors import InputError

_PACKAGE = "catalog.engine_flags"


def versions(engine: str) -> list[str]:
    """Return the versions of an engine that have a snapshot, in order of their names."""
    rest = (name.removeprefix(f"{engine}-") for name in _names() if name.startswith(f"{engine}-"))
    return sorted(version for version in rest if version[:1].isdigit())


def snapshot(engine: str, version: str) -> Mapping[str, Any]:
    """Return what is known of an engine's command line at a version.

    Raises
    ------
    InputError
        If there is no snapshot of that version: its flags can't be checked, so none are written.
    """
    if version not in versions(engine):
        known = ", ".join(versions(engine)) or "none"
        raise InputError(
            f"{engine} {version}: its flags aren't known here (known versions: {known}); "
            "use a known version, or add a snapshot with python -m scripts.engine_flags"
        )
    return _read(f"{engine}-{version}")


def problems_of_flags(flags: Flags, engine: str, version: str) -> list[str]:
    """Say which flags or values the engine would refuse; an empty list means none."""
    known = _by_spelling(engine, version)
    problems = []
    for name, value in flags:
        record = known.get(name)
        if record is None:
            near = ", ".join(nearest(name, known))
            problems.append(f"{engine} {version} has no flag {name}" + (f"; did you mean {near}?" if near else ""))
        else:
            problems += _problems_of_value(name, value, record, f"{engine} {version}")
    return problems


def problems_of_environment(names: Iterable[str], engine: str, version: str) -> list[str]:
    """Say which of an engine's environment variables it doesn't read; those of other programs pass."""
    known = snapshot(engine, version).get("environment", [])
    prefix = f"{engine.upper()}_"
    return [
        f"{engine} {version} has no environment variable {name}"
        for name in names
        if name.startswith(prefix) and name not in known
    ]


def problems_of_keys(settings: Mapping[str, Any], table: str, engine: str, version: str) -> list[str]:
    """Say which keys of a config file the engine would refuse.

    ``table`` names a table of fields in the snapshot; a field whose record names another table is
    checked into.
    """
    known = snapshot(engine, version)["tables"][table]
    problems = []
    for key, value in settings.items():
        record = known.get(key)
        if record is None:
            near = ", ".join(nearest(key, known))
            problems.append(
                f"{engine} {version}: {table} has no key {key}" + (f"; did you mean {near}?" if near else "")
            )
        elif "table" in record and isinstance(value, Mapping):
            problems += problems_of_keys(value, record["table"], engine, version)
        else:
            problems += _problems_of_value(key, value, record, f"{engine} {version}")
    return problems


def _problems_of_value(name: str, value: Any, record: Mapping[str, Any], who: str) -> list[str]:
    kind = record["type"]
    values = value if isinstance(value, list | tuple) else [value]
    if kind == "bool":
        return [] if isinstance(value, bool) else [f"{who}: {name} takes no value; got {value!r}"]
    if any(isinstance(v, bool) for v in values):
        return [f"{who}: {name} needs a value of type {kind}"]
    wrong = [v for v in values if not _reads_as(v, kind)]
    if wrong:
        return [f"{who}: {name} must be of type {kind}; got {wrong[0]!r}"]
    choices = record.get("choices")
    refused = [v for v in values if choices and v not in choices]
    if refused:
        return [f"{who}: {name} can't be {refused[0]!r}; it has {', '.join(map(str, choices or []))}"]
    return []


def _reads_as(value: Value | Mapping[str, Any], kind: str) -> bool:
    try:
        if kind == "int":
            return not isinstance(value, float) and str(int(str(value))) == str(value)
        if kind == "float":
            float(str(value))
        elif kind == "json":
            return isinstance(value, Mapping) or isinstance(json.loads(str(value)), dict | list)
    except ValueError:
        return False
    return True


@cache
def _by_spelling(engine: str, version: str) -> dict[str, Mapping[str, Any]]:
    return {name: record for record in snapshot(engine, version)["flags"].values() for name in record["names"]}


@cache
def _names() -> tuple[str, ...]:
    folder = files(_PACKAGE)
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


@cache
def _read(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(files(_PACKAGE).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return content
