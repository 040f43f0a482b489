"""The official vLLM, with a pretended GPU, does with models what the catalog's rules say.

Slow, and it needs the engines' environment (docs/deploy.md):

    PLAN_ENGINES=/path/to/environment pytest -m slow tests/acceptance/test_engine_rules_reference.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catalog.load import Catalog, built_in_directory
from catalog.schema import Engine
from planner.problem import resolve
from planner.request import read_request
from planner.space import runs
from scripts.engine_reference.ask import ask

ENVIRONMENT = os.environ.get("PLAN_ENGINES")
FACTS = Catalog([built_in_directory()])
A100 = {"capability": [8, 0], "name": "NVIDIA A100-SXM4-80GB", "memory_bytes": 80 << 30, "count": 8}
H100 = {
    "capability": [9, 0],
    "name": "NVIDIA H100 80GB HBM3",
    "memory_bytes": 80 << 30,
    "count": 8,
    "multiprocessors": 132,
    "shared_memory_bytes": 227 << 10,
}
GPUS = {"64xA100": A100, "64xH100": H100}
PLAIN, FP8 = "bfloat16", "fp8_e4m3"
CASES = [
    *((model, gpus, PLAIN) for model in ("llama-3.1-8b", "gpt-oss-20b", "gemma-4-31b", "gemma-3-12b") for gpus in GPUS),
    *(
        (model, gpus, PLAIN)
        for model in ("mimo-v2-flash", "deepseek-v2-lite", "glm-5.2", "minimax-m3")
        for gpus in GPUS
    ),
    *((model, "64xA100", PLAIN) for model in ("seed-oss-36b", "minimax-text-01", "qwen2.5-14b-1m")),
    *((model, "64xA100", FP8) for model in ("llama-3.1-8b", "gpt-oss-20b", "gemma-4-31b", "mimo-v2-flash")),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_ENGINES names no environment with the engines"),
]


def question(model: str, gpus: str, option: str) -> tuple[dict[str, Any], bool, str | None]:
    """Return what to ask, whether the rules let it through, and the kernels that they name."""
    vllm = FACTS.get(Engine, "vllm")
    request = {"model": model, "gpus": gpus, "ctx": "32K", "engine": "vllm"}
    problem = resolve(read_request(request, "test"), FACTS)
    run = runs(problem, vllm)
    matching = [f for f in vllm.kv_formats if f.option == option]
    fitting = [f for f in matching if not run.misfits(f, problem)]
    backend = run.backend_of(fitting[0]) if fitting else None
    word = run.kv_cache_dtype if option == PLAIN and run.kv_cache_dtype else option
    arguments = ["--tensor-parallel-size", "8", "--max-model-len", "33750", "--kv-cache-dtype", word]
    arguments += ["--dtype", "bfloat16", "--max-num-seqs", "4"]
    if option != PLAIN:
        arguments += ["--attention-backend", matching[0].backend.get(run.compute_capability, "FLASHINFER")]
    if run.overrides:
        arguments += ["--hf-overrides", json.dumps(run.overrides)]
    asked = {
        "name": f"{model} {gpus} {option}",
        "gpu": GPUS[gpus],
        "config": dict(problem.config),
        "words": ["vllm", "serve", model, *arguments],
        "environment": dict(run.environment or {}),
        "available_bytes": 40 << 30,
    }
    return asked, not run.refusals and bool(fitting), backend


def test_vllm_does_what_its_rules_say(tmp_path: Path) -> None:
    told = [question(*case) for case in CASES]
    wrong = []
    for (asked, runs_it, backend), said in zip(
        told, ask(Path(str(ENVIRONMENT)), "vllm", [row[0] for row in told], tmp_path), strict=True
    ):
        if said["accepted"] != runs_it:
            wrong.append(f"{asked['name']}: the rules say {runs_it}, vLLM {said}")
        elif runs_it and backend is not None and backend not in said["backends"]:
            wrong.append(f"{asked['name']}: the rules say {backend}, vLLM {said['backends']}")
    assert not wrong, "\n".join(wrong)
