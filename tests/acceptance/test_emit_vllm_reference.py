"""The official vLLM, with a pretended GPU: it takes what is emitted, and plans caches as the planner predicts.

Slow (some minutes of processor time), and it needs an environment of 9 GB: docs/deploy.md says how to make it.

    PLAN_VLLM_CUDA=/path/to/environment pytest -m slow tests/acceptance/test_emit_vllm_reference.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner.emit.capacity import reserve
from planner.emit.deployment import read_deployment
from planner.emit.engines import vllm
from planner.plan import Document
from scripts.engine_reference.ask import ask
from scripts.engine_reference.questions import differences, of_launch, of_record

ENVIRONMENT = os.environ.get("PLAN_VLLM_CUDA")
GOLDEN = Path(__file__).parents[1] / "golden"
PLANS = sorted((GOLDEN / "emit" / "plans").glob("*.json"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_VLLM_CUDA names no environment with vllm (docs/deploy.md)"),
]


def asked(questions: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    return list(ask(Path(str(ENVIRONMENT)), questions, place, place / "log"))


def test_vllm_takes_every_emitted_command_and_holds_the_planned_sessions(tmp_path: Path) -> None:
    catalog = open_catalog()
    cases = []
    for path in PLANS:
        document = Document.model_validate_json(path.read_text())
        if document.decision is None or document.decision.engine != "vllm":
            continue
        deployment = read_deployment(document, catalog)
        cases += [(path.stem, deployment, launch) for launch in vllm.launches(deployment, deployment.engine.version)]
    answers = asked([of_launch(deployment, launch) for _, deployment, launch in cases], tmp_path)
    assert len(answers) == len(cases)
    for (name, deployment, launch), said in zip(cases, answers, strict=True):
        assert said["accepted"], (name, said)
        assert said["max_model_len"] == deployment.max_model_len
        assert said["max_num_batched_tokens"] == launch.batched_tokens
        held = reserve(deployment, launch.pool, launch.batched_tokens)
        if held is None or held.capacity is None:
            continue
        if held.exact:
            assert (said["blocks"], said["tokens"]) == (held.capacity.blocks, held.capacity.tokens), name
        assert said["concurrency"] >= held.capacity.concurrency - 1e-4, name


def test_vllm_plans_caches_as_recorded(tmp_path: Path) -> None:
    catalog = open_catalog()
    records: dict[str, dict[str, Any]] = {}
    for line in (GOLDEN / "vllm_kv_plans.jsonl").read_text().splitlines():
        record = json.loads(line)
        if not record["aligned"]:
            records.setdefault(record["model"], record)
    assert len(records) >= 10
    answers = asked([of_record(record, catalog) for record in records.values()], tmp_path)
    wrong = {
        record["model"]: found
        for record, said in zip(records.values(), answers, strict=True)
        if (found := list(differences(record, said)))
    }
    assert wrong == {}
