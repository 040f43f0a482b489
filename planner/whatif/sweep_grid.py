"""The points of a sweep: lists in options, and files of points, become requests.

--ctx 4K,32K --gpus 8xA100,8xH100              every combination: 4 points
--techniques "deployable;kv_fp8,snapkv_1024"   semicolons part values that hold commas themselves
--max-latency none,200ms                       none takes a limit away
--points FILE                                  each row or list item is a point; options apply to all
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import Any

from catalog.read_yaml import parse_yaml
from planner.errors import InputError
from planner.request import Request, read_request
from planner.whatif.scenario import field_name, field_problems, without_nothing

MOST_POINTS = 100_000
MOST_PROBLEMS = 20
"""So many problems are told; a wrong column has one in every row."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The points of a sweep, each once."""

    requests: tuple[Request, ...]
    fields: tuple[str, ...]
    """Fields that differ between the points, in the order in which they were given."""
    repeated: int = 0
    """Points that were left out since they were there already."""


def split_values(field: str, text: str) -> list[str]:
    """Split what an option gives into its values.

    Commas part values; where there is a semicolon, only semicolons do. One value of ``techniques``
    is itself ids with commas, as one of ``pin`` is fields, so there only semicolons ever part values.

    Raises
    ------
    InputError
        If a value is empty.

    Examples
    --------
    >>> split_values("ctx", "4K, 32K")
    ['4K', '32K']
    >>> split_values("techniques", "kv_fp8,h2o"), split_values("techniques", "deployable;kv_fp8,h2o")
    (['kv_fp8,h2o'], ['deployable', 'kv_fp8,h2o'])
    >>> split_values("gpus", "racks,old.yaml;")
    ['racks,old.yaml']
    """
    separator = ";" if ";" in text or field in ("techniques", "pin") else ","
    pieces = [piece.strip() for piece in text.split(separator)]
    if separator == ";" and len(pieces) > 1 and not pieces[-1]:
        pieces.pop()
    if not all(pieces):
        raise InputError(f"--{field.replace('_', '-')}: {text!r} holds an empty value; write for example 4K,32K")
    return pieces


def read_axes(asked: Mapping[str, str | None]) -> dict[str, list[Any]]:
    """Read options: field -> its values; None stands for a limit that is taken away.

    Raises
    ------
    InputError
        With every option that holds an empty value.
    """
    axes, problems = {}, []
    for field, text in asked.items():
        if text is None:
            continue
        try:
            axes[field] = [without_nothing({field: value})[field] for value in split_values(field, text)]
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return axes


def read_points(text: str, name: str) -> list[Values]:
    """Read a file of points.

    Parameters
    ----------
    text
        CSV with a header of fields (an empty cell: left out), JSON lines, or YAML: a list of points, or
        one ``field: [values]`` mapping whose combinations are the points.
    name
        The file's name: its suffix says which, anything but ``.csv`` and ``.jsonl`` is YAML.

    Raises
    ------
    InputError
        With every row that is no point.
    """
    suffix = PurePath(name).suffix.lower()
    text = text.removeprefix("\ufeff")  # As spreadsheets begin a file.
    if suffix == ".csv":
        rows = _csv_rows(text, name)
    elif suffix in (".jsonl", ".ndjson"):
        rows = _json_rows(text, name)
    else:
        rows = _yaml_rows(text, name)
    if not rows:
        raise InputError(f"{name}: holds no points")
    problems = [f"{name}: {where}: holds no 'field: value'" for where, row in rows if not isinstance(row, dict)]
    points = [_point(row) for _, row in rows if isinstance(row, dict)]
    unknown = dict.fromkeys(text for point in points for field in point for text in field_problems(field))
    problems += [f"{name}: {text}" for text in unknown]
    if problems:
        raise InputError(_shortened(problems))
    return points


def _csv_rows(text: str, name: str) -> list[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
    rows: list[tuple[str, Any]] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                width = len(reader.fieldnames or ())
                raise InputError(
                    f"{name}: line {reader.line_num}: hasn't the {width} cells of the header; quote commas"
                )
            rows.append((f"line {reader.line_num}", {k: v for k, v in row.items() if v.strip()}))
    except csv.Error as error:
        raise InputError(f"{name}: line {reader.line_num}: {error}") from None
    return rows


def _json_rows(text: str, name: str) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                raise InputError(f"{name}: line {number}: isn't JSON: {error}") from None
    return rows


def _yaml_rows(text: str, name: str) -> list[tuple[str, Any]]:
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if isinstance(raw, dict):
        axes = {key: value if isinstance(value, list) else [value] for key, value in raw.items()}
        _check_count(prod(len(values) for values in axes.values()), name)
        raw = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if not isinstance(raw, list):
        raise InputError(f"{name}: holds neither a list of points nor 'field: [values]' lines")
    return [(f"point {number}", row) for number, row in enumerate(raw, 1)]


def _point(row: Mapping[Any, Any]) -> Values:
    """A point by its fields' names in a request; a list is its members with commas."""
    return without_nothing({field_name(str(key)): _value(value) for key, value in row.items()})


def _value(value: Any) -> Any:
    """A file's value as an option would hold it: no field is yes or no, and ``true`` isn't 1."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else value


def make_grid(axes: Mapping[str, Sequence[Any]], points: Sequence[Values] = (), name: str = "--points") -> Grid:
    """Combine every listed point with every combination of the axes; the first axis changes slowest.

    Parameters
    ----------
    axes
        Field -> values, from `read_axes`.
    points
        From `read_points`; none: the axes alone.
    name
        Of the file of points, for messages.

    Raises
    ------
    InputError
        With everything that is wrong: values that can't be read, fields given twice, too many points.
    """
    listed = list(points) or [{}]
    named = dict.fromkeys(field for point in listed for field in point)
    twice = [field for field in named if field in axes]
    if twice:
        options = ", ".join(f"--{field.replace('_', '-')}" for field in twice)
        raise InputError(f"{options}: given in {name} too; remove it here or there")
    _check_count(len(listed) * prod(len(values) for values in axes.values()), "this grid")
    requests: dict[Request, None] = {}
    problems: dict[str, None] = {}
    count = 0
    for number, point in enumerate(listed, 1):
        where = f"{name}: point {number}" if points else ""
        for values in itertools.product(*axes.values()):
            count += 1
            try:
                requests[read_request({**point, **dict(zip(axes, values, strict=True))}, where)] = None
            except InputError as error:
                problems.update(dict.fromkeys(error.problems))
    if problems:
        raise InputError(_shortened(list(problems)))
    return Grid(tuple(requests), varying(requests, [*named, *axes]), count - len(requests))


def varying(requests: Iterable[Request], order: Iterable[str] = ()) -> tuple[str, ...]:
    """The fields in which requests differ, those of ``order`` first."""
    values: dict[str, set[Any]] = {field: set() for field in (*order, *Request.model_fields)}
    for request in requests:
        for field, seen in values.items():
            seen.add(getattr(request, field))
    return tuple(field for field, seen in values.items() if len(seen) > 1)


def _check_count(count: int, what: str) -> None:
    if count > MOST_POINTS:
        raise InputError(f"{what}: has {count} points; sweep at most {MOST_POINTS} at once")


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - MOST_PROBLEMS
    return problems if more <= 0 else [*problems[:MOST_PROBLEMS], f"and {more} more"]
