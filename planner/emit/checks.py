"""The commands that find out whether a plan keeps its quality at its context."""

from __future__ import annotations

import json

from planner.emit.deployment import Deployment
from planner.emit.launch import Flags, Launch, flag_words
from planner.emit.router import client_port

_SERVER_PORT = 8000
_COMPRESSING = {"--kv-cache-dtype", "--attention-backend", "--quantization", "--kv-cache-memory-bytes"}
"""vLLM's flags that compress, or that size memory for what is compressed."""
_ALONE: Flags = (("--max-num-seqs", 1),)


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


def uncompressed_words(deployment: Deployment, launch: Launch) -> list[str]:
    """Return the command line of the same engine without compression, for the comparison."""
    named = deployment.checkpoint if deployment.weights is None else None  # a quantised one is compression too
    source = named or deployment.model_source
    kept = tuple(
        (name, source if name == "--model-path" else value)
        for name, value in launch.flags
        if name not in (*_COMPRESSING, "--max-num-seqs")
    )
    by_flag = any(name in ("--model-path", "--model") for name, _ in launch.flags)
    program = [*launch.program[: launch.program_words], *([] if by_flag else [source])]
    alone = _ALONE if launch.engine == "vllm" else ()
    return program + flag_words((*kept, *alone))
