"""The sessions of the emitted load test are the plan's own, and its results are read as they are meant."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.emit import check_speed, emit
from planner.emit.deployment import Deployment
from planner.emit.load_test import sessions_file
from planner.emit.read_deployment import read_deployment
from planner.plan import Document
from tests.plans import flat_plan, plan_of

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
CATALOG = open_catalog()
SERVED = [path.stem for path in sorted(PLANS.glob("*.json")) if not path.stem.startswith("kvpress")]


def planned(name: str = "llama8b-int8", **request: Any) -> Deployment:
    content = flat_plan(name)
    content["request"] |= request
    return read_deployment(plan_of(content), CATALOG)


def sessions(deployment: Deployment) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for line in sessions_file(deployment).splitlines():
        turn = json.loads(line)
        found[turn["session_id"]].append(turn)
    return dict(found)


@given(
    ctx=st.integers(4_000, 120_000),
    rounds=st.integers(1, 8),
    question=st.integers(0, 2_000),
    output=st.integers(1, 2_000),
    think_s=st.floats(0, 600),
    shared=st.floats(0, 0.9),
)
def test_a_session_is_the_plans_and_never_longer_than_the_server_takes(
    ctx: int, rounds: int, question: int, output: int, think_s: float, shared: float
) -> None:
    deployment = planned(
        ctx=ctx,
        rounds=rounds,
        question_tokens=question,
        output_tokens=output,
        think_time=think_s,
        shared_prefix_tokens=int(shared * ctx),
    )
    found = sessions(deployment)
    assert len(found) == 2 * 40
    for turns in found.values():
        assert len(turns) == rounds
        whole = sum(t["input_length"] + t["output_length"] for t in turns)
        assert 0.9 * deployment.max_model_len - 500 < whole <= deployment.max_model_len
        assert ["delay" in t for t in turns] == [False] + [True] * (rounds - 1)
        assert all(t["delay"] == round(1000 * think_s) for t in turns[1:])
    first = [turns[0].get("hash_ids") for turns in found.values()]
    if deployment.request.shared_prefix_tokens >= 0.01 * ctx:
        blocks = [set(ids[1:]) for ids in first if ids]
        assert all(ids and ids[0] == 0 for ids in first)
        assert sum(len(own) for own in blocks) == len(set().union(*blocks))  # nothing else is common
        for turns in found.values():
            length = deployment.request.shared_prefix_tokens
            assert (
                (len(turns[0]["hash_ids"]) - 1) * length
                < turns[0]["input_length"]
                <= len(turns[0]["hash_ids"]) * length
            )
    else:
        assert not any(first)


@pytest.mark.parametrize("name", SERVED)
def test_every_plan_comes_with_its_load_test(name: str) -> None:
    document = Document.model_validate_json((PLANS / f"{name}.json").read_text())
    files = emit(document, document.service.engine, CATALOG)
    page = files["README.md"]
    header = "X-SMG-Routing-Key" if name.startswith("sglang-split") else "X-Session-ID"
    assert page.count(f"--session-header {header}") == 2
    assert "--input-file sessions.jsonl" in page
    assert "port-forward" not in page
    assert files["check_speed.py"] == Path(check_speed.__file__).read_text()
    assert len(files["sessions.jsonl"]) < 2**20


def request(session: str, turn: int, start_s: float, end_s: float, **metrics: Any) -> dict[str, Any]:
    """A request as aiperf exports it."""
    return {
        "metadata": {
            "x_correlation_id": session,
            "turn_index": turn,
            "request_start_ns": int(start_s * 1e9),
            "request_end_ns": int(end_s * 1e9),
            "benchmark_phase": "profiling",
        },
        "metrics": {name: {"value": found, "unit": ""} for name, found in metrics.items()},
    }


def test_answers_are_counted_while_all_users_are_there() -> None:
    """Two users, one of whom comes late and one of whom leaves early: 3 answers in 10 s."""
    requests = [
        request("a", 0, 0, 5),
        request("b", 0, 10, 14),
        request("a", 1, 12, 16),
        request("b", 1, 15, 20),
        request("a", 2, 21, 40),
    ]
    assert check_speed.answers_per_hour(requests) == pytest.approx(3 / 10 * 3600)
    assert check_speed.answers_per_hour([]) is None


def test_what_contradicts_the_plan_is_said(tmp_path: Path) -> None:
    document = Document.model_validate_json((PLANS / "llama8b-int8.json").read_text())
    files = emit(document, "vllm", CATALOG)
    for name in ("plan.json", "check_speed.py"):
        (tmp_path / name).write_text(files[name])
    plan = json.loads(files["plan.json"])
    plan["metrics"]["users"] = 0.5
    good = request("a", 1, 0, 1, usage_prompt_tokens=1000, usage_prompt_cache_read_tokens=950)
    cold = request("a", 1, 0, 1, usage_prompt_tokens=1000, usage_prompt_cache_read_tokens=20)
    failed = {**request("a", 1, 0, 1), "error": {"code": 503}}

    def judged(*requests: dict[str, Any]) -> list[str]:
        return check_speed.judge(plan, {"alone": check_speed.measure([]), "users": check_speed.measure([*requests])})

    assert judged(good) == []
    assert "found 2.0%" in judged(cold)[0]
    assert "failed" in judged(good, failed)[0]
    plan["metrics"]["users"] = 1.5
    assert "Only 1 of 2 users were there at once" in judged(good)[0]
    assert judged(good, request("b", 1, 0.5, 1)) == []
    done = subprocess.run([sys.executable, "check_speed.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run the two aiperf commands" in done.stderr


def test_times_are_read_as_they_are_meant() -> None:
    requests = [
        request("a", 0, 0, 1, time_to_first_token=8000.0, inter_token_latency=40.0, inter_chunk_latency=[40.0] * 100),
        request("a", 1, 1, 2, time_to_first_token=500.0),
        request("a", 2, 2, 3, time_to_first_token=700.0),
    ]
    measured = check_speed.measure(requests)
    assert measured["ttft_s"] == 8.0
    assert measured["warm_ttft_s"] == pytest.approx(0.6)
    assert measured["tpot_s"] == measured["itl_s"] == pytest.approx(0.04)
    assert measured["cached"] is None
    plan = json.loads((PLANS / "llama70b-fp8.json").read_text())
    lines = check_speed.table(plan, {"alone": check_speed.measure([]), "users": measured})
    assert lines[1].split()[-2:] == ["-", "-"]
    assert "one user alone" in lines[1]
    assert lines[2].split()[-2:] == ["8", "s"]
    assert "35 s to 46 s" in lines[2]
