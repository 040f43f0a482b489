"""Servers of a systemd unit: ``ExecStart`` with the unit's variables and those of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from planner.importing.command import Command, Neighbour
from planner.importing.compose import command_words
from planner.importing.documents import environment_file
from planner.importing.entrypoints import engine_of_image, servers_of_words, version_of_image
from planner.importing.unknown import unknown

_SECTION = re.compile(r"^\[(Service|Container)\]\s*$", re.MULTILINE)
_LINE = re.compile(r"^\s*(\w+)\s*=\s*(.*)$")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)|\$\$")


def is_unit(text: str) -> bool:
    """Whether a text is a systemd unit, or a Quadlet."""
    return _SECTION.search(text) is not None


def commands_of_unit(text: str, neighbour: Neighbour) -> Iterable[Command]:
    """Return what a unit starts; a variable that no file beside it sets stays unknown."""
    settings: dict[str, list[str]] = {}
    for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
        match = _LINE.match(line)
        if match is not None:
            settings.setdefault(match[1], []).append(match[2].strip())
    variables: dict[str, str] = {}
    notes = []
    for given in settings.get("Environment", []):
        for word in command_words(given):
            name, _, value = word.partition("=")
            variables[name] = value
    for path in settings.get("EnvironmentFile", []):
        found = neighbour(path.removeprefix("-"))
        if found is None:
            notes.append(f"{path.removeprefix('-')} isn't beside the unit: what it sets isn't known")
        variables |= environment_file(found or "")
    image = next(iter(settings.get("Image", [])), "")
    starts = settings.get("ExecStart", []) or ([settings["Exec"][0]] if image and "Exec" in settings else [])
    for start in starts:
        words = [part for word in command_words(start.lstrip("@-:+!")) for part in _filled(word, variables)]
        for server in servers_of_words(words, dict(variables), image=image if engine_of_image(image) else ""):
            yield Command(
                arguments=server.arguments,
                where="ExecStart",
                version=server.version or version_of_image(image, server.engine),
                environment=variables,
                engine=server.engine,
                notes=(*notes, *server.notes),
                counted=False,
            )


def _filled(word: str, variables: dict[str, str]) -> list[str]:
    """Return a word with its variables; ``$NAME`` alone is as many words as it holds."""
    alone = re.fullmatch(r"\$(\w+)", word)
    if alone is not None:
        found = variables.get(alone[1])
        return [unknown(word)] if found is None else command_words(found)

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return "$" if name is None else variables.get(name, unknown(match[0]))

    return [_VARIABLE.sub(value, word)]
