"""The results of a sweep as a table: one row per point, one column per field, in CSV, Parquet or JSON lines.

Columns are the request's fields that differ, then the path of every number in the plan's JSON
(``metrics.latency.ttft_s.full``), as ``pandas.json_normalize`` names them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from planner.decision import Decision
from planner.errors import InputError
from planner.plan import Metrics, Objective
from planner.whatif.outcome import Outcome

Row = dict[str, Any]
SUFFIXES = (".csv", ".parquet", ".jsonl")


def check_output(path: Path, *, force: bool) -> None:
    """Refuse an output that can't be written, before anything is planned.

    Raises
    ------
    InputError
        For an unknown suffix, a directory that doesn't exist, a file that does (unless ``force``), or
        Parquet without pyarrow.
    """
    problems = []
    if path.suffix.lower() not in SUFFIXES:
        problems.append(f"-o {path}: unknown format {path.suffix or '(none)'!r}; end the name in {', '.join(SUFFIXES)}")
    if path.is_dir():
        problems.append(f"-o {path}: is a directory; name a file in it")
    elif not path.parent.is_dir():
        problems.append(f"-o {path}: the directory {path.parent} doesn't exist; create it first")
    elif path.exists() and not force:
        problems.append(f"-o {path}: exists; choose another name or add --force")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        problems.append(f"-o {path}: needs pyarrow; pip install 'plan-llm[parquet]', or end the name in .csv")
    if problems:
        raise InputError(problems)


def row_of(outcome: Outcome, fields: Sequence[str]) -> Row:
    """One point as a row: the fields that differ, the model, the status, the plan, and why there is none."""
    request, document = outcome.request, outcome.document
    row: Row = {field: getattr(request, field) for field in fields}
    row["model"] = document.request["model"] if document else request.model
    row["status"] = outcome.status
    if document is not None and document.decision is not None:
        plan = document.model_dump(
            mode="json", by_alias=True, include={"objective", "decision", "metrics", "intervals"}
        )
        if len(document.decision.services) == 1:  # It says what the whole decision's metrics say.
            del plan["metrics"]["services"]
            (plan["intervals"] or {}).pop("services", None)
        for part in ("objective", "decision", "metrics", "intervals"):
            row.update(_flat(part, plan[part]))
        row["bounded_by"] = document.provenance.bounded_by
    row["reason"] = None if outcome.reason is None else " ".join(outcome.reason.split())
    return row


def _flat(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Paths of the scalars of a JSON value: entries of a list by their place, the ends of an interval by their name.

    Servers are one text: ``0:4 1:2`` is four replicas on server 0 and two on server 1.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif path.endswith(".servers"):
        yield path, " ".join(f"{one['server']}:{one['replicas']}" for one in value)
    elif isinstance(value, list) and all(isinstance(one, float) for one in value) and len(value) == 2:
        yield f"{path}.low", value[0]
        yield f"{path}.high", value[1]
    elif isinstance(value, list) and all(isinstance(one, dict) for one in value) and value:
        for place, inner in enumerate(value):
            yield from _flat(f"{path}.{place}", inner)
    elif isinstance(value, list):
        yield path, " ".join(map(str, value))
    else:
        yield path, value


def columns_of(rows: Sequence[Row], fields: Sequence[str]) -> dict[str, type]:
    """Columns of a sweep with their types: the same for every sweep but for what only some plans have.

    Parameters
    ----------
    rows
        From `row_of`.
    fields
        Of the request that differ.
    """
    columns: dict[str, type] = dict.fromkeys((*fields, "model", "status"), str)
    for part, model in (("objective", Objective), ("decision", Decision), ("metrics", Metrics)):
        columns.update(_leaves(part, model))
        # What only some plans have, such as a second group.
        found = [name for row in rows for name, value in row.items() if value is not None]
        columns.update({name: str for name in found if name.startswith(f"{part}.") and name not in columns})
    columns.update({name: float for row in rows for name in row if name.startswith("intervals.")})
    columns.update({"bounded_by": str, "reason": str})
    for name in columns:
        seen = {type(row[name]) for row in rows if row.get(name) is not None}
        if seen and seen <= {int, float, bool, str}:
            columns[name] = next(iter(seen)) if len(seen) == 1 else float if seen == {int, float} else str
    return columns


def _leaves(path: str, model: type[BaseModel]) -> dict[str, type]:
    """Paths and types of the scalars that every instance of a model has, of lists those of the first entry."""
    found: dict[str, type] = {}
    for name, field in model.model_fields.items():
        kinds = _kinds(field.annotation)
        origins = [typing.get_origin(kind) for kind in kinds]
        if name in ("servers", "feeds"):
            found[f"{path}.{name}"] = str
            continue
        if name == "services" or dict in origins or field.exclude_if is not None:
            continue  # Only some plans have several; a router's weights are by group; what is left out isn't a column.
        if tuple in origins:
            found.update(_leaves(f"{path}.{name}.0", typing.get_args(kinds[0])[0]))
            continue
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            found[f"{path}.{name}"] = next((kind for kind in (bool, float, int) if kind in kinds), str)
        elif type(None) not in kinds:
            found.update(_leaves(f"{path}.{name}", nested[0]))
    return found


def _kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for inner in typing.get_args(annotation) for kind in _kinds(inner)]
    return [annotation]


def write_rows(path: Path, rows: Sequence[Row], columns: dict[str, type], *, force: bool) -> None:
    """Write rows in the format of the file's suffix: whole, or not at all.

    Raises
    ------
    InputError
        If the file exists and ``force`` is False.
    """
    writers: dict[str, Callable[[Sequence[Row], dict[str, type]], bytes]] = {
        ".csv": _csv,
        ".jsonl": _json_lines,
        ".parquet": _parquet,
    }
    content = writers[path.suffix.lower()](rows, columns)
    if path.exists() and not force:
        raise InputError(f"-o {path}: exists by now; run the same command with --force, or with another -o")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _csv(rows: Sequence[Row], columns: dict[str, type]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value in CSV: numbers to the last digit, nothing for None."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else "" if value is None else value


def _json_lines(rows: Sequence[Row], columns: dict[str, type]) -> bytes:
    lines = (json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(rows: Sequence[Row], columns: dict[str, type]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    data = {
        name: pyarrow.array([None if row.get(name) is None else kind(row[name]) for row in rows], kinds[kind])
        for name, kind in columns.items()
    }
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(data), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
