"""Find the ``vllm serve`` commands in a shell script, a compose file or Kubernetes manifests."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from planner.errors import InputError

_IMAGE = re.compile(
    r"(?:^|/)vllm-openai(?:-\w+)?(?::(?:v?(?P<version>\d+\.\d+\.\d+)[\w.+-]*|[\w.-]+))?(?:@sha256:[0-9a-f]+)?$"
)
_VERSION = re.compile(r"^# vllm (\d+\.\d+\.\d+) ", re.MULTILINE)
_STAMP = re.compile(r"^# plan-hash: ([0-9a-f]+)\b", re.MULTILINE)
_MODULE = "vllm.entrypoints.openai.api_server"
_ENDS = {";", "&", "&&", "|", "||", ">", ">>", "<", ")", "fi", "done", "else"}
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """One vLLM server as a file starts it."""

    arguments: tuple[str, ...]
    """What follows ``vllm serve``."""
    where: str
    """Where it was found, for messages."""
    replicas: int = 1
    version: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    role: str | None = None
    """``prefill`` or ``decode``, where a stamp or a name says so."""
    stamp: str | None = None
    """Hash of the decision that ``plan emit`` wrote the file for."""
    config_files: Mapping[str, str] = field(default_factory=dict)
    """Texts of files that the command can name, by file name."""


def read_commands(text: str) -> list[Command]:
    """Return every vLLM server that a text starts.

    Raises
    ------
    InputError
        If there is none, or the text is neither YAML nor a shell script.
    """
    if len(text) > _MOST_BYTES:
        raise InputError(f"the file: larger than {_MOST_BYTES >> 20} MiB; give the command or the manifest alone")
    found = _from_yaml(text)
    if not found:
        found = _from_shell(text)
    if not found:
        raise InputError(
            "the file: holds no vLLM server; give a `vllm serve MODEL ...` command, a compose file or Kubernetes "
            "manifests with a container that runs it"
        )
    return found


def _from_yaml(text: str) -> list[Command]:
    try:
        documents = [d for d in yaml.safe_load_all(text) if isinstance(d, dict)]
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    commands: list[Command] = []
    files = _config_files(documents)
    for document in documents:
        if isinstance(document.get("services"), dict):
            commands += _from_compose(document)
        elif isinstance(document.get("applications"), list):
            commands += _from_ray(document, text)
        elif "kind" in document:
            commands += _from_manifest(document, files)
    return commands


def _from_compose(document: Mapping[str, Any]) -> Iterable[Command]:
    for name, service in document["services"].items():
        if not isinstance(service, dict):
            continue
        image = str(service.get("image", ""))
        words = [
            word.replace("$$", "$") for word in [*_words(service.get("entrypoint")), *_words(service.get("command"))]
        ]
        # With an entry point of its own a container doesn't start what its image would.
        arguments = _serve_arguments(words, "" if service.get("entrypoint") else image)
        if arguments is None:
            continue
        labels = _mapping(service.get("labels"))
        replicas = _mapping(_mapping(service.get("deploy"))).get("replicas", 1)
        yield Command(
            arguments=tuple(arguments),
            where=f"service {name}",
            replicas=replicas if isinstance(replicas, int) else 1,
            version=_image_version(image),
            environment={k: str(v) for k, v in _mapping(service.get("environment")).items()},
            role=_role(str(labels.get("plan/pool", name))),
            stamp=_stamp(labels),
        )


def _from_manifest(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterable[Command]:
    spec = _mapping(document.get("spec"))
    name = str(_mapping(document.get("metadata")).get("name", document.get("kind")))
    notes = _mapping(_mapping(document.get("metadata")).get("annotations"))
    where = f"{document.get('kind')} {name}"
    for workload in _workloads(document, spec):
        own = {**notes, **_mapping(workload.get("annotations"))}
        replicas = workload.get("replicas", 1)
        for container in workload["pod"].get("containers") or ():
            words = [*_words(container.get("command")), *_words(container.get("args"))]
            words = [word.replace("$$", "$") for word in words]
            image = str(container.get("image", ""))
            arguments = _serve_arguments(words, "" if container.get("command") else image)
            if arguments is None:
                continue
            yield Command(
                arguments=tuple(arguments),
                where=where,
                replicas=replicas if isinstance(replicas, int) else 1,
                version=_image_version(image),
                environment={str(e.get("name")): str(e.get("value", "")) for e in container.get("env") or ()},
                role=_role(str(own.get("plan/pool", workload.get("role") or name))),
                stamp=_stamp(own),
                config_files=files,
            )


def _workloads(document: Mapping[str, Any], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what starts pods, with the pod: Deployments and the like, leader-worker sets, pods, KServe's services."""
    if document.get("kind") == "LLMInferenceService":
        found = [{**spec, "pod": _mapping(spec.get("template")), "role": None}]
        prefill = _mapping(spec.get("prefill"))
        if prefill:
            found[0]["role"] = "decode"
            found.append({**prefill, "pod": _mapping(prefill.get("template")), "role": "prefill"})
        return found
    if document.get("kind") == "InferenceService":
        predictor = _mapping(spec.get("predictor"))
        containers = [*(predictor.get("containers") or ()), *([predictor["model"]] if "model" in predictor else [])]
        return [{"replicas": predictor.get("minReplicas", 1), "pod": {"containers": containers}}]
    group = _mapping(spec.get("leaderWorkerTemplate"))
    template = _mapping(group.get("leaderTemplate") or group.get("workerTemplate") or spec.get("template"))
    pod = _mapping(template.get("spec")) or (spec if document.get("kind") == "Pod" else {})
    return [{"replicas": spec.get("replicas", 1), "pod": pod}]


