"""What of a running vLLM server's command the planned one keeps, and what becomes of the rest.

Whoever calls the server must find it as it was: name, port, key, chat template, parsers, window. What the plan
decides replaces the flag; a flag that changes memory or speed in a way that nobody priced is dropped, and said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planner.emit.deployment import Deployment
from planner.emit.flags import snapshot
from planner.emit.launch import Flags, Launch, Value
from planner.emit.quoting import code
from planner.emit.router import is_routed
from planner.emit.running import Running

ENGINE = "vllm"
SECRETS = {"--api-key": "VLLM_API_KEY", "--hf-token": "HF_TOKEN"}
"""Flags that hold a secret -> the environment variable that the engine reads in their place."""
_ELSEWHERE = {
    "--headless": "the files of the plan start the servers of an instance",
    "--config": "its settings are flags here",
    "--api-server-count": "the plan decides it",
    "--data-parallel-supervisor-port": "the files of the plan start every rank",
    "--dp-supervisor-probe-failure-threshold": "the files of the plan start every rank",
    "--dp-supervisor-probe-interval-s": "the files of the plan start every rank",
    "--dp-supervisor-probe-timeout-s": "the files of the plan start every rank",
    "--enable-scale-out": "the plan decides the number of instances",
    "--uds": "the files of the plan find servers by their ports",
    "--grpc": "the files of the plan speak HTTP",
    "--grpc-port": "the files of the plan speak HTTP",
    **dict.fromkeys(
        (
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-certfile",
            "--ssl-ciphers",
            "--ssl-keyfile",
            "--enable-ssl-refresh",
        ),
        "probes and routers of the plan speak plain HTTP; put TLS before them",
    ),
    "--download-dir": "the files of the plan say where models are kept",
}
"""Flags that the files of a plan take the place of."""
_ANSWERS = frozenset(
    {
        "--tokenizer",
        "--tokenizer-mode",
        "--tokenizer-revision",
        "--trust-remote-code",
        "--seed",
        "--generation-config",
        "--override-generation-config",
        "--limit-mm-per-prompt",
        "--allowed-local-media-path",
        "--allowed-media-domains",
        "--media-io-kwargs",
        "--mm-processor-kwargs",
        "--interleave-mm-strings",
        "--max-logprobs",
        "--logprobs-mode",
        "--logits-processors",
        "--reasoning-parser",
        "--reasoning-parser-plugin",
        "--reasoning-config",
        "--structured-outputs-config",
        "--config-format",
        "--model-impl",
        "--runner",
        "--convert",
        "--io-processor-plugin",
        "--pooler-config",
        "--enable-prompt-embeds",
        "--language-model-only",
        "--scheduling-policy",
        "--stream-interval",
        "--enable-return-routed-experts",
        "--return-sampling-mask",
        "--watchdog-config",
        "--otlp-traces-endpoint",
        "--collect-detailed-traces",
        "--show-hidden-metrics-for-version",
        "--disable-log-stats",
        "--enable-log-requests",
        "--kv-cache-metrics",
        "--kv-cache-metrics-sample",
        "--kv-events-config",
        "--enable-mfu-metrics",
        "--aggregate-engine-logging",
        "--logging-config",
        "--log-level",
        "--log-config-file",
    }
)
"""Arguments of the engine that say how answers are made and reported, at no cost that a plan counts."""
_ADAPTERS = frozenset(
    {
        "--enable-lora",
        "--max-loras",
        "--max-lora-rank",
        "--max-cpu-loras",
        "--lora-dtype",
        "--fully-sharded-loras",
        "--lora-target-modules",
        "--default-mm-loras",
    }
)
_OF_CHECKPOINT = frozenset(
    {
        "--revision",
        "--code-revision",
        "--load-format",
        "--model-loader-extra-config",
        "--ignore-patterns",
        "--hf-config-path",
    }
)
"""Which files of the checkpoint are loaded: kept with the checkpoint, senseless for another."""
_DECIDED = frozenset(
    {
        "--attention-backend",
        "--block-size",
        "--cpu-offload-gb",
        "--data-parallel-size",
        "--data-parallel-size-local",
        "--decode-context-parallel-size",
        "--distributed-executor-backend",
        "--enable-chunked-prefill",
        "--enable-expert-parallel",
        "--enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization",
        "--hf-overrides",
        "--kv-cache-dtype",
        "--kv-cache-memory-bytes",
        "--kv-offloading-backend",
        "--kv-offloading-size",
        "--kv-transfer-config",
        "--long-prefill-token-threshold",
        "--master-addr",
        "--max-model-len",
        "--max-num-batched-tokens",
        "--max-num-queued-reqs",
        "--max-num-seqs",
        "--nnodes",
        "--node-rank",
        "--num-gpu-blocks-override",
        "--pipeline-parallel-size",
        "--prefill-context-parallel-size",
        "--quantization",
        "--tensor-parallel-size",
    }
)
_FILES = frozenset(
    {
        "--chat-template",
        "--tool-parser-plugin",
        "--reasoning-parser-plugin",
        "--log-config-file",
    }
)
_MOST_SHOWN = 120
_PLACED = frozenset({"--served-model-name", "--port", "--host", "--max-model-len", "--hf-overrides", "--rope-scaling"})


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one flag of the running command."""

    flag: str
    now: str
    verdict: Literal["kept", "replaced", "dropped"]
    planned: str | None
    """Where it is replaced, by what."""
    reason: str


