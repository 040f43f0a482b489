"""The options of a request, as every verb that plans takes them.

Texts go unread to `planner.request.read_request`, which tells every problem by its option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from planner.limits import LIMITS

PLANNING = {
    "ctx": "Length of the document that opens a session: 50K, 1M, 131072.",
    "gpus": "8xA100, 2x8xH100 (nodes x GPUs), a node of the catalog, or a cluster file.",
    "model": "Catalog id, hub id, or a config.json or its directory; left out: chosen for the context.",
    **{limit.field: limit.help for limit in LIMITS},
    "confidence": "With which the quality budget holds [0.8].",
    "objective": "throughput, cost, latency or quality [throughput].",
    "task": "Whose quality priors count: mixed, qa, retrieval, multiturn or reasoning [mixed].",
    "techniques": "deployable, published, none (no compression), or ids separated by commas [deployable].",
    "engine": "any, or an engine of the catalog [any].",
    "weights": "any, or a precision: bf16, fp8, awq4 ... [any].",
    "pin": "Fields of the plan to fix: tp=4,weights=fp8,prefill.pp=2,roles=serve (or prefill+decode).",
    "tolerance": "Show a simpler plan within this of the best; 0%: the strict optimum [1%].",
    "spare": "1: the promise holds with one server, or on one server one replica of each group, away [0].",
    "rounds": "Questions per session [5].",
    "output_tokens": "Of each answer [250].",
    "question_tokens": "Of each question [100].",
    "think_time": "Reading time between answer and question [60s].",
    "shared_prefix_tokens": "Leading tokens that all users share [0].",
    "utilisation": "Planned share of the GPUs' time [0.85].",
    "efficiency": "measured, or peak for the theoretical limit [measured].",
    "usd_per_gpu_hour": "A price of your own: '1.79 USD/h'; left out: the cheapest dated offer.",
    "target": "Plan only what these can run, and write their files with --emit: an engine (vllm, sglang, tensorrt-llm, "
    "lmdeploy, llama.cpp, transformers-kvpress), shell, systemd, compose, kubernetes, kserve or ray; lmcache.",
}
"""Options of a request, as every verb that plans takes them: field -> help. Their texts are read by `Request`."""


def takes_request(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of a request, collected in its parameter ``asked``."""

    @functools.wraps(verb)
    def run(**given: Any) -> None:
        asked = {name: given.pop(name) for name in PLANNING}
        verb(asked=asked, **given)

    own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "asked"]
    request = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{name.replace('_', '-')}", help=text, metavar="X")],
        )
        for name, text in PLANNING.items()
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    run.__signature__ = inspect.Signature(request + own)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in request + own}
    return run
