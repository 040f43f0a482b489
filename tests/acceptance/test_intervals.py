"""Every predicted time and throughput says how sure it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import planner.pipeline
from planner.plan import Document
from tests.plans import told

Plan = Callable[..., Any]
SCHEMA = json.loads((Path(planner.pipeline.__file__).parent / "schema" / "plan.json").read_text(encoding="utf-8"))
DECISION = """
engine: {engine}
parallel: {{tp: 2, replicas: 1}}
batch: {{decode_sequences: 2, prefill_chunk_tokens: {chunk}}}
offload: {{policy: swap, tier: ddr}}
"""


@pytest.fixture
def evaluated(plan: Plan, tmp_path: Path) -> Callable[..., Any]:
    """The document of a hand-written decision."""

    def run(*options: str, gpus: str = "2xA100", ctx: str = "50K", engine: str = "vllm", chunk: int = 2048) -> Any:
        file = tmp_path / "decision.yaml"
        file.write_text(DECISION.format(engine=engine, chunk=chunk), encoding="utf-8")
        asked = ("--ctx", ctx, "--gpus", gpus, "--model", "llama-3.1-8b", "--decision", file, *options)
        done = plan("evaluate", *asked, "--format", "json")
        assert done.code == 0, done.stderr
        document = json.loads(done.stdout)
        jsonschema.validate(document, SCHEMA)
        return document

    return run


def ends(document: Any, name: str) -> tuple[float, float]:
    intervals = Document.model_validate(document).intervals
    assert intervals is not None
    found = intervals.groups[0].step_s if name == "step_s" else intervals.named(name)
    assert found is not None, name
    return found


def width(document: Any, name: str) -> float:
    low, high = ends(document, name)
    return math.log(high / low) / 2.0


PREDICTED = (
    *("prefill_s", "decode_s", "step_s", "itl_full_s", "itl_idle_s", "tpot_full_s", "ttft_full_s", "ttft_idle_s"),
    *("warm_ttft_full_s", "warm_ttft_idle_s", "e2e_full_s", "e2e_idle_s", "warm_e2e_full_s", "warm_e2e_idle_s"),
    *("switch_s", "interactions_per_hour", "sessions_per_hour", "users", "usd_per_interaction"),
)


def test_every_prediction_has_an_interval_that_holds_it(evaluated: Callable[..., Any]) -> None:
    document = evaluated()
    for name in PREDICTED:
        low, high = ends(document, name)
        assert low <= told(document, name) <= high, name
        if name.endswith("_s"):
            assert high > 1.1 * low, name
    assert document["intervals"]["services"][0]["latency"] == document["intervals"]["latency"]
    assert "p95" not in document["intervals"]["latency"]["ttft_s"]


def test_no_end_beats_the_roofline(evaluated: Callable[..., Any]) -> None:
    peak, measured = evaluated("--efficiency", "peak"), evaluated()
    assert peak["intervals"] is None
    for name in ("prefill_s", "step_s", "decode_s", "itl_full_s", "ttft_full_s"):
        assert ends(measured, name)[0] >= told(peak, name), name


def test_what_nobody_measured_is_less_sure_and_said(evaluated: Callable[..., Any]) -> None:
    known, transferred = evaluated(), evaluated(gpus="2xL40S")
    assert width(transferred, "step_s") > width(known, "step_s")
    assert not any("transferred" in text for text in known["provenance"]["assumptions"])
    assert any("transferred" in text for text in transferred["provenance"]["assumptions"])
    # Few queries over a long prefix, beyond the lengths of the kernels' measurements.
    assert width(evaluated(chunk=128), "prefill_s") > width(evaluated(chunk=16384), "prefill_s")
    long, short = evaluated(ctx="120K"), evaluated(ctx="10K")
    assert width(long, "prefill_s") > width(short, "prefill_s")
    assert any("extrapolated" in text for text in long["provenance"]["assumptions"])
    assert not any("extrapolated" in text for text in short["provenance"]["assumptions"])
    assert width(evaluated(engine="tensorrt-llm"), "switch_s") > width(known, "switch_s")


def test_engines_differ_in_what_they_take(evaluated: Callable[..., Any]) -> None:
    steps = {engine: told(evaluated(engine=engine), "step_s") for engine in ("vllm", "sglang", "tensorrt-llm")}
    assert len({round(step, 5) for step in steps.values()}) == 3


def test_the_terminal_shows_intervals_and_verify_checks_them(plan: Plan, tmp_path: Path) -> None:
    asked = ("--ctx", "16K", "--gpus", "1xA100", "--model", "llama-3.1-8b")
    shown = plan("evaluate", *asked)
    assert "80% intervals" in shown.stdout
    assert any("prefill " in line and " to " in line for line in shown.stdout.splitlines())
    document = json.loads(plan("evaluate", *asked, "--format", "json").stdout)
    document["intervals"]["groups"][0]["step_s"][1] *= 2.0
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    checked = plan("verify", file)
    assert checked.code != 0
    assert "intervals.groups.0.step_s.high end" in checked.stderr
