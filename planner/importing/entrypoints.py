"""Which words start a server: an engine's own program, its module, its image, or a shell that starts one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.importing.expansion import Value
from planner.importing.shell import Started, read_script
from planner.importing.unknown import is_known, shown

_PROGRAMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "vllm": ("vllm", ("serve",)),
    "sglang": ("sglang", ("serve",)),
    "lmdeploy": ("lmdeploy", ("serve", "api_server")),
    "trtllm-serve": ("tensorrt-llm", ()),
    "llama-server": ("llama.cpp", ()),
}
"""Program -> engine, and the words that have to follow."""
_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "sglang.launch_server": "sglang",
    "sglang.srt.entrypoints.http_server": "sglang",
    "lmdeploy.serve.openai.api_server": "lmdeploy",
    "tensorrt_llm.commands.serve": "tensorrt-llm",
    "dynamo.vllm": "vllm",
    "dynamo.sglang": "sglang",
    "dynamo.trtllm": "tensorrt-llm",
    "huggingfaceserver": "vllm",
}
_NAMED = re.compile(
    r"\bvllm\s+serve\b|vllm\.entrypoints|sglang\.launch_server|\bsglang\s+serve\b|trtllm-serve|lmdeploy\s+serve|"
    r"llama-server|dynamo\.(?:vllm|sglang|trtllm)|vllm[\w-]*openai"
)
_IMAGES = (
    (re.compile(r"(?:^|[/\-_])(?:vllm|llm-d)(?:[-_]|$)", re.IGNORECASE), "vllm"),
    (re.compile(r"(?:^|[/\-_])sglang(?:[-_]|$)", re.IGNORECASE), "sglang"),
    (re.compile(r"(?:^|[/\-_])(?:tensorrt-llm|trtllm)(?:[-_]|$)", re.IGNORECASE), "tensorrt-llm"),
    (re.compile(r"(?:^|[/\-_])lmdeploy(?:[-_]|$)", re.IGNORECASE), "lmdeploy"),
    (re.compile(r"llama\.?cpp", re.IGNORECASE), "llama.cpp"),
)
_OTHER_IMAGES = re.compile(r"router|gateway|benchmark|exporter|proxy|-sim\b|simulator|sidecar", re.IGNORECASE)
_STARTS_ITSELF = {"vllm", "llama.cpp"}
"""Engines whose images start the server, so that flags alone are enough."""
_TAG = re.compile(r":v?(\d+\.\d+(?:\.\d+)?(?:\.post\d+)?)")
_TALKS = frozenset(
    [
        "echo",
        "printf",
        "grep",
        "egrep",
        "pgrep",
        "pkill",
        "killall",
        "kill",
        "cat",
        "which",
        "type",
        "pip",
        "pip3",
        "git",
        "curl",
        "wget",
        "sed",
        "awk",
        "ls",
        "man",
        "rm",
        "cp",
        "mv",
        "mkdir",
        "chmod",
        "touch",
        "head",
        "tail",
        "alias",
        "trap",
        "wait",
        "jq",
        "apt",
        "apt-get",
        "hf",
        "huggingface-cli",
    ]
)
_SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ash", "ksh"})
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
_BARE = frozenset(
    [
        "--rm",
        "--init",
        "--privileged",
        "--read-only",
        "--detach",
        "--interactive",
        "--tty",
        "--publish-all",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--sig-proxy",
        "--disable-content-trust",
        "--replace",
        "--quiet",
    ]
)
"""Options of ``docker run`` without a value."""
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Server:
    """A server's own arguments."""

    engine: str
    arguments: tuple[str, ...]
    version: str | None = None
    environment: Mapping[str, Value] = field(default_factory=dict)
    line: int = 0
    cases: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    role: str | None = None
    broken: int | None = None
    """Line of its command that isn't shell."""


def engine_of_image(image: str) -> str | None:
    """Return the engine of a container image, by its name.

    >>> engine_of_image("ghcr.io/llm-d/llm-d-cuda:v0.7.0"), engine_of_image("lmsysorg/sglang:latest")
    ('vllm', 'sglang')
    >>> engine_of_image("lmcache/lmstack-router") is None
    True
    """
    name = re.split(r"@|:(?!.*/)", shown(image))[0]
    last = "/".join(name.split("/")[-2:])
    if _OTHER_IMAGES.search(name.rsplit("/", 1)[-1]):
        return None
    return next((engine for pattern, engine in _IMAGES if pattern.search(last)), None)


