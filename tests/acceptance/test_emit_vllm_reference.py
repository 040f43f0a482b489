"""The official vLLM, with a pretended GPU, plans caches as was recorded.

Slow, and it needs the engines' environment (docs/deploy.md):

    PLAN_ENGINES=/path/to/environment pytest -m slow tests/acceptance/test_emit_vllm_reference.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from scripts.engine_reference.ask import ask
from scripts.engine_reference.questions import differences, of_record, of_starts

ENVIRONMENT = os.environ.get("PLAN_ENGINES")
GOLDEN = Path(__file__).parents[1] / "golden"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_ENGINES names no environment with the engines"),
]


def asked(questions: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    return list(ask(Path(str(ENVIRONMENT)), "vllm", questions, place))


def test_vllm_plans_caches_as_recorded(tmp_path: Path) -> None:
    catalog = open_catalog()
    records: dict[str, Mapping[str, Any]] = {}
    for record in of_starts(map(json.loads, (GOLDEN / "vllm_kv_plans.jsonl").read_text().splitlines())):
        records.setdefault(record["model"], record)
    assert len(records) >= 10
    answers = asked([of_record(record, catalog) for record in records.values()], tmp_path)
    wrong = {
        record["model"]: found
        for record, said in zip(records.values(), answers, strict=True)
        if (found := list(differences(record, said)))
    }
    assert wrong == {}
