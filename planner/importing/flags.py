"""Read an engine's arguments as its own parser would: aliases, prefixes, negatives, ``=``, human numbers, configs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from planner.emit.flags import problems_of_flags, snapshot, versions
from planner.emit.tables import TABLES
from planner.importing.command import Command, Neighbour, alone
from planner.importing.settings_files import file_text, flags_of_settings, lmcache_tier, words_of_config
from planner.importing.unknown import is_known, is_wholly_unknown, shown

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT])(i?)")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
HUMAN_FLAGS = {"--max-model-len", "--max-num-batched-tokens", "--kv-cache-memory-bytes", "--max-num-queued-tokens"}
"""Flags that take ``128k`` (128,000) and ``128K`` (131,072)."""
_AUTO = {"auto", "-1"}
"""Values of ``--max-model-len`` with which vLLM takes the longest window that fits."""

_OLDER = ("--rope-scaling", "--rope-theta")
"""Flags of older versions with a meaning that newer ones express by ``--hf-overrides``."""
_LEVEL = re.compile(r"-O(?:=|\.level=)?(\d)")
_POSITIONAL = {"vllm", "tensorrt-llm", "lmdeploy"}
"""Engines that take the model as a word of its own."""
_MODEL_FLAGS = ("--model", "--model-path", "--model-tag", "--hf-repo", "--model-name-or-path")
_PATHS = (*_MODEL_FLAGS, "--config", "--extra_llm_api_options", "--lmcache-config-file")
"""Flags with a path, of which the last part says enough."""
_LEFT_OUT = ("...", "\u2026", "[...]")
_UNSET = "left to whoever starts it; not read"
NAMES = {"vllm": "vLLM", "sglang": "SGLang", "tensorrt-llm": "TensorRT-LLM", "lmdeploy": "LMDeploy"}


@dataclass(frozen=True, slots=True)
class Given:
    """What a command says."""

    model: str | None
    version: str
    flags: Mapping[str, Any]
    """By the flag's first name; booleans as True or False."""
    notes: tuple[str, ...]
    unread: tuple[tuple[str, str], ...] = ()
    """Words that no flag of this version is, or that the shell fills in, with the reason."""
    engine: str = "vllm"
    said: Mapping[str, Any] = field(default_factory=dict)
    """The planner's own fields (`planner.emit.tables.table.Row`)."""
    unset: frozenset[str] = frozenset()
    """Fields whose flag is given without a value that is known."""
    open_words: tuple[str, ...] = ()
    """Words that may be any flags."""
    below: str | None = None
    """Tier of LMCache, if the server uses it; None where nothing says it."""


@dataclass(slots=True)
class _Reading:
    """What has been read of a command so far."""

    engine: str
    version: str
    flags: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    unset: set[str] = field(default_factory=set)
    open_words: list[str] = field(default_factory=list)
    model: str | None = None

    @property
    def name(self) -> str:
        return f"{NAMES.get(self.engine, self.engine)} {self.version}"


def read_flags(command: Command, neighbour: Neighbour = alone) -> Given:
    """Return the flags of a command; what can't be read or isn't known is noted, not dropped."""
    known_versions = versions(command.engine)
    version = command.version if command.version in known_versions else known_versions[-1]
    reading = _Reading(command.engine, version)
    if command.version is not None and command.version != version:
        name = NAMES.get(command.engine, command.engine)
        reading.notes.append(f"{name} {command.version}: its flags aren't known here; read as those of {version}")
    _read(list(command.arguments), reading)
    _read_config(command, reading, neighbour)
    flags = reading.flags
    named = next((flags.pop(name) for name in _MODEL_FLAGS if name in flags), None)
    model = reading.model or (None if named is None else str(named))
    unread = tuple((shown(text), reason) for text, reason in reading.unread)
    notes = [f"{text}: {reason}" for text, reason in unread] + reading.notes
    notes += _refused(reading)
    table = TABLES[command.engine]
    flags |= flags_of_settings(command, flags, notes, neighbour)
    unset = frozenset(row.field for row in table.rows if row.flag in reading.unset)
    given = Given(model or None, version, flags, tuple(notes), unread, command.engine, unset=unset)
    open_words = tuple(map(shown, reading.open_words))
    return replace(given, said=table.read(flags), open_words=open_words, below=lmcache_tier(command, flags, neighbour))


