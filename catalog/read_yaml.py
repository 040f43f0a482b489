"""Read catalog YAML strictly and report every problem with file, field and fix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from catalog.errors import nearest
from catalog.schema import KINDS, Entry

_MAX_BYTES = 4 << 20
_MAX_DEPTH = 50

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc]
    """Safe YAML in which a repeated key is an error instead of a silent choice."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # Such as the thirteenth month: say where.
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[object] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refuse_hostile(text: str) -> None:
    """Refuse what would blow up when it is built or printed, from the stream of events."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.events.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"line {line}: aliases (*name) aren't supported; write it out")
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep; a catalog entry is flatter")


def parse_yaml(text: str, *, trusted: bool = False) -> Any:
    """Parse YAML without anchors and without repeated keys.

    Raises
    ------
    ValueError
        Where the text isn't YAML, with line and column.
    """
    try:
        if not trusted:
            _refuse_hostile(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_entries(
    kind: str, root: Path, *, trusted: bool, problems: list[str]
) -> Iterator[tuple[Path, dict[str, Any], Entry]]:
    """Yield the entries of one kind below a catalog directory; append what is wrong to ``problems``."""
    from catalog.load import entry_files

    seen: dict[str, Path] = {}
    for path in entry_files(kind, root):
        raw = _read_mapping(path, trusted, problems)
        if raw is None or (kind == "models" and not _add_config(path, raw, problems)):
            continue
        try:
            entry = KINDS[kind].model_validate(raw)
        except ValidationError as error:
            problems.extend(f"{path}: {problem}" for problem in describe(error, KINDS[kind]))
            continue
        if entry.id != path.stem:
            problems.append(f"{path}: id: {entry.id!r} isn't the file's name; rename the file to {entry.id}.yaml")
        elif entry.id in seen:
            problems.append(f"{path}: id: {entry.id!r} is already in {seen[entry.id]}; remove one of the two")
        else:
            seen[entry.id] = path
            yield path, raw, entry


def _add_config(path: Path, raw: dict[str, Any], problems: list[str]) -> bool:
    """Read the file that a model names in ``config_file`` into ``config``; say what is wrong with it."""
    name = raw.get("config_file")
    if name is None:
        return True
    if "config" in raw:
        problems.append(f"{path}: config: config_file names {name}; write one of the two")
        return False
    if not isinstance(name, str) or name != Path(name).name:
        problems.append(f"{path}: config_file: {name!r} isn't the name of a file; put it into configs/ and name it")
        return False
    file = path.parent.parent / "configs" / name
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES >> 20} MiB; a config is a small file")
        config = json.loads(file.read_bytes())
    except OSError as error:
        problems.append(f"{path}: config_file: {file} can't be read: {error.strerror}")
        return False
    except (ValueError, RecursionError) as error:
        problems.append(f"{file}: {error}; give a config.json as the hub has it")
        return False
    if not isinstance(config, dict):
        problems.append(f"{file}: holds no object; give a config.json as the hub has it")
        return False
    raw["config"] = config
    return True


def _read_mapping(path: Path, trusted: bool, problems: list[str]) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            problems.append(f"{path}: larger than {_MAX_BYTES >> 20} MiB; a catalog entry is a small file")
            return None
        raw = parse_yaml(path.read_text(encoding="utf-8"), trusted=trusted)
    except UnicodeDecodeError:
        problems.append(f"{path}: isn't UTF-8 text; save it as UTF-8")
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}")
    except ValueError as error:
        problems.append(f"{path}: {error}")
    else:
        if isinstance(raw, dict):
            return raw
        problems.append(f"{path}: holds no entry; write 'field: value' lines (see plan catalog schema)")
    return None


def describe(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors into ``field: what; how to fix`` lines, one per problem."""
    lines = []
    for item in error.errors(include_url=False):
        if item["type"] == "default_factory_not_called":
            continue  # It waits for fields whose own problems are told.
        field = ".".join(str(part) for part in item["loc"]) or "the entry"
        if item["type"] == "extra_forbidden":
            near = nearest(str(item["loc"][-1]), _field_names(schema))
            what = "unknown field; " + (f"did you mean {near[0]}?" if near else "remove it")
        elif item["type"] == "missing":
            what = "missing; add it"
        else:
            what = item["msg"].removeprefix("Value error, ")
            if not item["type"].startswith("value_error"):
                what += f"; got {str(item['input'])[:60]!r}"
        lines.append(f"{field}: {what}")
    return lines


def _field_names(schema: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    for name, info in schema.model_fields.items():
        names.add(name)
        for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not schema:
                names |= _field_names(inner)
    return names
