"""Starts with a name: the main command, the defaults of the catalog, and what failed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catalog.load import Catalog
from catalog.schema import Model
from planner.errors import InputError
from planner.pipeline import make_plan
from planner.request import read_request
from scripts.engine_reference.cases import Case, simple_case

GPUS = {"8.0": "A100", "9.0": "H100"}
"""Compute capability -> the GPU that is tried."""
GROWTH = 5 * (100 + 250)
"""Of a session with the usual rounds, which the model's window holds, too [tokens]."""
SERVERS = ("vllm", "sglang")
"""Engines of a default that names none."""
MAIN: dict[str, Any] = {"ctx": "1M", "max_latency": "200ms"}
PLANNED: dict[str, dict[str, dict[str, Any]]] = {
    "vllm": {
        "plan --ctx 1M --gpus 8xA100 --max-latency 200ms --engine vllm": {**MAIN, "gpus": "8xA100"},
        "plan --ctx 1M --gpus 8xH100 --max-latency 200ms --engine vllm": {**MAIN, "gpus": "8xH100"},
        "experts over the ranks of two servers": {
            "model": "deepseek-v3",
            "ctx": "100K",
            "gpus": "2x8xH100",
            "max_latency": "100ms",
            "max_ttft": "30s",
        },
    },
    "sglang": {
        "plan --ctx 1M --gpus 8xA100 --max-latency 200ms --engine sglang": {**MAIN, "gpus": "8xA100"},
        "plan --ctx 1M --gpus 8xH100 --max-latency 200ms --engine sglang": {**MAIN, "gpus": "8xH100"},
        "two pools, 100K on 8xH100": {"model": "llama-3.1-70b", "ctx": "100K", "gpus": "8xH100"},
    },
}
"""Requests whose plans are started; their decisions are recorded with them."""


SIDE_BY_SIDE: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    engine: {
        "eight GPUs and one side by side, 32K on 9xH100": (
            {"model": "llama-3.1-8b", "ctx": "32K", "gpus": "9xH100"},
            {
                "groups": [
                    {"id": "a", "engine": engine, "parallel": {"tp": 8}, "batch": {"decode_sequences": 16}},
                    {"id": "b", "engine": engine, "parallel": {"tp": 1}, "batch": {"decode_sequences": 4}},
                ]
            },
        )
    }
    for engine in SERVERS
}
"""Requests and decisions of several kinds of replicas."""


def named_cases(engine: str, catalog: Catalog) -> Iterator[Case]:
    """Yield the planned cases of an engine, those of several kinds, and the catalog's defaults on it."""
    yield from _defaults(engine, catalog)
    yield from side_by_side(engine)
    for name, request in PLANNED.get(engine, {}).items():
        asked = {**request, "engine": engine}
        try:
            document = make_plan(read_request(asked), catalog=catalog)
        except InputError as error:
            yield Case(name, {}, asked, None, [engine], str(error))
            continue
        service = document.service
        if service is None:
            yield Case(name, {}, asked, None, [engine], "no plan keeps the limits")
            continue
        # What was chosen with it: a default model may become another one.
        asked["model"] = document.request["model"]
        yield Case(name, {}, asked, service.model_dump(mode="json", exclude_none=True), [engine])


def side_by_side(engine: str) -> Iterator[Case]:
    """Yield the cases of several kinds of replicas on an engine."""
    for name, (request, decision) in SIDE_BY_SIDE.get(engine, {}).items():
        yield Case(name, {}, request, decision, [engine])


def _defaults(engine: str, catalog: Catalog) -> Iterator[Case]:
    """Yield each default of the catalog at its longest context, on each GPU that it is for."""
    for model in catalog.all(Model):
        for default in model.default_for:
            if engine not in (default.engines or SERVERS):
                continue
            for capability, gpu in GPUS.items():
                if capability in (default.compute_capabilities or GPUS):
                    name = f"default {model.id} up to {default.context_tokens} on {engine} and {gpu}"
                    yield simple_case(name, engine, model.id, default.context_tokens - GROWTH, gpu, catalog)