def _refused(reading: _Reading) -> list[str]:
    """Say which values the engine itself would refuse."""
    checked = tuple(
        (name, value)
        for name, value in reading.flags.items()
        if not isinstance(value, list | bool)
        and name.startswith("--")
        and name not in _OLDER
        and not (name == "--max-model-len" and str(value) in _AUTO)
    )
    return problems_of_flags(checked, reading.engine, reading.version)


def _spelled(engine: str, version: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    records = snapshot(engine, version)["flags"]
    found = {name: (first, record) for first, record in records.items() for name in record["names"]}
    for row in TABLES[engine].rows:
        record = records.get(row.flag, {"type": "str"})
        found |= {name: (row.flag, record) for name in row.spellings if name not in found}
    return found


def _found(name: str, spelled: Mapping[str, tuple[str, Any]], engine: str) -> tuple[str, Any] | list[str]:
    """Return a flag by its name or, as argparse does, by the only one that begins so; else those that do."""
    if name in spelled:
        return spelled[name]
    if not name.startswith("--") or engine == "llama.cpp":
        return []
    begun = {first: (first, record) for full, (first, record) in spelled.items() if full.startswith(name)}
    return next(iter(begun.values())) if len(begun) == 1 else sorted(begun)


def _read(words: Sequence[str], reading: _Reading) -> None:
    """Fill a reading from words."""
    spelled = _spelled(reading.engine, reading.version)
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-") or _is_number(word):
            _plain(word, reading)
            continue
        level = _LEVEL.fullmatch(word)
        if level is not None and reading.engine == "vllm":
            reading.flags["--optimization-level"] = level[1]
            continue
        name, equals, value = word.partition("=")
        name, dot, part = _normal(name, reading.engine).partition(".")
        found = _found(name, spelled, reading.engine)
        if isinstance(found, list):
            taken = [value] if equals else _values(words, index, many=False)
            index += 0 if equals else len(taken)
            _unknown_flag(name, taken, found, reading)
            continue
        first, record = found
        if record["type"] == "bool" and not equals:
            reading.flags[first] = not _switches_off(name, first)
            continue
        many = bool(record.get("many"))
        taken = [value] if equals else _values(words, index, many=many)
        index += 0 if equals else len(taken)
        if first in _PATHS and taken and _is_known_path(taken[0]):
            reading.flags[first] = shown(taken[0])
        elif taken and not all(map(is_known, taken)):
            reading.unset.add(first)
            reading.unread.append((f"{name} {' '.join(taken)}", _UNSET))
        elif not taken:
            reading.notes.append(f"{name}: has no value")
        elif record["type"] == "bool":
            reading.flags[first] = taken[0].lower() not in ("false", "0", "no") and not _switches_off(name, first)
        elif dot:
            reading.flags[first] = _with_part(reading.flags.get(first), part, taken[0])
        else:
            reading.flags[first] = taken if many else _value(first, taken[0], record["type"])


def _plain(word: str, reading: _Reading) -> None:
    """Take a word that is no flag: the model, where the engine takes one so, or words that aren't known."""
    if _is_known_path(word):
        if reading.engine in _POSITIONAL and reading.model is None:
            reading.model = shown(word)
        elif word in _LEFT_OUT:
            reading.open_words.append(word)
            reading.unread.append((word, "stands for flags that aren't in the file"))
        else:
            reading.unread.append((word, "isn't a flag, and stands beside the model"))
    elif reading.model is None and reading.engine in _POSITIONAL and not _may_be_flags(word):
        reading.unread.append((word, "the model, which isn't in the file"))
        reading.model = ""
    elif is_wholly_unknown(word):
        reading.open_words.append(word)
        reading.unread.append((word, "may hold any flags, and isn't in the file"))
    else:
        reading.unread.append((word, _UNSET))


def _is_known_path(word: str) -> bool:
    """Whether a word is known, or is a path of which only the directory isn't."""
    return is_known(word) or bool("/" in word and not word.endswith("/") and is_known(word.rsplit("/", 1)[1]))


def _may_be_flags(word: str) -> bool:
    return "@" in word or "*" in word or re.search(r"arg|opt|flag|extra|param", word, re.IGNORECASE) is not None


def _unknown_flag(name: str, taken: list[str], begun: list[str], reading: _Reading) -> None:
    if name in _OLDER and taken:
        reading.flags[name] = taken[0]
    elif begun:
        reading.unread.append((" ".join([name, *taken]), f"could be {' or '.join(begun)}"))
    elif name in _MODEL_FLAGS and taken:
        if all(map(is_known, taken)):
            reading.flags[name] = taken[0]
        else:
            reading.unread.append((f"{name} {taken[0]}", "the model, which isn't in the file"))
    else:
        reading.unread.append((" ".join([name, *taken]), f"{reading.name} has no such flag"))


def _with_part(before: Any, part: str, value: str) -> str:
    """Return JSON with one part set, as ``--flag.part value`` means it."""
    try:
        whole: dict[str, Any] = json.loads(before) if isinstance(before, str) else {}
    except ValueError:
        whole = {}
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    *above, last = part.split(".")
    place = whole
    for key in above:
        inner = place.setdefault(key, {})
        place = inner if isinstance(inner, dict) else {}
    place[last] = read
    return json.dumps(whole)


def _values(words: Sequence[str], index: int, *, many: bool) -> list[str]:
    taken: list[str] = []
    while index < len(words) and (not words[index].startswith("-") or _is_number(words[index])):
        taken.append(words[index])
        index += 1
        if not many:
            break
    return taken


def _normal(name: str, engine: str) -> str:
    """Return a flag's name as the engine spells it; vLLM takes underscores too, and dots for parts of JSON."""
    if engine == "vllm" and name.startswith("--"):
        head, dot, rest = name.partition(".")
        return head.replace("_", "-") + dot + rest
    if engine in ("sglang", "lmdeploy", "llama.cpp") and name.startswith("--"):
        return name.replace("_", "-")
    return name


def _switches_off(name: str, first: str) -> bool:
    opposite = (("--enable-", "--disable-"), ("--disable-", "--enable-"))
    inverted = any(first.startswith(a) and name.startswith(b) for a, b in opposite)
    return (name.startswith("--no-") and not first.startswith("--no-")) or inverted


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d+)?", word) is not None


def _value(name: str, text: str, kind: str) -> Any:
    """Return a value in the flag's type; text that isn't of the type stays text and is reported."""
    if name in HUMAN_FLAGS:
        match = _HUMAN.fullmatch(text)
        if match is not None:
            scale = _DECIMAL if match[2].islower() and not match[3] else _BINARY
            letter = match[2] if scale is _DECIMAL else match[2].upper()
            return int(float(match[1]) * scale[letter])
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        pass
    return text


def _read_config(command: Command, reading: _Reading, neighbour: Neighbour) -> None:
    """Add the flags of a ``--config`` file that came with the command; those of the command itself win."""
    path = reading.flags.pop("--config", None)
    if path is None:
        return
    text = file_text(command, str(path), neighbour)
    if text is None:
        reading.notes.append(f"--config {path}: the file isn't part of what was given; its flags aren't read")
        reading.open_words.append(f"--config {path}")
        return
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        reading.notes.append(f"--config {path}: isn't a YAML mapping; not read")
        return
    inner = _Reading(reading.engine, reading.version, notes=reading.notes, unread=reading.unread)
    _read(words_of_config(content), inner)
    reading.flags = inner.flags | reading.flags
    reading.model = reading.model or inner.model
