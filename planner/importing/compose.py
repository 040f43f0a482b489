"""Servers of a compose file, its variables filled in from their defaults and ``.env``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from planner.importing.command import Command, Neighbour
from planner.importing.documents import environment_file, mapping, whole
from planner.importing.entrypoints import servers_of_words
from planner.importing.stamps import role_of, stamp_of
from planner.importing.unknown import is_known, shown, split_words, unknown

_VARIABLE = re.compile(
    r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<kind>:?[-?+])(?P<rest>[^}]*))?\})"
)


def commands_of_compose(document: Mapping[str, Any], neighbour: Neighbour) -> Iterable[Command]:
    """Return what the services of a compose file start."""
    variables = environment_file(neighbour(".env") or "")
    for name, service in document["services"].items():
        if not isinstance(service, dict):
            continue
        notes: list[str] = []
        filled = _filled(service, variables, notes)
        image = str(filled.get("image", ""))
        words = [*_words(filled.get("entrypoint")), *_words(filled.get("command"))]
        environment = _environment(filled, neighbour)
        # With an entry point of its own a container doesn't start what its image would.
        found = servers_of_words(words, environment, image="" if filled.get("entrypoint") else image)
        labels = mapping(filled.get("labels"))
        replicas = whole(mapping(mapping(filled.get("deploy"))).get("replicas", filled.get("scale")), 1)
        for server in found:
            yield Command(
                arguments=server.arguments,
                where=f"service {name}",
                replicas=replicas,
                version=server.version or _version(image, server.engine),
                environment=environment,
                role=server.role or role_of(str(labels.get("plan/pool", name))),
                stamp=stamp_of(labels),
                config_files=_configs(document, filled, neighbour),
                engine=server.engine,
                notes=(*notes, *server.notes),
            )


def _version(image: str, engine: str) -> str | None:
    from planner.importing.entrypoints import version_of_image

    return version_of_image(image, engine)


def _environment(service: Mapping[str, Any], neighbour: Neighbour) -> dict[str, str]:
    files = service.get("env_file") or ()
    names = [files] if isinstance(files, str) else files
    found: dict[str, str] = {}
    for item in names:
        path = item.get("path", "") if isinstance(item, dict) else str(item)
        found |= environment_file(neighbour(path) or "")
    given = mapping(service.get("environment"))
    return found | {str(k): str(v) for k, v in given.items() if v is not None}


def _configs(document: Mapping[str, Any], service: Mapping[str, Any], neighbour: Neighbour) -> dict[str, str]:
    """Return the texts of ``configs`` in the file and of files that are mounted, by the names of their targets."""
    texts = {str(k): mapping(v).get("content") for k, v in mapping(document.get("configs")).items()}
    found: dict[str, str] = {}
    for item in service.get("configs") or ():
        source = item.get("source") if isinstance(item, dict) else item
        target = item.get("target", source) if isinstance(item, dict) else item
        text = texts.get(str(source))
        if isinstance(text, str):
            found[str(target).rsplit("/", 1)[-1]] = text.replace("$$", "$")
    for item in service.get("volumes") or ():
        source, target = (
            (str(item.get("source")), str(item.get("target")))
            if isinstance(item, dict)
            else (*str(item).split(":"), "")[:2]
        )
        text = neighbour(source) if source.endswith((".yaml", ".yml", ".json")) else None
        if text is not None:
            found[target.rsplit("/", 1)[-1]] = text
    return found


def _filled(value: Any, variables: Mapping[str, str], notes: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables, notes) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables, notes) for item in value]
    return filled_in(value, variables, notes) if isinstance(value, str) else value


def filled_in(text: str, variables: Mapping[str, str], notes: list[str]) -> str:
    """Return a text with compose's variables replaced; what isn't set anywhere stays, marked.

    >>> filled_in("a-${TP:-2} $$HOME", {}, [])
    'a-2 $HOME'
    """

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        if name is None:
            return "$"
        kind, found = match["kind"], variables.get(name)
        is_set = found is not None and (bool(found) or not (kind or "").startswith(":"))
        if kind and kind.endswith("+"):
            return filled_in(match["rest"], variables, notes) if is_set else ""
        if is_set and found is not None:
            return found
        if kind and kind.endswith("-"):
            notes.append(f"{name} isn't set in the file: its default {match['rest'] or '(empty)'} is taken")
            return filled_in(match["rest"], variables, notes)
        return unknown(match[0])

    return _VARIABLE.sub(value, text)


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(word) for word in value]
    return command_words(value) if isinstance(value, str) else []


def command_words(text: str) -> list[str]:
    """Split a command that stands in one text; an open quote takes the rest as it is."""
    if not is_known(text):
        return list(split_words(text.replace("\\\n", " ")))
    try:
        return shlex.split(text.replace("\\\n", " "))
    except ValueError:
        return shown(text).split()
