"""A scenario: a request plus overrides, as a command line or a file of scenarios gives them.

    gpus=8xH100                       one override; the scenario is called ``gpus=8xH100``
    gpus=8xH100,ctx=32K               two in one scenario
    techniques=kv_fp8,h2o,ctx=32K     a value may hold commas: what has no ``=`` belongs to the value before it
    fast:max_latency=50ms             a name before the first ``=`` and a colon
    max_latency=none                  without that limit

Nothing is solved here. A scenario that can't be understood keeps its problems, so that the others
can go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.errors import nearest
from planner.errors import InputError
from planner.files import read_request_file
from planner.pins import is_pin
from planner.request import Request, read_request

NOTHING = ("none", "null", "")
"""A value that takes an override's limit away, where the field may be left out."""

Changes = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A named request, or why there is none."""

    name: str
    changes: Changes
    """Overrides as they were written: field -> text or number; None takes a limit away."""
    request: Request | None
    problems: tuple[str, ...] = ()
    """Everything that is wrong with it; empty where ``request`` is one."""


def read_changes(text: str) -> Changes:
    """Read ``key=value,key=value``; a piece without ``=`` continues the value before it.

    Parameters
    ----------
    text
        As after ``--set``; keys are a request's fields, with ``-`` or ``_``.

    Returns
    -------
    dict
        Field -> text, or None where the limit is taken away.

    Raises
    ------
    InputError
        With every piece that is no override.

    Examples
    --------
    >>> read_changes("techniques=kv_fp8,h2o,ctx=32K")
    {'techniques': 'kv_fp8,h2o', 'ctx': '32K'}
    >>> read_changes("max-latency=none")
    {'max_latency': None}
    >>> read_changes("pin=tp=4,roles=serve,gpus=8xH100")
    {'pin': 'tp=4,roles=serve', 'gpus': '8xH100'}
    """
    pairs: list[tuple[str, str]] = []
    problems = []
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if equals and pairs and pairs[-1][0] == "pin" and field_name(key) not in Request.model_fields and is_pin(key):
            pairs[-1] = ("pin", f"{pairs[-1][1]},{piece.strip()}")
        elif equals:
            pairs.append((field_name(key), value.strip()))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{piece.strip()}")
        else:
            problems.append(f"{piece.strip() or 'empty'!r}: no 'field=value'; write for example gpus=8xH100")
    changes: Changes = {}
    for field, value in pairs:
        problems += field_problems(field)
        if field in changes:
            problems.append(f"{field}: given twice; keep one")
        changes[field] = value
    if problems:
        raise InputError(problems)
    return without_nothing(changes)


def field_name(key: str) -> str:
    """The field that a key means: ``--max-latency`` and ``max_latency`` are the same."""
    return key.strip().lstrip("-").replace("-", "_")


def field_problems(field: str) -> list[str]:
    """Say what is wrong with a field's name; nothing, where a request has it."""
    if field in Request.model_fields:
        return []
    near = nearest(field, Request.model_fields)
    meant = f"did you mean {near[0]}?" if near else f"a request has {', '.join(Request.model_fields)}"
    return [f"{field or 'empty'}: unknown field; {meant}"]


def without_nothing(changes: Mapping[str, Any]) -> Changes:
    """The changes with ``none`` as None, where a request may leave the field out."""

    def is_nothing(field: str, value: Any) -> bool:
        info = Request.model_fields.get(field)
        optional = info is not None and not info.is_required() and info.default is None
        return optional and isinstance(value, str) and value.lower() in NOTHING

    return {field: None if is_nothing(field, value) else value for field, value in changes.items()}


def split_name(text: str) -> tuple[str | None, str]:
    """Split a scenario's name from its overrides: what stands before a colon that comes before the first ``=``.

    >>> split_name("fast:max_latency=50ms"), split_name("model=org/name:tag")
    (('fast', 'max_latency=50ms'), (None, 'model=org/name:tag'))
    """
    head, equals, _ = text.partition("=")
    name, colon, _ = head.partition(":")
    if not equals or not colon:
        return None, text
    return name.strip(), text[len(name) + 1 :]


def override(base: Mapping[str, object], changes: Mapping[str, Any]) -> dict[str, object]:
    """The base's values with the changes on top."""
    return {**base, **changes}


def scenario(name: str, base: Mapping[str, object], changes: Mapping[str, Any]) -> Scenario:
    """Make a scenario of a base and overrides; what is wrong with it is kept, not raised."""
    clean = without_nothing(changes)
    problems = [text for field in clean for text in field_problems(field)]
    request = None
    try:
        known = {field: value for field, value in clean.items() if field in Request.model_fields}
        request = read_request(override(base, known))
    except InputError as error:
        problems += error.problems
    return Scenario(name, clean, None if problems else request, tuple(problems))


def read_sets(texts: Sequence[str], base: Mapping[str, object]) -> list[Scenario]:
    """One scenario for each ``--set``, in their order."""
    found = []
    for text in texts:
        name, rest = split_name(text)
        try:
            changes = read_changes(rest)
        except InputError as error:
            found.append(Scenario(name or text, {}, None, tuple(f"--set {text}: {what}" for what in error.problems)))
            continue
        found.append(scenario(name or rest.strip(), base, changes))
    return found


def read_scenarios(text: str, where: str, given: Mapping[str, object]) -> tuple[dict[str, object], list[Scenario]]:
    """Read a file of scenarios: ``base`` with a request's fields, ``scenarios`` with named overrides.

    Parameters
    ----------
    text
        YAML or JSON.
    where
        The file's name, for messages.
    given
        Options of the command line: they win over the file's base.

    Returns
    -------
    tuple
        The base's values, and the scenarios in the file's order.

    Raises
    ------
    InputError
        If the file has another form. A scenario with unusable values is returned with its problems.
    """
    raw = read_request_file(text, where)
    problems = [f"{where}: {name}: unknown; a file of scenarios has base and scenarios" for name in _others(raw)]
    file_base, named = raw.get("base") or {}, raw.get("scenarios") or {}
    if not isinstance(file_base, dict):
        problems.append(f"{where}: base: holds no 'field: value' lines; write for example 'ctx: 128K'")
    if not isinstance(named, dict) or not named:
        problems.append(f"{where}: scenarios: holds no named scenario; write for example 'h100: {{gpus: 8xH100}}'")
    else:
        problems += [
            f"{where}: scenarios.{name}: holds no 'field: value' lines; write for example '{{gpus: 8xH100}}'"
            for name, changes in named.items()
            if not isinstance(changes, dict)
        ]
    if problems or not isinstance(file_base, dict) or not isinstance(named, dict):
        raise InputError(problems)
    base: dict[str, object] = {**_fields(file_base), **given}
    return base, [scenario(str(name), base, _fields(changes)) for name, changes in named.items()]


def _others(raw: Mapping[str, object]) -> list[str]:
    return [name for name in raw if name not in ("base", "scenarios")]


def _fields(values: Mapping[Any, Any]) -> Changes:
    """A file's fields by their names in a request; a list is its members with commas."""
    return {
        field_name(str(key)): ",".join(map(str, value)) if isinstance(value, list) else value
        for key, value in values.items()
    }


def with_unique_names(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """The scenarios, the later ones of a name refused."""
    seen: set[str] = set()
    found = []
    for one in scenarios:
        if one.name in seen:
            twice = f"{one.name}: there is a scenario of this name already; give it another: --set NAME:field=value"
            one = Scenario(one.name, one.changes, None, (twice,))
        seen.add(one.name)
        found.append(one)
    return found
