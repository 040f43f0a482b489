"""Read vLLM's arguments as its own parser would: aliases, negatives, ``=``, human numbers, config files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from planner.emit.flags import problems_of_flags, snapshot, versions
from planner.importing.commands import Command

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT])(i?)")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
HUMAN_FLAGS = {"--max-model-len", "--max-num-batched-tokens", "--kv-cache-memory-bytes", "--max-num-queued-tokens"}
"""Flags that take ``128k`` (128,000) and ``128K`` (131,072)."""

_OLDER = ("--rope-scaling", "--rope-theta")
"""Flags of older versions with a meaning that newer ones express by ``--hf-overrides``."""


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


def read_flags(command: Command) -> Given:
    """Return the flags of a command; what can't be read or isn't known is noted, not dropped."""
    known_versions = versions("vllm")
    version = command.version if command.version in known_versions else known_versions[-1]
    notes: list[str] = []
    if command.version is not None and command.version != version:
        notes.append(f"vLLM {command.version}: its flags aren't known here; read as those of {version}")
    flags: dict[str, Any] = {}
    unread: list[tuple[str, str]] = []
    positional = _read(list(command.arguments), version, flags, notes, unread)
    config = flags.pop("--config", None)
    if config is not None:
        flags = _read_config(str(config), command, version, notes, unread) | flags
    model = positional or flags.pop("--model", None)
    unset = [name for name, value in flags.items() if isinstance(value, str) and value.startswith("$")]
    unread += [(f"{name} {flags.pop(name)}", "set by the shell when it runs; not read") for name in unset]
    notes += [f"{text}: {reason}" for text, reason in unread]
    notes += problems_of_flags(
        tuple((n, v) for n, v in flags.items() if not isinstance(v, list | bool) and n not in _OLDER), "vllm", version
    )
    return Given(str(model) if model else None, version, flags, tuple(notes), tuple(unread))


def _read(
    words: list[str], version: str, flags: dict[str, Any], notes: list[str], unread: list[tuple[str, str]]
) -> str | None:
    """Fill ``flags`` from words and return the positional argument."""
    records = snapshot("vllm", version)["flags"]
    spelled = {name: (first, record) for first, record in records.items() for name in record["names"]}
    positional = None
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-") or _is_number(word):
            positional = positional or word
            continue
        name, equals, value = word.partition("=")
        name = _normal(name)
        found = spelled.get(name)
        if found is None:
            taken = [value] if equals else _values(words, index, many=False)
            index += 0 if equals else len(taken)
            if name in _OLDER and taken:
                flags[name] = taken[0]
            else:
                unread.append((" ".join([name, *taken]), f"vLLM {version} has no such flag"))
            continue
        first, record = found
        if record["type"] == "bool":
            flags[first] = not _switches_off(name, first)
            continue
        taken = [value] if equals else _values(words, index, many=bool(record.get("many")))
        index += 0 if equals else len(taken)
        if not taken:
            notes.append(f"{name}: has no value")
            continue
        flags[first] = taken if record.get("many") else _value(first, taken[0], record["type"])
    return positional


def _values(words: list[str], index: int, *, many: bool) -> list[str]:
    taken: list[str] = []
    while index < len(words) and (not words[index].startswith("-") or _is_number(words[index])):
        taken.append(words[index])
        index += 1
        if not many:
            break
    return taken


def _normal(name: str) -> str:
    """Return a flag's name with dashes; vLLM takes underscores too, and a dotted part of JSON."""
    return name.partition(".")[0].replace("_", "-") if name.startswith("--") else name


def _switches_off(name: str, first: str) -> bool:
    opposite = (("--enable-", "--disable-"), ("--disable-", "--enable-"))
    inverted = any(first.startswith(a) and name.startswith(b) for a, b in opposite)
    return name.startswith("--no-") or inverted


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


def _read_config(
    path: str, command: Command, version: str, notes: list[str], unread: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return the flags of a ``--config`` file that came with the command."""
    text = command.config_files.get(path.rsplit("/", 1)[-1])
    if text is None:
        notes.append(f"--config {path}: the file isn't part of what was given; its flags aren't read")
        return {}
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        notes.append(f"--config {path}: isn't a YAML mapping; not read")
        return {}
    words: list[str] = []
    for key, value in content.items():
        name = f"--{str(key).replace('_', '-')}"
        if value is False:
            words.append(f"--no-{name[2:]}")
        elif value is not True:
            items = value if isinstance(value, list) else [value]
            words += [name, *(json.dumps(v) if isinstance(v, dict) else str(v) for v in items)]
        else:
            words.append(name)
    flags: dict[str, Any] = {}
    model = _read(words, version, flags, notes, unread)
    if model is not None:
        flags.setdefault("--model", model)
    return flags
