"""`plan verify`: anyone's plan, priced again; every broken limit and every false number is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[..., Any]

ASKED = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "1xA100", "--efficiency", "peak")


@pytest.fixture
def document(plan: Plan) -> Any:
    return plan("evaluate", *ASKED, "--format", "json").json


def test_a_true_document_passes_also_from_stdin(plan: Plan, document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(document)))
    output = plan("verify", "-")
    assert (output.code, output.stderr) == (0, "")
    assert output.stdout.startswith("verified: 4 limits hold")


def test_every_false_number_and_broken_limit_is_told(plan: Plan, document: Any, tmp_path: Path) -> None:
    document["metrics"]["users"] += 1
    document["metrics"]["groups"][0]["hbm_bytes_per_gpu"]["kv"] *= 0.5
    document["request"]["max_latency"] = 0.001
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    output = plan("verify", file)
    assert (output.code, output.stdout) == (2, "")
    for part in (
        "metrics.users: the plan says",
        "metrics.groups.0.hbm_bytes_per_gpu.kv",
        "itl_full_s: ",
        "above the limit 0.001",
    ):
        assert part in output.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"engine": "vllm"}', "isn't a plan; give what `plan --format json` or `plan -o FILE` wrote"),
        ('{"schema_version": 99}', "has schema version 99; this program reads 1 and 2"),
        ('{"schema_version": 1}', "status: missing; add it"),
        ('{"schema_version": 2}', "status: missing; add it"),
        ("", "holds no 'field: value' lines"),
        ("[1]", "holds no 'field: value' lines"),
        ("{", "plan.json: "),
    ],
)
def test_what_is_no_plan_is_refused(plan: Plan, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text, encoding="utf-8")
    output = plan("verify", file)
    assert (output.code, output.stdout) == (2, "")
    assert told in output.stderr
    assert "Traceback" not in output.stderr


def test_a_request_that_is_no_request_is_refused(plan: Plan, document: Any, tmp_path: Path) -> None:
    document["request"] = {"ctx": "1Q", "gpus": 3}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    output = plan("verify", file)
    assert (output.code, output.stdout) == (2, "")
    assert "ctx: '1Q' has the unknown unit" in output.stderr
