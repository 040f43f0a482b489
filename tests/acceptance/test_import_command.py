"""`plan import`: what somebody already runs is read, priced, and compared with the best plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.load import open_catalog
from planner.importing import catalog_model

Plan = Callable[..., Any]
COMMAND = (
    "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 131072 --gpu-memory-utilization 0.9 "
    "--max-num-seqs 64\n"
)
LIMITS = ("--gpus", "1xA100", "--ctx", "100K", "--max-latency", "200ms")


@pytest.fixture
def command(tmp_path: Path) -> Path:
    path = tmp_path / "run.sh"
    path.write_text(COMMAND)
    return path


def test_a_command_line_is_priced_and_improved(plan: Plan, command: Path, tmp_path: Path) -> None:
    found = plan("import", command, *LIMITS, "--format", "json", "--emit", tmp_path / "better", "--target", "shell")
    assert found.code == 0, found.stderr
    advice = found.json
    assert advice["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    priced = advice["priced"]
    assert priced["request"]["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert priced["fits"]
    assert priced["broken"] == ["itl_full_s"]  # a foreign chunk of 2,048 tokens takes longer than 200 ms
    # 0.9 of 80 GiB without 14.96 of weights, 5.6 of workspace, 1.55 of overhead: 49.89 GiB, 128 KiB per token
    assert priced["engine_reports"]["kv_tokens"] == pytest.approx(49.89 * 2**30 / 131_072, rel=1e-3)
    # Priced by the same model as a decision of one's own.
    decision = tmp_path / "decision.json"
    decision.write_text(json.dumps(priced["decision"]))
    own = plan("evaluate", *LIMITS, "--model", "llama-3.1-8b", "--decision", decision, "--format", "json").json
    assert own["metrics"]["interactions_per_hour"] == pytest.approx(priced["metrics"]["interactions_per_hour"])
    for name, times in priced["metrics"]["latency"].items():
        assert own["metrics"]["latency"][name] == pytest.approx(times)
    # And the plan is the one that `plan` makes.
    best = plan(*LIMITS, "--model", "llama-3.1-8b", "--engine", "vllm", "--format", "json").json
    assert advice["plan"]["decision"] == best["decision"]
    gain = advice["gain"]["interactions_per_hour"]
    assert gain["planned"] == pytest.approx(best["metrics"]["interactions_per_hour"])
    assert gain["planned"] > gain["now"] == priced["metrics"]["interactions_per_hour"]
    assert {"users", "itl_full_s", "quality_loss_mean"} <= advice["gain"].keys()
    changed = {row["field"]: row for row in advice["changes"]}
    for row in changed.values():
        assert row["now"] != row["planned"]
    assert changed["compression.hidden"]["alone"]["quality_loss_mean"] > 0
    flags = {row["flag"]: row for row in advice["flags"]}
    assert flags["--max-num-seqs"]["now"] == 64
    batch = best["decision"]["groups"][-1]["batch"]
    beside_prefill = batch["decode_sequences"] + 1
    assert flags["--max-num-seqs"]["planned"] == (1 if batch["resident_sessions"] == 1 else beside_prefill)
    script = (tmp_path / "better" / "shell" / "serve.sh").read_text()
    assert f"--max-num-seqs {flags['--max-num-seqs']['planned']}" in script


def test_the_terminal_says_what_to_change_and_what_it_buys(
    plan: Plan, command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = plan("import", command, *LIMITS).stdout
    for part in (
        "BREAKS itl_full_s",
        "--max-num-batched-tokens isn't given: 2048, vLLM's default on NVIDIA A100",
        "vLLM reports about",
        "What the planner would change, and what each change gives alone",
        "As flags of vllm serve",
        "quality loss",
        "--max-num-seqs",
    ):
        assert part in text


def test_what_plan_emits_has_nothing_to_change(plan: Plan, tmp_path: Path) -> None:
    asked = (*LIMITS, "--model", "llama-3.1-8b", "--engine", "vllm", "--no-gains")
    made = plan(*asked, "--format", "json", "--emit", tmp_path / "out")
    for file in ("compose/compose.yaml", "kubernetes/kubernetes.yaml"):
        advice = plan("import", tmp_path / "out" / file, *LIMITS, "--format", "json").json
        assert advice["changes"] == advice["flags"] == []
        now = advice["priced"]["metrics"]
        for name in ("interactions_per_hour", "users", "prefill_s", "decode_s", "quality_loss_mean"):
            assert now[name] == pytest.approx(made.json["metrics"][name]), (file, name)
    text = plan("import", tmp_path / "out" / "vllm" / "serve.sh", *LIMITS).stdout
    assert "Nothing to change" in text


def test_what_does_not_fit_is_told_with_amounts(plan: Plan, tmp_path: Path) -> None:
    words = ["--model", "Qwen/Qwen2.5-32B-Instruct", "--max-model-len", "16K"]
    services = {"llm": {"image": "vllm/vllm-openai:v0.33.0", "command": words}}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    asked = ("--gpus", "1xL40S", "--ctx", "8K")
    found = plan("import", tmp_path / "compose.yaml", *asked, "--format", "json")
    priced = found.json["priced"]
    part = priced["one_session_hbm_bytes_per_gpu"]
    used = part["weights"] + part["kv"] + part["workspace"] + part["overhead"]
    assert (priced["fits"], priced["metrics"]) == (False, None)
    assert priced["missing_bytes_per_gpu"] == pytest.approx(used - 0.92 * 46_068 * 2**20)
    assert part["weights"] == pytest.approx(2 * 32_763_876_352, rel=1e-3)  # bf16
    text = plan("import", tmp_path / "compose.yaml", *asked).stdout
    assert "DOES NOT FIT: per GPU, weights 61.03 GiB, workspace 5.6 GiB" in text
    assert "it may take 41.39 GiB" in text


def test_limits_that_nothing_keeps_are_exit_3(plan: Plan, command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.plan import Infeasible, Relaxation

    told = Infeasible(
        conflicts=(("--max-latency 1 ms",),), relaxations=(Relaxation(limit="--max-latency", from_="1 ms", to="9 ms"),)
    )
    monkeypatch.setattr("planner.explain.explain_infeasible", lambda *_: told)
    found = plan("import", command, "--gpus", "1xA100", "--max-latency", "1ms")
    assert found.code == 3
    assert "No plan keeps these limits" in found.stdout
    assert "--max-latency: 1 ms -> 9 ms" in found.stdout


def test_what_cannot_be_priced_is_still_read(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("vllm serve someorg/unknown-model -tp 8 --max-model-len 32K\n")
    found = plan("import", tmp_path / "run.sh", "--gpus", "8xH100", "--format", "json")
    assert (found.code, found.json["priced"], found.json["decision"]["groups"][0]["parallel"]["tp"]) == (0, None, 8)
    assert "the catalog has no model 'someorg/unknown-model'; add --model" in found.json["unpriced"]
    assert "--gpus: missing" in plan("import", tmp_path / "run.sh").stderr


@pytest.mark.parametrize(
    ("name", "served", "model"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", None, "meta-llama/Llama-3.1-70B-Instruct"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", None, "meta-llama/Meta-Llama-3.1-70B-Instruct"),
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", None, "meta-llama/Meta-Llama-3.1-70B-Instruct"),
        ("Qwen/Qwen3-32B-AWQ", None, "Qwen/Qwen3-32B"),
        ("/srv/models/DeepSeek-V3", None, "deepseek-ai/DeepSeek-V3"),
        ("$here/models/plan-yi-awq4", "yi-34b-200k", "01-ai/Yi-34B-200K"),
        ("openai/gpt-oss-120b", None, "openai/gpt-oss-120b"),
        ("some/thing", None, None),
        (None, None, None),
    ],
)
def test_checkpoints_are_known_by_their_model(name: str | None, served: str | None, model: str | None) -> None:
    assert catalog_model(name, served, open_catalog())[0] == model


def test_both_sides_hold_the_sessions_that_vllm_holds(plan: Plan, tmp_path: Path) -> None:
    """Windows keep the tokens in flight: with large chunks vLLM holds far fewer sessions than their bytes suggest."""
    (tmp_path / "run.sh").write_text("vllm serve google/gemma-3-12b-it --max-model-len 32768\n")
    advice = plan("import", tmp_path / "run.sh", "--gpus", "1xH100", "--format", "json").json
    reported = advice["priced"]["engine_reports"]
    end = advice["priced"]["request"]["ctx"] + 5 * 350
    assert advice["priced"]["metrics"]["concurrency"] <= reported["kv_tokens"] / end + 1
    gain, planned = advice["gain"]["interactions_per_hour"], advice["plan"]["metrics"]["interactions_per_hour"]
    assert gain["planned"] <= planned * (1 + 1e-9)
    if gain["planned"] < 0.99 * planned:
        assert any("which is what is compared here" in note for note in advice["notes"])