def names_a_server(text: str) -> bool:
    """Whether a text has words that start a server, wherever they stand."""
    return _NAMED.search(text) is not None


def version_of_image(image: str, engine: str) -> str | None:
    """Return an engine's version by the tag of its own image; images of other makers have versions of their own."""
    own = {"vllm": "vllm-", "sglang": "sglang", "lmdeploy": "lmdeploy", "tensorrt-llm": "tensorrt-llm"}.get(engine)
    match = _TAG.search(shown(image).rsplit("/", 1)[-1])
    if match is None or own is None or own not in shown(image).rsplit("/", 1)[-1]:
        return None
    return match[1] if match[1].count(".") >= 2 else f"{match[1]}.0"


def servers_of_words(
    words: Sequence[str],
    environment: Mapping[str, Value],
    *,
    image: str = "",
    stdin: str | None = None,
    depth: int = 0,
) -> list[Server]:
    """Return the servers that one command starts.

    Parameters
    ----------
    words
        The command.
    environment
        Variables that it sees.
    image
        Of the container that it runs in, where the image itself may be what starts.
    stdin
        A here-document that it is given.
    depth
        Shells around it.
    """
    first = words[0].rsplit("/", 1)[-1] if words else ""
    if depth > _DEEPEST or first in _TALKS:
        return []
    inside = _container(words) if first in _CONTAINERS or words[:2] == ["sudo", "docker"] else None
    if inside is not None:
        inner, options, name = inside
        return servers_of_words(inner, {**environment, **options}, image=name, stdin=stdin, depth=depth + 1)
    for index, word in enumerate(words):
        found = _program(words, index)
        if found is not None:
            arguments = tuple(words[found[1] :])
            return [_server(found[0], arguments, environment, image, word)]
        script = _script(words, index, stdin, environment)
        if script is not None:
            text, zeroth, given = script
            if not _NAMED.search(text) and not _NAMED.search(" ".join([zeroth, *given])):
                return []
            return servers_of_script(text, environment, given, zeroth, image=image, depth=depth + 1)
        if index and re.search(r"\s", word) and _NAMED.search(word):
            text = word.partition("=")[2] if word.startswith("--wrap=") else word
            return servers_of_script(text, environment, image=image, depth=depth + 1)
    engine = engine_of_image(image) if image else None
    if engine is None and image and not is_known(image):
        engine = (
            "vllm" if {"--tensor-parallel-size", "--max-model-len", "--gpu-memory-utilization"} & set(words) else None
        )
    has_flags = any(word.startswith("-") for word in words) or (bool(words) and "/" in words[0])
    if engine is not None and engine in _STARTS_ITSELF and has_flags:
        return [_server(engine, tuple(words), environment, image, "")]
    return []


def servers_of_script(
    text: str,
    environment: Mapping[str, Value],
    arguments: Sequence[str] = (),
    zeroth: str = "",
    *,
    image: str = "",
    depth: int = 0,
) -> list[Server]:
    """Return the servers that a script starts, one for each that runs at the same time."""
    script = read_script(text, environment, arguments, zeroth)
    found: list[Server] = []
    for command in script.commands:
        for server in _of_started(command, script.files, image, depth):
            own = server.line or command.line
            cases = command.cases + server.cases
            notes = tuple(dict.fromkeys((*script.notes, *server.notes)))
            broken = server.broken or command.broken
            found.append(replace(server, line=own, cases=cases, notes=notes, broken=broken))
    return without_alternatives(found)


def _of_started(command: Started, files: Mapping[str, str], image: str, depth: int) -> list[Server]:
    words = list(command.words)
    written = next((files[word] for word in words[:3] if word in files), None)
    if written is not None and (words[0] in _SHELLS or words[0] in files):
        return servers_of_script(written, command.environment, words[2:], image=image, depth=depth + 1)
    return servers_of_words(words, command.environment, image=image, stdin=command.stdin, depth=depth)


