"""Load the catalog: YAML files of the package, overlaid by the user's own directories.

Parsing YAML at every start would cost more than a whole plan, so each kind of entry is compiled
once into a JSON file in the user's cache directory. A compiled file is used only while the names,
sizes and times of all its YAML files, and the code that reads them, are unchanged.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from catalog.errors import CatalogError, UnknownEntryError
from catalog.schema import (
    KINDS,
    Checkpoint,
    Checkpoints,
    Engine,
    Entry,
    Hardware,
    Model,
    Node,
    Point,
    Price,
    Rule,
    Technique,
)

_CODE = (
    *(Path(__file__).with_name(name) for name in ("load.py", "units.py", "read_yaml.py")),
    *sorted(Path(__file__).with_name("schema").glob("*.py")),
)

E = TypeVar("E", bound=Entry)

_SCHEMA_KIND = {schema: kind for kind, schema in KINDS.items()}


def built_in_directory() -> Path:
    """Return the directory of the facts that ship with the program."""
    return Path(__file__).parent


def user_directory() -> Path:
    """Return the per-user overlay: ``$PLAN_CATALOG`` or the platform's configuration directory."""
    override = os.environ.get("PLAN_CATALOG")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_config_dir("plan-llm")) / "catalog"


def cache_directory() -> Path:
    """Return where compiled facts are kept: ``$PLAN_CACHE`` or the platform's cache directory."""
    override = os.environ.get("PLAN_CACHE")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("plan-llm"))


