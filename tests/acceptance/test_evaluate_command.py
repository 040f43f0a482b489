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
    parts = metrics["groups"][0]["hbm_bytes_per_gpu"]
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
    assert priced["decision"]["groups"][0]["parallel"]["tp"] == 4
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


A_CAP = """
engine: vllm
weights: bf16
parallel: {tp: 4, replicas: 2}
batch: {decode_sequences: %d, prefill_chunk_tokens: 8192, resident_sessions: %s}
"""
SEVENTY = ("--model", "llama-3.1-70b", "--ctx", "32K", "--gpus", "8xH100", "--rounds", "1")


def capped(plan: Plan, tmp_path: Path, decoding: int, resident: str = "null", *options: str) -> Any:
    path = tmp_path / "cap.yaml"
    path.write_text(A_CAP % (decoding, resident), encoding="utf-8")
    return evaluate(plan, *SEVENTY, *options, "--decision", path)


def test_caps_above_what_fits_are_caps(plan: Plan, tmp_path: Path) -> None:
    fits = capped(plan, tmp_path, 12)
    assert fits["metrics"]["concurrency"] == 26, "13 sessions fit each replica: 12 decode beside one in prefill"
    assert fits["metrics"]["interactions_per_hour"] > 0
    for decoding, resident in ((13, "null"), (256, "null"), (256, "1000"), (13, "13")):
        above = capped(plan, tmp_path, decoding, resident)
        assert above["metrics"] == fits["metrics"]
        assert above["intervals"] == fits["intervals"]
        assert above["decision"]["groups"][0]["batch"]["decode_sequences"] == decoding, "what was written stays a cap"
        assert all(row["slack"] >= 0 for row in above["constraints"])
        told = " ".join(above["provenance"]["assumptions"])
        assert f"batch.decode_sequences {decoding}: a cap; priced with 12 at a time, as 13 sessions fit" in told
        assert ("batch.resident_sessions 1000: a cap; 13 sessions fit a replica" in told) == (resident == "1000")


def test_a_resident_cap_below_the_decode_cap_is_a_cap_too(plan: Plan, tmp_path: Path) -> None:
    assert capped(plan, tmp_path, 12, "5")["metrics"] == capped(plan, tmp_path, 4, "5")["metrics"]
    assert capped(plan, tmp_path, 12, "1")["metrics"] == capped(plan, tmp_path, 1, "1")["metrics"]


def test_a_cap_with_room_for_one_session_prices_one(plan: Plan, tmp_path: Path) -> None:
    one = capped(plan, tmp_path, 64, "null", "--ctx", "380K")
    assert one["metrics"]["concurrency"] == 2
    assert one["metrics"]["interactions_per_hour"] > 0
    assert "priced with 1 at a time, as one session fits a replica" in " ".join(one["provenance"]["assumptions"])
    none = capped(plan, tmp_path, 64, "null", "--ctx", "900K")
    assert none["metrics"]["concurrency"] == none["metrics"]["interactions_per_hour"] == 0


def test_a_chunk_longer_than_the_prompt_takes_it_in_one_piece(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "chunk.yaml"
    found = []
    for chunk in (32_100, 64_000, 10**8):  # the document and its question
        path.write_text(f"engine: vllm\nweights: bf16\nparallel: {{tp: 8}}\nbatch: {{prefill_chunk_tokens: {chunk}}}\n")
        found.append(evaluate(plan, *SEVENTY, "--decision", path)["metrics"])
    assert found[0] == found[1] == found[2]
