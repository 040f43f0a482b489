"""Check the whole catalog: each entry by itself, and what entries say of each other.

Loading checks only the kind that is needed, to be fast; this checks everything, and collects all
problems. A dangling reference would otherwise show when somebody first plans with it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from catalog.errors import CatalogError, nearest
from catalog.load import Catalog, name_index
from catalog.read_yaml import read_entries
from catalog.schema import (
    KINDS,
    Checkpoints,
    Engine,
    EngineRule,
    Entry,
    Hardware,
    Measurement,
    Model,
    Node,
    Price,
    Rule,
    Selector,
    Technique,
)

_ENTRY_SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class _Read:
    path: Path
    raw: Mapping[str, Any]
    entry: Entry


class _Names:
    """Every id that an entry may refer to."""

    def __init__(self, entries: Mapping[str, Mapping[str, _Read]]) -> None:
        self.ids: dict[str, set[str]] = {kind: set(of_kind) for kind, of_kind in entries.items()}
        techniques = [read.entry for read in entries["techniques"].values()]
        self.ids["points"] = {p.id for t in techniques if isinstance(t, Technique) for p in t.points}
        hardware = [read.entry for read in entries["hardware"].values()]
        self.ids["hardware generations"] = {h.generation for h in hardware if isinstance(h, Hardware)}

    def missing(self, field: str, names: Iterable[str | None], *kinds: str) -> Iterator[str]:
        """Yield a problem per name that none of these kinds has."""
        known = set().union(*(self.ids[kind] for kind in kinds))
        for name in names:
            if name is not None and name not in known:
                near = nearest(name, known)
                fix = f"did you mean {near[0]}?" if near else f"add it to {kinds[0]}/ or remove it"
                yield f"{field}: {name!r} is not among the {' or '.join(kinds)}; {fix}"


def validate(catalog: Catalog, today: dt.date | None = None) -> int:
    """Check every entry of a catalog with its overlays.

    Parameters
    ----------
    catalog
        What to check.
    today
        The day after which a check or a price lies in the future; None: the present day.

    Returns
    -------
    int
        How many entries there are, all of them in order.

    Raises
    ------
    CatalogError
        With all problems, each as ``file: field: what; how to fix``.
    """
    problems: list[str] = []
    for root in catalog.roots[1:]:
        problems.extend(_unexpected_files(root))
    entries = {kind: _read_kind(kind, catalog.roots, problems) for kind in KINDS}
    names = _Names(entries)
    day = today or dt.date.today()
    for of_kind in entries.values():
        for read in of_kind.values():
            found = [*_own_problems(read, day), *_CHECKS[type(read.entry)](read.entry, names)]
            if isinstance(read.entry, Model):
                found += _config_problems(read.entry, read.path, built_in=read.path.is_relative_to(catalog.roots[0]))
            problems.extend(f"{read.path}: {problem}" for problem in found)
    problems.extend([*_clashes(entries), *_checkpoint_problems(entries)])
    if problems:
        raise CatalogError(problems)
    return sum(map(len, entries.values()))


def _read_kind(kind: str, roots: Sequence[Path], problems: list[str]) -> dict[str, _Read]:
    entries: dict[str, _Read] = {}
    for root in roots:
        for path, raw, entry in read_entries(kind, root, trusted=False, problems=problems):
            entries[entry.id] = _Read(path, raw, entry)
    files = {entry_id: str(read.path) for entry_id, read in entries.items()}
    name_index({entry_id: read.entry for entry_id, read in entries.items()}, files, problems)
    return entries


def _unexpected_files(root: Path) -> Iterator[str]:
    """Yield what in an overlay would be ignored silently: misspelt folders, files that aren't YAML."""
    found = False
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and path.name in KINDS:
            found = True
            for inner in sorted(path.iterdir()):
                if inner.suffix not in _ENTRY_SUFFIXES and not inner.name.startswith("."):
                    yield f"{inner}: isn't an entry and would be ignored; entries are files named ID.yaml"
        elif path.is_dir() and path.name == "configs":
            for inner in sorted(path.iterdir()):
                if inner.suffix != ".json" and not inner.name.startswith("."):
                    yield f"{inner}: would be ignored; a model names a .json file in config_file"
        elif path.is_dir() or path.suffix in _ENTRY_SUFFIXES:
            near = nearest(path.stem, KINDS)
            fix = f"did you mean {near[0]}/?" if near else f"the folders are {', '.join(KINDS)}"
            yield f"{path}: would be ignored; {fix}"
    if not found:
        yield f"{root}: holds no entries; give a directory with folders such as {', '.join(KINDS)}"