class Catalog:
    """The facts, by kind and id. Later directories overlay earlier ones, entry by entry.

    Parameters
    ----------
    roots
        Directories with one folder per kind, the built-in one first.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._compiled: dict[str, dict[str, Any]] = {}
        self._entries: dict[tuple[str, str], Entry] = {}

    def get(self, schema: type[E], name: str) -> E:
        """Return the entry with this id or alias, whatever its case.

        Raises
        ------
        UnknownEntryError
            If there is none; names the nearest ones.
        CatalogError
            If the files of this kind have problems.
        """
        kind = _SCHEMA_KIND[schema]
        compiled = self._kind(kind)
        entry_id = compiled["names"].get(_key(name))
        if entry_id is None:
            raise UnknownEntryError(kind, name, compiled["spelled"])
        key = (kind, entry_id)
        if key not in self._entries:
            self._entries[key] = schema.model_validate(compiled["entries"][entry_id])
        return cast(E, self._entries[key])

    def has(self, schema: type[E], name: str) -> bool:
        """Tell whether an id or alias exists."""
        return _key(name) in self._kind(_SCHEMA_KIND[schema])["names"]

    def all(self, schema: type[E]) -> list[E]:
        """Return every entry of a kind, ordered by id."""
        return [self.get(schema, entry_id) for entry_id in sorted(self._kind(_SCHEMA_KIND[schema])["entries"])]

    def file_of(self, schema: type[E], name: str) -> Path:
        """Return the file that an entry came from (the last overlay that has it)."""
        entry_id = self.get(schema, name).id
        return Path(self._kind(_SCHEMA_KIND[schema])["files"][entry_id])

    def as_written(self, schema: type[Entry], name: str) -> dict[str, Any]:
        """Return an entry as its file gives it: quantities are text with units, dates are ISO text."""
        entry_id = self.get(schema, name).id
        written = dict(self._kind(_SCHEMA_KIND[schema])["entries"][entry_id])
        if "config_file" in written:
            del written["config"]  # read from that file
        return written

    def point(self, name: str) -> tuple[Technique, Point]:
        """Return a technique and its point by the point's id (``snapkv_1024``) or ``technique:strength``.

        Raises
        ------
        UnknownEntryError
            If there is no such technique or strength.
        """
        key, _, strength = name.partition(":")
        compiled = self._kind("techniques")
        if not strength and _key(key) in compiled["points"]:
            technique = self.get(Technique, compiled["points"][_key(key)])
            return technique, next(point for point in technique.points if _key(point.id) == _key(key))
        if _key(key) not in compiled["names"]:
            known = [*compiled["spelled"], *compiled["points"]]
            raise UnknownEntryError("techniques", name, known)
        technique = self.get(Technique, key)
        wanted = _number(strength)
        matching = [p for p in technique.points if (p.strength == wanted if strength else len(technique.points) == 1)]
        if not matching:
            points = ", ".join(p.id for p in technique.points)
            raise UnknownEntryError("techniques", name, [], f"at that strength; {technique.id} has {points}")
        return technique, matching[0]

    def checkpoint(self, hub_id: str) -> tuple[str, Checkpoint] | None:
        """Return the catalog model of a ready checkpoint, and what is known of it; None if it isn't listed."""
        entry_id = self._kind("checkpoints")["checkpoints"].get(_key(hub_id))
        if entry_id is None:
            return None
        entry = self.get(Checkpoints, entry_id)
        return entry.model, next(ready for ready in entry.checkpoints if _key(ready.hub_id) == _key(hub_id))

    def checkpoints(self, model_id: str) -> tuple[Checkpoint, ...]:
        """Return the ready checkpoints of a model of the catalog."""
        return self.get(Checkpoints, model_id).checkpoints if self.has(Checkpoints, model_id) else ()

    def default_node(self, hardware: Hardware) -> Node | None:
        """Return the node that is assumed for a GPU when a cluster names no node."""
        node_id = self._kind("nodes")["default_for"].get(hardware.id)
        return self.get(Node, node_id) if node_id else None

    def offers(self, hardware: Hardware) -> list[Price]:
        """Return the dated offers for a GPU, cheapest first."""
        ids = self._kind("prices")["by_hardware"].get(hardware.id, [])
        return sorted((self.get(Price, price_id) for price_id in ids), key=lambda p: (p.usd_per_gpu_hour, p.id))

    @cached_property
    def content_hash(self) -> str:
        """Hash of all facts, for a plan's provenance."""
        digest = hashlib.sha256()
        for kind in KINDS:
            digest.update(json.dumps(self._kind(kind)["entries"], sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def _kind(self, kind: str) -> dict[str, Any]:
        if kind not in self._compiled:
            self._compiled[kind] = _load_compiled(kind, self.roots)
        return self._compiled[kind]


def open_catalog(extra: Iterable[Path] = ()) -> Catalog:
    """Open the built-in catalog, overlaid by the per-user directory (if any) and then by ``extra``.

    Raises
    ------
    CatalogError
        If a directory in ``extra`` doesn't exist.
    """
    roots = [built_in_directory()]
    user = user_directory()
    if user.is_dir():
        roots.append(user)
    for directory in extra:
        if not directory.is_dir():
            raise CatalogError([f"{directory}: isn't a directory; give one with folders such as hardware/ or models/"])
        roots.append(directory)
    return Catalog(roots)


def entry_files(kind: str, root: Path) -> list[Path]:
    """Return the YAML files of one kind below a catalog directory, by name."""
    folder = root / kind
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"})


def config_files(root: Path) -> list[Path]:
    """Return the config files of the models of a catalog directory, by name."""
    folder = root / "configs"
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _key(name: str) -> str:
    return name.strip().lower()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _fingerprint(files: Iterable[Path]) -> list[list[Any]]:
    """Change whenever a file does; the inode's time also sees copies that keep size and time."""
    rows: list[list[Any]] = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            rows.append([str(path), None])  # A dangling link: reading it tells the user.
        else:
            rows.append([str(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size])
    return rows


def _load_compiled(kind: str, roots: Sequence[Path]) -> dict[str, Any]:
    files = [entry_file for root in roots for entry_file in entry_files(kind, root)]
    configs = [path for root in roots for path in config_files(root)] if kind == "models" else []
    fingerprint = _fingerprint([*_CODE, *files, *configs])
    place = hashlib.sha256("\n".join(map(str, roots)).encode()).hexdigest()[:16]
    cache = cache_directory() / f"{kind}-{place}.json"
    cached = _read_cache(cache, fingerprint)
    if cached is not None:
        return cached
    compiled = _compile(kind, roots)
    _write_cache(cache, {"fingerprint": fingerprint, "compiled": compiled})
    return compiled


def _read_cache(cache: Path, fingerprint: list[list[Any]]) -> dict[str, Any] | None:
    try:
        stored = json.loads(cache.read_bytes())
        if stored["fingerprint"] == fingerprint:
            return cast(dict[str, Any], stored["compiled"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # No cache, or one that isn't ours: compile again.
    return None


def _write_cache(cache: Path, content: Mapping[str, Any]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, separators=(",", ":"))
        os.replace(temporary, cache)
    except OSError:
        pass  # A read-only home only costs time.


def _compile(kind: str, roots: Sequence[Path]) -> dict[str, Any]:
    from catalog.read_yaml import read_entries

    problems: list[str] = []
    entries: dict[str, Any] = {}
    files: dict[str, str] = {}
    parsed: dict[str, Entry] = {}
    for index, root in enumerate(roots):
        for path, raw, entry in read_entries(kind, root, trusted=index == 0, problems=problems):
            entries[entry.id] = raw
            files[entry.id] = str(path)
            parsed[entry.id] = entry
    names = name_index(parsed, files, problems)
    if problems:
        raise CatalogError(problems)
    compiled: dict[str, Any] = {
        "entries": entries,
        "files": files,
        "names": names,
        "spelled": sorted({spelling for e in parsed.values() for spelling in (e.id, *e.aliases)}),
    }
    compiled.update(_indexes(parsed))
    plain = json.dumps(compiled, default=lambda value: value.isoformat() if isinstance(value, dt.date) else str(value))
    return cast(dict[str, Any], json.loads(plain))


def name_index(parsed: Mapping[str, Entry], files: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Return every spelling of every entry, in lower case, with the id that it means; note those that mean two."""
    names = {_key(entry_id): entry_id for entry_id in parsed}
    for entry_id, entry in sorted(parsed.items()):
        own = (entry.hf_id,) if isinstance(entry, Model) and "/" in entry.hf_id else ()
        for alias in (*entry.aliases, *own):
            owner = names.setdefault(_key(alias), entry_id)
            if owner != entry_id:
                already = f"{alias!r} already names {owner} ({files[owner]})"
                problems.append(f"{files[entry_id]}: aliases: {already}; remove one of the two")
    return names


def _indexes(parsed: Mapping[str, Entry]) -> dict[str, Any]:
    points: dict[str, str] = {}
    default_for: dict[str, str] = {}
    checkpoints: dict[str, str] = {}
    by_hardware: dict[str, list[str]] = {}
    for entry_id, entry in sorted(parsed.items()):
        if isinstance(entry, Technique):
            points.update({_key(point.id): entry_id for point in entry.points})
        elif isinstance(entry, Node):
            default_for.update(dict.fromkeys(entry.default_for, entry_id))
        elif isinstance(entry, Checkpoints):
            checkpoints.update({_key(ready.hub_id): entry_id for ready in entry.checkpoints})
        elif isinstance(entry, Price):
            by_hardware.setdefault(entry.hardware, []).append(entry_id)
    return {"points": points, "checkpoints": checkpoints, "default_for": default_for, "by_hardware": by_hardware}


__all__ = [
    "Catalog",
    "Engine",
    "Hardware",
    "Model",
    "Node",
    "Price",
    "Rule",
    "Technique",
    "built_in_directory",
    "entry_files",
    "open_catalog",
    "user_directory",
]
