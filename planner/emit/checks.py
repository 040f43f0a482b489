"""The commands that find out whether a plan keeps its quality at its context."""

from __future__ import annotations

import json

from planner.emit.deployment import Deployment
from planner.emit.launch import Flags, Launch, flag_words
from planner.emit.router import client_port

_SERVER_PORT = 8000
_COMPRESSING = {
    "vllm": {
        "--kv-cache-dtype",
        "--attention-backend",
        "--quantization",
        "--kv-cache-memory-bytes",
        "--kv-offloading-backend",
        "--kv-offloading-size",
        "--kv-transfer-config",
        "--max-num-seqs",
        "--max-num-queued-reqs",
    },
    "sglang": {
        "--kv-cache-dtype",
        "--attention-backend",
        "--quantization",
        "--max-total-tokens",
        "--max-running-requests",
        "--max-queued-requests",
        "--enable-hierarchical-cache",
        "--hicache-size",
        "--hicache-write-policy",
        "--hicache-storage-backend",
        "--enable-lmcache",
        "--lmcache-config-file",
    },
}
"""Engine -> flags that compress, that size memory for what is compressed, or that only many sessions need."""
_MODEL = {"--model-path", "--model"}
_PLAIN_KV = ("--kv-cache-dtype", "bfloat16")
_ALONE: dict[str, Flags] = {
    "vllm": (_PLAIN_KV, ("--max-num-seqs", 1)),
    "sglang": (_PLAIN_KV, ("--max-running-requests", 1)),
}


def _url(deployment: Deployment) -> str:
    return f"http://localhost:{client_port(deployment, _SERVER_PORT)}"


def quality_test_words(deployment: Deployment, launch: Launch) -> list[str]:
    """Return lm-evaluation-harness's RULER at the planned context, over the server's API."""
    arguments = {
        "model": launch.api_name or deployment.served_name,
        "base_url": f"{_url(deployment)}/v1/completions",
        "tokenizer": deployment.tokenizer,
        "max_length": deployment.max_model_len,
        "num_concurrent": 1,
    }
    return [
        "lm_eval",
        "--model",
        "local-completions",
        "--model_args",
        json.dumps(arguments),
        "--tasks",
        "ruler",
        "--metadata",
        json.dumps({"max_seq_lengths": [deployment.request.ctx], "tokenizer": deployment.tokenizer}),
    ]


def uncompressed_words(deployment: Deployment, launch: Launch) -> list[str] | None:
    """Return the command line of the same engine without compression, for the comparison.

    None where no single command starts it: pools, several servers, or an engine whose settings are in a file.
    """
    if launch.engine not in _COMPRESSING or deployment.disaggregated or launch.nodes > 1:
        return None
    named = deployment.checkpoint if deployment.weights is None else None  # a quantised one is compression too
    model = named or deployment.model_source
    kept = tuple(
        (name, model if name in _MODEL else value)
        for name, value in launch.flags
        if name not in _COMPRESSING[launch.engine]
    )
    is_word = len(launch.program) > launch.program_words
    program = [*launch.program[: launch.program_words], *([model] if is_word else [])]
    return program + flag_words((*kept, *_ALONE[launch.engine]))