def _own_problems(read: _Read, today: dt.date) -> Iterator[str]:
    if read.entry.checked > today:
        yield f"checked: {read.entry.checked} is in the future; write the day of the check"
    for index, source in enumerate(read.entry.sources):
        if not source.ref.strip():
            yield f"sources.{index}.ref: is empty; say where the fact was read"
        for field in source.fields:
            if not _has_field(type(read.entry), read.raw, field):
                yield f"sources.{index}.fields: {field!r} isn't a field of this entry; correct it"


def _has_field(schema: type[Entry], raw: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    if name not in schema.model_fields:
        return False
    return not rest or _reaches(raw.get(name), rest)


def _reaches(raw: Any, path: str) -> bool:
    if isinstance(raw, list):
        return any(_reaches(item, path) for item in raw)
    if not isinstance(raw, dict):
        return False
    if path in raw:
        return True
    name, _, rest = path.partition(".")
    return name in raw and (not rest or _reaches(raw[name], rest))


# --------------------------------------------------------------------------- by kind


def _check_hardware(entry: Hardware, names: _Names) -> Iterator[str]:
    yield from ()


def _check_node(entry: Node, names: _Names) -> Iterator[str]:
    yield from names.missing("hardware", [entry.hardware], "hardware")
    yield from names.missing("default_for", entry.default_for, "hardware")


def _check_price(entry: Price, names: _Names) -> Iterator[str]:
    yield from names.missing("hardware", [entry.hardware], "hardware")
    yield from names.missing("node", [entry.node], "nodes")
    if entry.observed > entry.checked:
        yield f"observed: {entry.observed} is after checked ({entry.checked}); correct either"


def _check_model(entry: Model, names: _Names) -> Iterator[str]:
    from catalog.architecture import UnknownArchitectureError, read_config
    from catalog.identity import misleading_aliases

    for alias in misleading_aliases(entry):
        yield f"aliases: {alias!r} names a variant whose hub id isn't listed; add the hub id, or remove the alias"
    try:
        read_config(entry.config, where="config")
    except UnknownArchitectureError as error:
        yield from error.problems
    for index, default in enumerate(entry.default_for):
        yield from names.missing(f"default_for.{index}.engines", default.engines, "engines")
        if default.context_tokens > entry.context_tokens:
            window = f"the advertised window is {entry.context_tokens}"
            yield f"default_for.{index}.context_tokens: {default.context_tokens}, but {window}"


def _check_checkpoints(entry: Checkpoints, names: _Names) -> Iterator[str]:
    yield from names.missing("model", [entry.model], "models")
    for index, ready in enumerate(entry.checkpoints):
        yield from names.missing(f"checkpoints.{index}.point", [ready.point], "points")
        if ready.quant_method is None and ready.point is not None:
            yield f"checkpoints.{index}.point: {ready.hub_id} has a precision but no quant_method; add how it is stored"


def _checkpoint_problems(entries: Mapping[str, Mapping[str, _Read]]) -> Iterator[str]:
    """Yield ready checkpoints that are listed twice, that are a model's own, or of a base that their model lacks."""
    from catalog.identity import hub_ids

    models = {read.entry.id: read.entry for read in entries["models"].values() if isinstance(read.entry, Model)}
    own = {hub_id.lower(): model.id for model in models.values() for hub_id in hub_ids(model)}
    seen: dict[str, Path] = {}
    for read in entries["checkpoints"].values():
        for index, ready in enumerate(read.entry.checkpoints if isinstance(read.entry, Checkpoints) else ()):
            where, key = f"{read.path}: checkpoints.{index}", ready.hub_id.lower()
            if key in seen:
                yield f"{where}.hub_id: {ready.hub_id} is already in {seen[key]}; keep one of the two"
            if key in own:
                yield f"{where}.hub_id: {ready.hub_id} is a name of the model {own[key]} too; remove one of the two"
            model = getattr(read.entry, "model", "")
            if own.get(ready.base.lower()) != model and model in models:
                yield f"{where}.base: {ready.base} is no hub id of {model}; add it to its aliases, or correct it"
            seen[key] = read.path


def _config_problems(entry: Model, path: Path, *, built_in: bool) -> Iterator[str]:
    """Yield what doesn't fit between a config file, its hashes and the grade that the entry claims."""
    if built_in and (entry.config_file is None or entry.config_grade is None):
        yield "config_grade: a model that ships has a config_file and its grade; add both"
    if entry.config_file is None:
        if entry.config_grade == "proven":
            yield "config_grade: proven is the grade of a file's bytes; name it in config_file"
        return
    found = hashlib.sha256((path.parent.parent / "configs" / entry.config_file).read_bytes()).hexdigest()
    if entry.config_sha256 is not None and entry.config_sha256 != found:
        yield f"config_sha256: configs/{entry.config_file} has {found}; take the file as it was, or correct the hash"
    if built_in and entry.config_sha256 is None:
        yield f"config_sha256: missing; configs/{entry.config_file} has {found}"
    published = entry.config_published
    if entry.config_grade == "proven" and (published is None or published.sha256 != found):
        hash_of = f"the published hash is {published.sha256}" if published else "no published hash is given"
        yield f"config_grade: proven, but configs/{entry.config_file} has {found} and {hash_of}"
    if published is not None and (published.sha256 == found) != (published.differs is None):
        equal = published.sha256 == found
        fix = "remove it, the bytes are equal" if equal else "say which fields differ, or that it isn't known"
        yield f"config_published.differs: {fix}"


def _check_technique(entry: Technique, names: _Names) -> Iterator[str]:
    own = [point.id for point in entry.points]
    for index, support in enumerate(entry.engines):
        yield from names.missing(f"engines.{index}.engine", [support.engine], "engines")
        for point in support.points:
            if point not in own:
                yield f"engines.{index}.points: {point!r} is no point here; there are {', '.join(own)}"


def _check_engine(entry: Engine, names: _Names) -> Iterator[str]:
    for index, kv_format in enumerate(entry.kv_formats):
        yield from names.missing(f"kv_formats.{index}.technique_point", [kv_format.technique_point], "points")
    for index, weights in enumerate(entry.weight_formats):
        yield from names.missing(f"weight_formats.{index}.technique_point", [weights.technique_point], "points")
    for index, checkpoint in enumerate(entry.checkpoint_formats):
        yield from names.missing(f"checkpoint_formats.{index}.point", [checkpoint.point], "points")


def _check_engine_rule(entry: EngineRule, names: _Names) -> Iterator[str]:
    yield from names.missing("engine", [entry.engine], "engines")


def _check_rule(entry: Rule, names: _Names) -> Iterator[str]:
    for side, selector in (("a", entry.a), ("b", entry.b)):
        yield from _check_selector(side, selector, names)


def _check_measurement(entry: Measurement, names: _Names) -> Iterator[str]:
    yield from names.missing("hardware", [entry.hardware], "hardware")
    if entry.operation not in ("step", "interval"):  # Points were published of engines that we don't deploy.
        yield from names.missing("engine", [entry.engine], "engines")


def _check_selector(side: str, selector: Selector, names: _Names) -> Iterator[str]:
    yield from names.missing(f"{side}.techniques", selector.techniques, "techniques")
    yield from names.missing(f"{side}.points", selector.points, "points")
    yield from names.missing(f"{side}.engines", selector.engines, "engines")
    yield from names.missing(f"{side}.hardware_generations", selector.hardware_generations, "hardware generations")
    for pattern in selector.models:
        if not any(fnmatchcase(model, pattern) for model in names.ids["models"]):
            yield from names.missing(f"{side}.models", [pattern], "models")


_CHECKS: dict[type[Entry], Callable[[Any, _Names], Iterator[str]]] = {
    Hardware: _check_hardware,
    Node: _check_node,
    Price: _check_price,
    Model: _check_model,
    Checkpoints: _check_checkpoints,
    Technique: _check_technique,
    Engine: _check_engine,
    EngineRule: _check_engine_rule,
    Rule: _check_rule,
    Measurement: _check_measurement,
}


def _clashes(entries: Mapping[str, Mapping[str, _Read]]) -> Iterator[str]:
    """Yield what two entries both claim: a point's id, or to be the default server of a GPU."""
    points: dict[str, Path] = {}
    servers: dict[str, Path] = {}
    for read in [*entries["techniques"].values(), *entries["nodes"].values()]:
        if isinstance(read.entry, Technique):
            claims, field, owners = [point.id for point in read.entry.points], "points", points
        elif isinstance(read.entry, Node):
            claims, field, owners = list(read.entry.default_for), "default_for", servers
        else:
            continue
        for claim in claims:
            if claim in owners:
                yield f"{read.path}: {field}: {claim!r} is already in {owners[claim]}; keep one of the two"
            elif field == "points" and claim != read.entry.id and claim in entries["techniques"]:
                yield f"{read.path}: {field}: {claim!r} is also a technique; rename the point"
            owners[claim] = read.path