def _from_ray(document: Mapping[str, Any], text: str) -> Iterable[Command]:
    """Read Ray Serve LLM applications: vLLM's arguments in Python."""
    version, stamp = _VERSION.search(text), _STAMP.search(text)
    for application in document["applications"]:
        for config in _mapping(_mapping(application).get("args")).get("llm_configs") or ():
            given = _mapping(config)
            loading = _mapping(given.get("model_loading_config"))
            words = [str(loading.get("model_source") or loading.get("model_id") or "")]
            words += ["--served-model-name", str(loading["model_id"])] if "model_id" in loading else []
            for key, value in _mapping(given.get("engine_kwargs")).items():
                name = f"--{str(key).replace('_', '-')}"
                if isinstance(value, bool):
                    words.append(name if value else f"--no-{name[2:]}")
                else:
                    words += [name, json.dumps(value) if isinstance(value, dict | list) else str(value)]
            deployed = _mapping(given.get("deployment_config"))
            scaled = _mapping(deployed.get("autoscaling_config"))
            replicas = deployed.get("num_replicas", scaled.get("min_replicas", 1))
            yield Command(
                arguments=tuple(words),
                where=f"application {_mapping(application).get('name', '')}".strip(),
                replicas=replicas if isinstance(replicas, int) else 1,
                version=version[1] if version else None,
                stamp=stamp[1] if stamp else None,
            )


def _config_files(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    files: dict[str, str] = {}
    for document in documents:
        if document.get("kind") == "ConfigMap":
            files |= {str(k): str(v) for k, v in _mapping(document.get("data")).items()}
    return files


def _from_shell(text: str) -> list[Command]:
    version = _VERSION.search(text)
    stamp = _STAMP.search(text)
    role = re.search(r", (prefill|decode) pool$", text, re.MULTILINE)
    commands: list[Command] = []
    for number, line in enumerate(_logical_lines(text), start=1):
        if "vllm" not in line or line.lstrip().startswith("#"):
            continue
        words = _shell_words(line)
        image = next((word for word in words if _IMAGE.search(word)), "")
        arguments = _serve_arguments(words, image)
        if arguments is not None:
            commands.append(
                Command(
                    arguments=tuple(arguments),
                    where=f"command {number}",
                    version=_image_version(image) or (version[1] if version else None),
                    role=role[1] if role else None,
                    stamp=stamp[1] if stamp else None,
                )
            )
    return _without_workers(commands)


def _without_workers(commands: list[Command]) -> list[Command]:
    """Drop the commands of further servers of the same instance."""
    heads = [command for command in commands if "--headless" not in command.arguments]
    return heads or commands


def _logical_lines(text: str) -> list[str]:
    return re.sub(r"\\\r?\n", " ", text).splitlines()


def _shell_words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        return list(lexer)
    except ValueError as error:
        raise InputError(f"the file: a command can't be read: {error}; check its quotes") from None


def _serve_arguments(words: list[str], image: str) -> list[str] | None:
    """Return what follows ``vllm serve`` (or its module, or its image), None if nothing starts vLLM."""
    for index, word in enumerate(words):
        name = word.rsplit("/", 1)[-1]
        if name == "vllm" and words[index + 1 : index + 2] == ["serve"]:
            return _until_end(words[index + 2 :])
        if word == _MODULE:
            return _until_end(words[index + 1 :])
        if word in ("-c", "-lc") and index + 1 < len(words) and "vllm" in words[index + 1]:
            lines = _logical_lines(words[index + 1])
            inner = [_serve_arguments(_shell_words(line), "") for line in lines]
            return next((c for c in inner if c is not None), None)
    if image and _IMAGE.search(image):
        after = next((i + 1 for i, word in enumerate(words) if word == image), 0)
        return _until_end(words[after:])
    return None


def _until_end(words: list[str]) -> list[str]:
    ends = [index for index, word in enumerate(words) if word in _ENDS]
    return words[: ends[0]] if ends else words


def _image_version(image: str) -> str | None:
    match = _IMAGE.search(image)
    return match["version"] if match else None


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return _shell_words(value)
    return [str(word) for word in value] if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    """Return a mapping; compose also writes ``NAME=value`` lists."""
    if isinstance(value, list):
        return dict(str(item).partition("=")[::2] for item in value)
    return value if isinstance(value, dict) else {}


def _role(name: str) -> str | None:
    return next((role for role in ("prefill", "decode") if role in name), None)


def _stamp(notes: Mapping[str, Any]) -> str | None:
    found = notes.get("plan/hash")
    return None if found is None else str(found)