def without_alternatives(servers: list[Server]) -> list[Server]:
    """Drop servers that start only where another one of the list doesn't, and workers of one that is there."""
    heads = [server for server in servers if not _is_worker(server)] or servers
    kept: list[Server] = []
    for server in heads:
        sides = dict(server.cases)
        other = next((k for k in kept if any(sides.get(at, side) != side for at, side in k.cases)), None)
        if other is None:
            kept.append(server)
        elif other.arguments != server.arguments:
            told = f"line {server.line} starts it otherwise in another case; line {other.line} is read"
            kept[kept.index(other)] = replace(other, notes=(*other.notes, told))
    return kept


def _is_worker(server: Server) -> bool:
    """Whether it is a further machine of an instance whose first machine is elsewhere."""
    if "--headless" in server.arguments:
        return True
    rank = next((i for i, word in enumerate(server.arguments) if word == "--node-rank"), None)
    return (
        rank is not None
        and server.arguments[rank + 1 : rank + 2] not in ([], ("0",), ())
        and all(is_known(word) for word in server.arguments[rank + 1 : rank + 2])
    )


def _server(
    engine: str, arguments: tuple[str, ...], environment: Mapping[str, Value], image: str, entry: str
) -> Server:
    role = None
    if entry.startswith("dynamo."):
        flags = {"--is-prefill-worker": "prefill", "--is-decode-worker": "decode"}
        role = next((flags[word] for word in arguments if word in flags), None)
        arguments = tuple(word for word in arguments if word not in flags)
    return Server(engine, arguments, version_of_image(image, engine), environment, role=role)


def _program(words: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the engine that starts at a word, and where its arguments begin."""
    word = words[index]
    name = word.rsplit("/", 1)[-1]
    if name in _PROGRAMS:
        engine, after = _PROGRAMS[name]
        if tuple(words[index + 1 : index + 1 + len(after)]) == after:
            start = index + 1 + len(after)
            if name == "trtllm-serve" and words[start : start + 1] == ["serve"]:
                start += 1
            if name == "trtllm-serve" and words[start : start + 1] in (["disaggregated"], ["disaggregated_mpi_worker"]):
                return None
            return engine, start
    module = word if word in _MODULES else word.removesuffix(".py").replace("/", ".")
    found = next((m for m in _MODULES if module == m or (word.endswith(".py") and module.endswith(m))), None)
    if found is None or (index and words[index - 1] != "-m" and not word.endswith(".py") and "." not in word):
        return None
    skip = 2 if found.endswith("cli.main") else 1
    return _MODULES[found], index + skip


def _script(
    words: Sequence[str], index: int, stdin: str | None, environment: Mapping[str, Value]
) -> tuple[str, str, list[str]] | None:
    """Return the script that a shell is given (``-c``, a here-document), its ``$0`` and its arguments."""
    name = words[index].rsplit("/", 1)[-1]
    if name in _SHELLS:
        for at in range(index + 1, len(words)):
            if not words[at].startswith(("-", "+")):
                break
            if re.fullmatch(r"-[a-z]*c[a-z]*", words[at]) and at + 1 < len(words):
                return words[at + 1], (words[at + 2] if at + 2 < len(words) else ""), list(words[at + 3 :])
    if stdin is not None and (name in _SHELLS or name in ("ssh", "sbatch")):
        return stdin, "", []
    return None


def _container(words: Sequence[str]) -> tuple[list[str], dict[str, Value], str] | None:
    """Return what a ``docker run`` starts, its variables and its image."""
    if "run" not in words:
        return None
    options: dict[str, Value] = {}
    entry: list[str] = []
    index = list(words).index("run") + 1
    while index < len(words) and words[index].startswith("-"):
        name, equals, value = words[index].partition("=")
        index += 1
        if name in _BARE or re.fullmatch(r"-[ditqP]+", name):
            continue
        if not equals:
            value = words[index] if index < len(words) else ""
            index += 1
        if name in ("-e", "--env"):
            key, assigned, given = value.partition("=")
            options |= {key: given} if assigned else {}
        elif name == "--entrypoint":
            entry = value.split()
    if index >= len(words):
        return None
    image = words[index]
    return [*entry, *words[index + 1 :]], options, "" if entry else image
