"""Find the servers that a text starts, whatever kind of text it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from planner.errors import InputError
from planner.importing.command import Command, Neighbour, alone
from planner.importing.compose import commands_of_compose
from planner.importing.documents import Documents, described, documents_of, looks_like_yaml, mapping
from planner.importing.entrypoints import names_a_server, servers_of_script, servers_of_words
from planner.importing.expansion import Value
from planner.importing.manifests import commands_of_manifest
from planner.importing.ray_serve import commands_of_applications, commands_of_ray_service
from planner.importing.shell import read_script
from planner.importing.stamps import pool_in, role_of, stamp_in, version_in
from planner.importing.units import commands_of_unit, is_unit
from planner.importing.values import commands_of_values, is_values

__all__ = ["Command", "read_commands"]

_MOST_BYTES = 4 << 20
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_SHELL_FENCES = frozenset({"", "bash", "sh", "shell", "console", "zsh", "text"})
_HELP = (
    "give a command (vllm serve MODEL ..., sglang, trtllm-serve, lmdeploy or llama-server), a script, a systemd unit, "
    "a compose file, or manifests with a container that runs one"
)


def read_commands(text: str, neighbour: Neighbour = alone) -> list[Command]:
    """Return every server that a text starts.

    Parameters
    ----------
    text
        A script, a unit, a compose file, manifests, values of a chart, or a page that shows a command.
    neighbour
        Files beside it, which it can name.

    Raises
    ------
    InputError
        If there is none, with what was found instead.
    """
    if len(text) > _MOST_BYTES:
        raise InputError(f"the file: larger than {_MOST_BYTES >> 20} MiB; give the command or the manifest alone")
    if is_unit(text):
        found = list(commands_of_unit(text, neighbour))
        if not found:
            raise InputError(f"the file: a unit whose ExecStart starts no server that is read here; {_HELP}")
        return found
    blocks = [m[3] for m in _FENCE.finditer(text) if m[2].lower() in _SHELL_FENCES]
    if blocks:
        text = "\n".join(re.sub(r"^\s*\$ ", "", block, flags=re.MULTILINE) for block in blocks)
    if looks_like_yaml(text) and not ("<<" in text and documents_of(text).problems):
        return _from_yaml(text, neighbour)
    found = _from_shell(text, neighbour)
    broken = read_script(text).broken
    if broken is not None and found:
        told = f"line {broken} can't be read as shell; what stands there isn't read"
        found = [_with_notes(command, (told,)) for command in found]
    if broken is not None and not found and names_a_server(text):
        raise InputError(f"the file: line {broken} can't be read as shell; check its quotes, and that it is a script")
    if not found:
        raise InputError(f"the file: holds no server that is read here; {_HELP}")
    return found


def _from_yaml(text: str, neighbour: Neighbour) -> list[Command]:
    documents = documents_of(text)
    commands: list[Command] = []
    for document in documents.found:
        commands += _from_document(document, documents, text, neighbour)
    for document in documents.found if not commands else ():
        commands += _from_strings(document)
    if not commands:
        raise InputError(f"the file: {_nothing(documents)}")
    if documents.problems:
        told = tuple(f"{problem}; that document isn't read" for problem in documents.problems)
        commands = [_with_notes(command, told) for command in commands]
    return commands


def _nothing(documents: Documents) -> str:
    if documents.problems:
        more = "; a template has to be rendered first (helm template)" if "{" in documents.problems[0] else ""
        return f"{documents.problems[0]}{more}; no server was found beside it"
    if any(map(is_values, documents.found)):
        return (
            "these look like the values of a chart, which says how they become arguments; render it with helm "
            "template CHART -f VALUES, and give what that prints"
        )
    found = described(documents.found) or "no document"
    return f"holds no server that is read here, but {found}; {_HELP}"


def _from_document(
    document: Mapping[str, Any], documents: Documents, text: str, neighbour: Neighbour
) -> Iterable[Command]:
    if isinstance(document.get("services"), dict) and "kind" not in document:
        return commands_of_compose(document, neighbour)
    if isinstance(document.get("applications"), list):
        return commands_of_applications(document, text)
    if document.get("kind") == "RayService":
        return commands_of_ray_service(document)
    if "kind" in document:
        return commands_of_manifest(document, documents.found)
    return commands_of_values(document)


def _from_strings(document: Mapping[str, Any]) -> list[Command]:
    """Read texts of YAML of any other kind that start a server: of tasks, workflows, jobs."""
    found: list[Command] = []
    for place, text, variables in _texts(document, "", {}):
        for server in servers_of_script(text, variables):
            found.append(
                Command(
                    arguments=server.arguments,
                    where=place,
                    version=server.version,
                    engine=server.engine,
                    role=server.role or role_of(place),
                    notes=server.notes,
                    counted=False,
                )
            )
    return found


def _texts(value: Any, place: str, variables: Mapping[str, Value]) -> Iterator[tuple[str, str, Mapping[str, Value]]]:
    if isinstance(value, dict):
        own = {k: v for name in ("env", "envs", "environment") for k, v in mapping(value.get(name)).items()}
        inner = {**variables, **{str(k): str(v) for k, v in own.items() if isinstance(v, str | int | float)}}
        for key, item in value.items():
            yield from _texts(item, f"{place}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value) and servers_of_words(value, variables):
            import shlex

            yield place, " ".join(map(shlex.quote, value)), variables
            return
        for item in value:
            yield from _texts(item, place, variables)
    elif isinstance(value, str) and " " in value:
        yield place, value, variables


def _from_shell(text: str, neighbour: Neighbour) -> list[Command]:
    commands: list[Command] = []
    for server in servers_of_script(text, {}):
        if server.broken is not None:
            raise InputError(f"the file: line {server.broken} can't be read as shell; check its quotes")
        commands.append(
            Command(
                arguments=server.arguments,
                where=f"line {server.line}",
                version=server.version or version_in(text, server.engine),
                environment={k: v for k, v in server.environment.items() if isinstance(v, str)},
                role=server.role or pool_in(text),
                stamp=stamp_in(text),
                config_files=_written(text) if "--config" in server.arguments else {},
                engine=server.engine,
                notes=server.notes,
                counted=False,
            )
        )
    return commands or _from_here_documents(text, neighbour)


def _written(text: str) -> dict[str, str]:
    return {path.rsplit("/", 1)[-1]: content for path, content in read_script(text).files.items()}


def _from_here_documents(text: str, neighbour: Neighbour) -> list[Command]:
    """Read manifests that a script hands to kubectl, or writes for it or for docker compose."""
    script = read_script(text)
    given = [command.stdin for command in script.commands if command.stdin is not None]
    found: list[Command] = []
    for inner in [*given, *script.files.values()]:
        if looks_like_yaml(inner):
            try:
                found += _from_yaml(inner, neighbour)
            except InputError:
                continue
    return found


def _with_notes(command: Command, notes: tuple[str, ...]) -> Command:
    from dataclasses import replace

    return replace(command, notes=(*command.notes, *notes))
