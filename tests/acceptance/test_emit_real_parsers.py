"""What runs beside the engines takes what is emitted, and refuses it mutated: LMDeploy, LMCache, Ray, routers.

Slow, and it needs the engines' environment (docs/deploy.md):

    PLAN_ENGINES=/path/to/environment pytest -m slow tests/acceptance/test_emit_real_parsers.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from scripts.engine_reference.ask import ask
from scripts.engine_reference.questions import gpu
from scripts.engine_reference.record import recorded_cases

ENVIRONMENT = os.environ.get("PLAN_ENGINES")
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_ENGINES names no environment with the engines"),
]


def programs() -> dict[str, dict[str, Any]]:
    """Return a start of each program that the record has."""
    found = {}
    for engine in ("vllm", "sglang", "lmdeploy"):
        for _, starts in recorded_cases(engine):
            for start in starts:
                if "answer" in start:
                    found.setdefault(start.get("program", engine), start)
    wanted = ("lmcache", "ray", "vllm-router", "sglang-router", "lmdeploy")
    return {name: found[name] for name in wanted}


def mutated(start: dict[str, Any]) -> dict[str, Any]:
    if "settings" in start:
        (name, value), *others = start["settings"].items()
        return {**start, "settings": {f"{name}x": value, **dict(others)}}
    return {**start, "words": [f"{word}-x" if word.startswith("--") else word for word in start["words"]]}


def test_programs_take_what_is_emitted_and_not_what_is_mutated(tmp_path: Path) -> None:
    starts = programs()
    common = {"gpu": gpu("8.0"), "config": CONFIG, "environment": {}}
    asked = [
        {**common, **start, "name": name, "program": name, "answer": None}
        for name, good in starts.items()
        for start in (good, mutated(good))
    ]
    answers = list(ask(Path(str(ENVIRONMENT)), "others", asked, tmp_path))
    taken = [(answer["name"], answer["accepted"]) for answer in answers]
    assert taken == [(name, is_good) for name in starts for is_good in (True, False)]
