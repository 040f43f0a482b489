"""Random requests, the same ones for the same seeds, for comparing the solver with the oracle.

Run as a module, it prints for each seed how many decisions the oracle has to price:
``python -m tests.requests 0 100``.
"""

from __future__ import annotations

import math
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from catalog.load import Catalog, open_catalog
from planner.candidates.combinations import affordable, all_combinations, with_weights
from planner.candidates.points import open_search
from planner.candidates.pool_points import all_points
from planner.errors import InputError
from planner.problem import Problem, resolve
from planner.request import Request
from planner.space import Space, open_space

MODELS = (
    *("yi-34b-200k", "llama-3.1-8b", "llama-3.1-70b", "qwen2.5-14b-1m", "qwen2.5-7b-1m", "qwen3-32b", "qwen3-0.6b"),
    *("llama-2-7b", "falcon-7b", "glm-4-9b-1m", "command-r7b-12-2024", "mistral-7b-v0.1", "gemma-3-27b", "gemma-2-9b"),
    *("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "llama-4-scout", "deepseek-v2-lite", "deepseek-v3"),
    *("deepseek-v3.2", "jamba-1.5-mini", "kimi-linear-48b-a3b", "minimax-text-01", "nemotron-h-56b", "phi-3-mini-128k"),
)
"""Every attention kind, dense models and experts, from 0.6 to 671 billion parameters."""

GPUS = ("A100", "A100-40GB", "A100-PCIe-80GB", "H100", "H200", "B200", "L40S", "MI300X", "RTX-4090")
CONTEXTS = (
    4_000,
    8_000,
    16_000,
    32_000,
    50_000,
    64_000,
    128_000,
    200_000,
    256_000,
    500_000,
    1_000_000,
    2_000_000,
    10_000_000,
)


def random_request(seed: int, efficiency: str = "peak") -> Request:
    """The request of a seed; some of them nobody can serve, and some name what doesn't go together."""
    draw = random.Random(seed)
    count = draw.choice((1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8))
    gpu = draw.choice(GPUS)
    objective = draw.choice(("throughput", "throughput", "cost", "latency", "quality"))
    ctx = draw.choice(CONTEXTS)
    wanted = objective in ("latency", "quality") or draw.random() < 0.3
    fields = {
        "ctx": ctx,
        "gpus": f"2x8x{gpu}" if draw.random() < 0.05 else f"{count}x{gpu}",
        "model": draw.choice(MODELS),
        "rounds": draw.choice((1, 2, 5)),
        "output_tokens": draw.choice((1, 100, 250, 1000)),
        "question_tokens": draw.choice((0, 100, 100, 2000)),
        "think_time": draw.choice((0.0, 10.0, 60.0, 300.0)),
        "users": _wide(draw, 1, 300) if wanted else None,
        "shared_prefix_tokens": ctx // draw.choice((2, 4, 100)) if draw.random() < 0.2 else 0,
        "max_latency": _wide(draw, 10, 1000) / 1e3 if draw.random() < 0.35 else None,
        "max_ttft": _wide(draw, 1, 2000) if draw.random() < 0.2 else None,
        "max_warm_ttft": _wide(draw, 200, 60_000) / 1e3 if draw.random() < 0.2 else None,
        "max_switch": _wide(draw, 200, 20_000) / 1e3 if draw.random() < 0.15 else None,
        "max_quality_loss": draw.choice((0.0, 0.01, 0.02, 0.05, 0.05, 0.1, 0.2)),
        "confidence": draw.choice((0.5, 0.8, 0.8, 0.95)),
        "task": draw.choice(("mixed", "mixed", "qa", "retrieval", "multiturn", "reasoning")),
        "objective": objective,
        "techniques": draw.choice(("deployable", "published", "published")),
        "weights": draw.choice(("any", "any", "any", "bf16")),
        "engine": draw.choice(("any", "any", "any", "any", "vllm", "sglang", "transformers-kvpress")),
        "max_power": round(draw.uniform(0.3, 1.2) * count * 400.0) if draw.random() < 0.1 else None,
    }
    return Request.model_validate({"efficiency": efficiency, **fields})


TECHNIQUES = ("none", "kv_fp8", "kv_fp8,kv_int8_pth", "kv_int4_pth,snapkv_4096", "snapkv_1024", "w_awq4,kv_fp8")
PINS = (
    *("tp=1", "tp=2", "tp=3,replicas=1", "pp=2", "roles=serve", "roles=prefill+decode", "prefill.tp=2,decode.tp=1"),
    *("decode_sequences=8", "resident_sessions=3", "prefill_chunk_tokens=2K", "prefill_throttled=true"),
    *("policy=none", "policy=swap,tier=nvme", "policy=recompute", "engine=vllm,tp=2", "hidden=none", "replicas=2"),
)
TARGETS = ("vllm", "sglang", "llama.cpp", "compose", "kubernetes", "vllm,compose", "shell", "kserve", "ray", "lmcache")
CLUSTERS = tuple(sorted((Path(__file__).parent / "clusters").glob("*.yaml")))


def any_request(seed: int) -> Request:
    """The request of a seed, of those that use every field of a request; `random_request` draws the numbers."""
    draw = random.Random(f"every field {seed}")
    now = random_request(seed, draw.choice(("peak", "measured", "measured")))
    gpus = now.gpus
    name = gpus.rpartition("x")[2]
    if draw.random() < 0.35:
        counts = (*(f"{count}x" for count in range(1, 13)), "3x8x", "2x8x", "2x4x", "")
        gpus = f"{draw.choice(counts)}{name}"
    elif draw.random() < 0.06:
        gpus = str(draw.choice(CLUSTERS))

    def seldom(field: str, share: float, values: Any) -> None:
        if draw.random() < share:
            fields[field] = draw.choice(values)

    fields: dict[str, Any] = {"gpus": gpus}
    seldom("model", 0.2, (None,))
    seldom("rounds", 0.2, (1, 3, 4, 20))
    seldom("utilisation", 0.2, (0.3, 0.7, 1.0))
    seldom("techniques", 0.25, TECHNIQUES)
    seldom("weights", 0.3, ("fp8", "awq4", "gptq4", "int8_w8a8", "native", "bf16"))
    seldom("engine", 0.1, ("llama.cpp", "tensorrt-llm"))
    seldom("pin", 0.2, PINS)
    seldom("tolerance", 0.3, (0.0, 0.001, 0.05, 0.2))
    seldom("spare", 0.15, (1,))
    seldom("usd_per_gpu_hour", 0.2, (0.5, 2.0, 12.0))
    seldom("target", 0.15, TARGETS)
    return Request.model_validate({**now.model_dump(), **fields})


def spare_request(seed: int) -> Request:
    """The request of a seed of those with every field, with replicas in reserve, often on several servers."""
    request, draw = any_request(seed), random.Random(f"spare {seed}")
    name = request.gpus.rpartition("x")[2]
    gpus = request.gpus
    if draw.random() < 0.5 and not name.endswith(".yaml"):
        gpus = f"{draw.choice(('2x2x', '2x4x', '3x4x', '2x8x', '9x', '12x', '2x3x', '3x6x'))}{name}"
    return Request.model_validate({**request.model_dump(), "gpus": gpus, "spare": 1})


def _wide(draw: random.Random, least: float, most: float) -> int:
    """A whole number, as likely between 1 and 10 as between 10 and 100."""
    return round(math.exp(draw.uniform(math.log(least), math.log(most))))


def typed(request: Request) -> str:
    """The command that asks for a request."""
    left = request.model_dump(exclude_defaults=True)
    words = []
    for name, value in left.items():
        text = f"{value!r} USD/h" if name == "usd_per_gpu_hour" else value
        if name.startswith("max_") or name == "think_time":
            unit = {"max_quality_loss": "%", "max_power": "W"}.get(name, "s")
            text = f"{value * (100 if unit == '%' else 1):.12g}{unit}"
        elif name == "tolerance":
            text = f"{value:.12%}"
        words += [f"--{name.replace('_', '-')}", shlex.quote(str(text))]
    return " ".join(["plan", *words])


def opened(request: Request, catalog: Catalog) -> tuple[Problem, Space] | None:
    """The request's problem and space; None where it names what doesn't go together."""
    try:
        problem = resolve(request, catalog)
        return problem, open_space(problem)
    except InputError:
        return None


def count_decisions(problem: Problem, space: Space) -> int:
    """Decisions that the oracle prices."""
    space = affordable(problem, space)
    search = open_search(problem, space)
    owner = search.weights_of(all_points(search))
    found = all_combinations(problem, space)
    return sum(
        int(np.count_nonzero(owner == w)) * len(with_weights(problem, space, found, weights))
        for w, weights in enumerate(space.weights)
    )


def main() -> None:
    """Print seeds with their numbers of decisions."""
    catalog = open_catalog()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        found = opened(random_request(seed), catalog)
        if found is not None:
            print(seed, count_decisions(*found), flush=True)


if __name__ == "__main__":
    main()
