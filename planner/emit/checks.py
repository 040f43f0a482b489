"""The commands that find out whether a plan is true: load with its workload, quality at its context."""

from __future__ import annotations

import json
import math

from planner.emit.deployment import Deployment
from planner.emit.flags import problems_of_flags
from planner.emit.launch import Flags, Launch, flag_words
from planner.emit.router import client_port
from planner.errors import InputError

BENCH_VERSION = "0.33.0"
_SERVER_PORT = 8000
_COMPRESSING = {"--kv-cache-dtype", "--attention-backend", "--quantization", "--kv-cache-memory-bytes"}
"""vLLM's flags that compress, or that size memory for what is compressed."""
_ALONE: Flags = (("--max-num-seqs", 1),)


def _url(deployment: Deployment) -> str:
    return f"http://localhost:{client_port(deployment, _SERVER_PORT)}"


def load_test_words(deployment: Deployment) -> list[str]:
    """Return ``vllm bench serve`` with the plan's sessions: repeated documents, one question per round.

    Raises
    ------
    InputError
        If the pinned vLLM would refuse one of the flags.
    """
    request, metrics = deployment.request, deployment.metrics
    sessions = max(1, min(metrics.concurrency, math.ceil(metrics.users)))
    flags: Flags = (
        ("--backend", "openai"),
        ("--base-url", _url(deployment)),
        ("--model", deployment.served_name),
        ("--tokenizer", deployment.tokenizer),
        ("--dataset-name", "prefix_repetition"),
        ("--prefix-repetition-prefix-len", request.ctx),
        ("--prefix-repetition-suffix-len", max(1, request.question_tokens)),
        ("--prefix-repetition-num-prefixes", sessions),
        ("--prefix-repetition-output-len", request.output_tokens),
        ("--num-prompts", sessions * request.rounds),
        ("--request-rate", float(f"{metrics.interactions_per_hour / 3600:.6g}") or "inf"),
        ("--ignore-eos", True),
        ("--percentile-metrics", "ttft,tpot,e2el"),
    )
    problems = problems_of_flags(flags, "vllm-bench", BENCH_VERSION)
    if problems:
        raise InputError(problems)
    return ["vllm", "bench", "serve", *flag_words(flags)]


def quality_test_words(deployment: Deployment) -> list[str]:
    """Return lm-evaluation-harness's RULER at the planned context, over the server's API."""
    arguments = {
        "model": deployment.served_name,
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
    kept = tuple(flag for flag in launch.flags if flag[0] not in (*_COMPRESSING, "--max-num-seqs"))
    named = deployment.checkpoint if deployment.weights is None else None  # a quantised one is compression too
    program = [*launch.program[: launch.program_words], named or deployment.model_source]
    alone = _ALONE if launch.engine == "vllm" else ()
    return program + flag_words((*kept, *alone))