def with_kept(deployment: Deployment, flags: Flags, version: str, model: str) -> Flags:
    """Return a plan's flags of vLLM with what is kept of the server that it takes the place of, if of any.

    Parameters
    ----------
    deployment
        The plan.
    flags
        Its flags.
    version
        Of vLLM.
    model
        What it loads.
    """
    running = deployment.running
    if running is None:
        return flags
    found: dict[str, Value] = dict(flags)
    if len(running.served_names) > 1:
        found["--served-model-name"] = running.served_names
    if "--host" in running.flags and not is_routed(deployment):
        found["--host"] = running.flags["--host"]
    _keep_window(found, deployment.window_tokens, running)
    for name, value in running.flags.items():
        if name in found or name in _PLACED or _why_not(name, value, version, model == running.model) is not None:
            continue
        spelled = _spelled(name, value, version)
        if spelled is not None:
            found[spelled[0]] = spelled[1]
    return tuple(found.items())


def _keep_window(found: dict[str, Value], window_tokens: int, running: Running) -> None:
    """Write the window; scaled positions stay with the window that they are for."""
    found["--max-model-len"] = window_tokens
    overrides = running.flags.get("--hf-overrides")
    if overrides is not None and window_tokens == running.window_tokens:
        found["--hf-overrides"] = overrides if isinstance(overrides, str) else json.dumps(overrides)


def fates(deployment: Deployment, launches: Sequence[Launch]) -> tuple[Fate, ...]:
    """Return what becomes of every flag of the server that a deployment takes the place of, those that stay first."""
    running = deployment.running
    if running is None:
        return ()
    rows = [_fate(deployment, running, launches, name, value) for name, value in running.flags.items()]
    rows += [Fate(text, "", "dropped", None, reason) for text, reason in running.unread]
    order = ("kept", "replaced", "dropped")
    return tuple(sorted(rows, key=lambda row: (order.index(row.verdict), row.flag)))


def _fate(deployment: Deployment, running: Running, launches: Sequence[Launch], name: str, value: Any) -> Fate:
    launch = launches[-1]
    now = _shown(value)
    if name in SECRETS:
        variable = SECRETS[name]
        return Fate(name, "(secret)", "kept", None, f"by {variable} in the environment or a Secret, never written here")
    if name in ("--port", "--host") and is_routed(deployment):
        return Fate(name, now, "kept", None, "by the router, for clients")
    if name == "--port" and launch.is_server:
        return Fate(name, now, "kept", None, "")
    if launch.engine != ENGINE:
        return Fate(name, now, "dropped", None, f"a flag of vLLM; the plan is for {launch.engine}")
    spelled = _spelled(name, value, launch.version)
    planned = dict(launch.flags).get(spelled[0] if spelled else name)
    planned = dict(launch.flags).get(name) if planned is None else planned
    if spelled is not None and planned is not None and _shown(planned) == _shown(spelled[1]):
        return Fate(name, now, "kept", None, _condition(name))
    if planned is not None:
        return Fate(name, now, "replaced", _shown(planned), _why_replaced(name, running, planned))
    why = _why_not(name, value, launch.version, launch.model == running.model)
    return Fate(name, now, "dropped", None, why or "the plan decides it")


def _why_replaced(name: str, running: Running, planned: Value) -> str:
    if name == "--max-model-len" and isinstance(planned, int) and planned < running.window_tokens:
        return "LOWERED: one request of the present window doesn't fit in the plan's KV memory"
    return "the plan decides it"


def _condition(name: str) -> str:
    if name == "--host":
        return "containers listen on all of their addresses"
    if name in _FILES:
        return "if it names a file, the file must be there: mount it"
    return "adapters take memory that the plan doesn't count" if name in _ADAPTERS else ""


def _why_not(name: str, value: Any, version: str, same_checkpoint: bool) -> str | None:
    """Say why a flag that the plan doesn't give isn't kept; None: it is."""
    if name in SECRETS:
        return "a secret"
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    record = snapshot(ENGINE, version)["flags"].get(name)
    if record is None:
        return f"vLLM {version} has no such flag"
    if _spelled(name, value, version) is None:
        return "already so where it isn't given"
    if name in _OF_CHECKPOINT:
        return None if same_checkpoint else "it speaks of the checkpoint that runs; the plan loads another"
    if name in _ANSWERS or name in _ADAPTERS or not _is_engines(name, version):
        return None
    if name in _DECIDED:
        return "the plan decides it"
    return "it changes memory or speed in a way that isn't priced; add it by hand to keep it"


def _is_engines(name: str, version: str) -> bool:
    """Whether a flag is an argument of the engine; the others are those of the API in front of it."""
    fields = snapshot(ENGINE, version)["tables"]["EngineArgs"]
    field = name.removeprefix("--").replace("-", "_")
    return field in fields or f"enable_{field.removeprefix('disable_')}" in fields


def _spelled(name: str, value: Any, version: str) -> tuple[str, Value] | None:
    """Return a flag as a command line has it; None for a switch that is off and has no opposite."""
    if isinstance(value, bool):
        if value:
            return name, True
        record = snapshot(ENGINE, version)["flags"].get(name, {"names": []})
        opposite = next((n for n in record["names"] if n != name and n.startswith(("--no-", "--disable-"))), None)
        return None if opposite is None else (opposite, True)
    if isinstance(value, list | tuple):
        return name, tuple(map(str, value))
    return name, json.dumps(value) if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def section(rows: Sequence[Fate]) -> str:
    """Return the part of an operator's page that says what became of the running server's flags."""
    if not rows:
        return ""
    lines = ["", "## What becomes of the running server's flags", "", "| flag | now | what | planned | why |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        cells = (row.flag, row.now, row.verdict, row.planned or "", row.reason)
        lines.append(f"| {' | '.join(_cell(cell) if i in (0, 1, 3) else cell for i, cell in enumerate(cells))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return text as code in a table; a long value is cut, since the command itself has it whole."""
    shown = text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."
    return code(shown).replace("|", "\\|") if shown else ""
