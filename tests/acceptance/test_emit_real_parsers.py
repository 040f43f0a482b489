"""The engines' own parsers take what is emitted, and refuse it mutated. vLLM's is in test_emit_vllm_reference.

Slow (each engine takes seconds to import), and it needs an environment with the engines: docs/deploy.md.

    PLAN_VLLM_CUDA=/path/to/environment pytest -m slow tests/acceptance/test_emit_real_parsers.py
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.load import open_catalog
from planner.emit import emit
from planner.emit.deployment import read_deployment
from planner.emit.emit import ENGINES
from planner.emit.launch import CONFIG_DIRECTORY
from planner.emit.router import router_words
from planner.plan import Document
from scripts.engine_reference import real_parsers
from scripts.engine_reference.stub import driver_stub

ENVIRONMENT = os.environ.get("PLAN_VLLM_CUDA")
PLANS = sorted((Path(__file__).parents[1] / "golden" / "emit" / "plans").glob("*.json"))
Question = dict[str, Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_VLLM_CUDA names no environment with engines (docs/deploy.md)"),
]


@cache
def documents() -> dict[str, Document]:
    return {path.stem: Document.model_validate_json(path.read_text()) for path in PLANS}


def of_engine(engine: str) -> list[Question]:
    """Return what the golden plans of an engine start it with, without the words that start the program."""
    found = []
    for document in documents().values():
        if document.decision is None or document.decision.engine != engine:
            continue
        deployment = read_deployment(document, open_catalog())
        for launch in ENGINES[engine](deployment, deployment.engine.version):
            words = launch.arguments(CONFIG_DIRECTORY)
            skipped = 1 if engine == "lmdeploy" else launch.program_words  # lmdeploy's parser takes its verbs too
            found.append({"engine": engine, "words": [w.replace("{models}", "/models") for w in words[skipped:]]})
    return found


def of_router(name: str, plan: str) -> list[Question]:
    deployment = read_deployment(documents()[plan], open_catalog())
    hosts = {pool.role: [f"http://10.0.0.{i}:8000" for i in range(2)] for pool in deployment.pools}
    words = router_words(deployment, hosts)
    return [{"engine": name, "words": words[1 if name == "vllm-router" else 3 :]}]


def questions(engine: str) -> list[Question]:
    catalog = open_catalog()
    if engine in ("sglang", "lmdeploy"):
        return of_engine(engine)
    if engine == "vllm-router":
        return of_router(engine, "llama8b-int8") + of_router(engine, "llama8b-split")
    if engine == "sglang-router":
        return of_router(engine, "sglang-split")
    if engine == "lmcache":
        files = [emit(documents()[name], "vllm,lmcache", catalog) for name in ("llama70b-swap", "llama70b-swap-nvme")]
        return [{"engine": engine, "settings": yaml.safe_load(f["vllm/lmcache.yaml"])} for f in files]
    text = emit(documents()["llama8b-int8"], "ray", catalog)["ray/application.yaml"]
    (application,) = yaml.safe_load(text)["applications"]
    return [{"engine": "ray", "settings": config} for config in application["args"]["llm_configs"]]


def mutated(question: Question) -> Question:
    if "settings" in question:
        (name, value), *others = question["settings"].items()
        return {**question, "settings": {f"{name}x": value, **dict(others)}}
    return {**question, "words": [f"{word}-x" if word.startswith("--") else word for word in question["words"]]}


@pytest.mark.parametrize("engine", sorted(real_parsers.PARSERS))
def test_the_engine_takes_what_is_emitted_and_not_what_is_mutated(engine: str, tmp_path: Path) -> None:
    good = questions(engine)
    assert good
    asked = [*good, mutated(good[0])]
    environment = Path(str(ENVIRONMENT))
    done = subprocess.run(
        [environment / "bin" / "python", real_parsers.__file__],
        input="".join(json.dumps(question) + "\n" for question in asked),
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LD_LIBRARY_PATH": str(driver_stub(environment, tmp_path / "stub")),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line.removeprefix("ANSWER ")) for line in done.stdout.splitlines() if "ANSWER " in line]
    assert len(answers) == len(asked), done.stderr[-3000:]
    for question, answer in zip(good, answers, strict=False):
        assert answer["accepted"], (question, answer)
    assert not answers[-1]["accepted"]
