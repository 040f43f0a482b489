"""`plan evaluate`: a hand-written decision, priced; what it leaves out is completed, and said."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Plan = Callable[..., Any]

PAPER = ("--model", "yi-34b-200k", "--gpus", "1xA100", "--efficiency", "peak")


def evaluate(plan: Plan, *arguments: str | Path) -> Any:
    output = plan("evaluate", *arguments, "--format", "json")
    assert output.code == 0, output.stderr
    return json.loads(output.stdout, parse_constant=lambda name: pytest.fail(f"{name} isn't JSON"))


def test_the_papers_example_fits_once(plan: Plan) -> None:
    document = evaluate(plan, *PAPER, "--ctx", "50K")
    metrics = document["metrics"]
    assert document["status"] == "evaluated"
    assert metrics["kv_bytes_per_session"] == 12_288_000_000
    assert metrics["concurrency"] == 1
    assert metrics["prefill_s"] == pytest.approx(17.8, rel=0.02)
    assert metrics["decode_s"] == pytest.approx(9.84, rel=0.02)


def test_a_decision_that_does_not_fit_is_priced_and_breaks_the_hbm_limit(plan: Plan) -> None:
    document = evaluate(plan, *PAPER, "--ctx", "100K")
    metrics = document["metrics"]
    assert metrics["kv_bytes_per_session"] == 24_576_000_000
    assert metrics["concurrency"] == 0
    assert metrics["interactions_per_hour"] == 0
    hbm = next(row for row in document["constraints"] if row["name"] == "hbm_bytes_per_gpu")
    parts = metrics["hbm_bytes_per_gpu"]
    assert hbm["value"] == parts["weights"] + 24_576_000_000
    assert hbm["slack"] == hbm["limit"] - hbm["value"] < 0
    text = plan("evaluate", *PAPER, "--ctx", "100K").stdout
    assert "BROKEN" in text
    assert "OVER by" in text


def test_what_is_left_out_is_said(plan: Plan) -> None:
    assumptions = " ".join(evaluate(plan, *PAPER, "--ctx", "50K")["provenance"]["assumptions"])
    for part in ("weights: bf16", "compression: none", "parallel:", "batch: one decoding sequence", "offload: none"):
        assert part in assumptions


DECISION = """
engine: vllm
weights: bf16
compression: {hidden: {technique: kv_fp8, point: kv_fp8}}
parallel: {tp: 4, replicas: 2}
batch: {decode_sequences: 2, prefill_chunk_tokens: 2048}
offload: {policy: none}
"""


@pytest.fixture
def decision(tmp_path: Path) -> Path:
    path = tmp_path / "decision.yaml"
    path.write_text(DECISION, encoding="utf-8")
    return path


ON_EIGHT = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "8xH100", "--efficiency", "peak")


def test_a_decision_comes_from_yaml_json_stdin_or_a_plan(
    plan: Plan, decision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced = evaluate(plan, *ON_EIGHT, "--decision", decision)
    assert priced["decision"]["parallel"]["tp"] == 4
    assert priced["metrics"]["kv_ratio"] == 0.5
    written = tmp_path / "decision.json"
    written.write_text(json.dumps(yaml.safe_load(DECISION)), encoding="utf-8")
    assert evaluate(plan, *ON_EIGHT, "--decision", written) == priced
    monkeypatch.setattr("sys.stdin", io.StringIO(DECISION))
    assert evaluate(plan, *ON_EIGHT, "--decision", "-") == priced
    whole = tmp_path / "plan.json"
    whole.write_text(json.dumps(priced), encoding="utf-8")
    again = evaluate(plan, "--decision", whole)
    assert (again["decision"], again["metrics"]) == (priced["decision"], priced["metrics"])
    longer = evaluate(plan, "--decision", whole, "--ctx", "64K")
    assert longer["metrics"]["kv_bytes_per_session"] == 2 * priced["metrics"]["kv_bytes_per_session"]


def test_a_request_comes_from_a_file_and_flags_override_it(plan: Plan, tmp_path: Path) -> None:
    request = tmp_path / "request.yaml"
    request.write_text("model: yi-34b-200k\nctx: 100K\ngpus: 1xA100\nmax-latency: 50ms\nefficiency: peak\n")
    asked = evaluate(plan, "--request", request, "--ctx", "50K")["request"]
    assert (asked["ctx"], asked["max_latency"]) == (50_000, 0.05)


def test_yaml_says_the_same_as_json(plan: Plan, decision: Path) -> None:
    text = plan("evaluate", *ON_EIGHT, "--decision", decision, "--format", "yaml").stdout
    assert yaml.safe_load(text) == evaluate(plan, *ON_EIGHT, "--decision", decision)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engin: vllm\nparallel: {tpp: 2}", ["engin: unknown field; did you mean engine?", "parallel.tpp: unknown"]),
        ("weights: fp7", ["weights: unknown precision 'fp7'; use one of"]),
        ("engine: vlm", ["engine: unknown engine 'vlm'; use one of"]),
        ("parallel: {tp: 8, replicas: 2}", ["tp x pp x pcp x replicas is 16 GPUs of 8; use fewer"]),
        ("parallel: {tp: 0}", ["parallel.tp: Input should be greater than or equal to 1"]),
        ("offload: {policy: none, tier: ddr}", ["offload.tier: only with policy swap"]),
        ("serving: disaggregated", ["serving: disaggregated needs pools.prefill and pools.decode"]),
        ("compression: {head: {technique: kv_fp8}}", ["compression.head: kv_fp8_e4m3 works on the hidden dimension"]),
        ("just words", ["holds no 'field: value' lines"]),
        ("a: [", ["decision.yaml: "]),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(plan: Plan, tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "decision.yaml"
    path.write_text(text, encoding="utf-8")
    output = plan("evaluate", *ON_EIGHT, "--decision", path)
    assert (output.code, output.stdout) == (2, "")
    for part in told:
        assert part in output.stderr


def test_a_file_that_is_not_there_is_told(plan: Plan) -> None:
    output = plan("evaluate", *ON_EIGHT, "--decision", "/no/such/file")
    assert (output.code, output.stderr) == (2, "plan: /no/such/file: can't be read: No such file or directory\n")
