"""What an engine can't run isn't planned on it, is told when it is asked for, and is never written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Plan = Callable[..., Any]
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 4096,
    "vocab_size": 32_000,
    "max_position_embeddings": 1_010_000,
    "rope_theta": 10_000_000.0,
}
DUAL = {"chunk_size": 262_144, "local_size": 8192, "original_max_position_embeddings": 262_144}


def config(directory: Path, **changes: Any) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps({**LLAMA, **changes}), encoding="utf-8")
    return file


@pytest.mark.parametrize("engine", ["sglang", "any", "vllm"])
def test_a_model_that_an_engine_lacks_is_refused_with_who_has_it_and_who_had_it(plan: Plan, engine: str) -> None:
    asked = plan("--model", "minimax-text-01", "--engine", engine, "--ctx", "128K", "--gpus", "8xA100")
    assert (asked.code, asked.stdout) == (2, "")
    assert "vllm had it until 0.23.0" in asked.stderr
    assert "engines that have it: llama.cpp" in asked.stderr


def test_a_users_own_architecture_that_nobody_has_is_an_error(plan: Plan, tmp_path: Path) -> None:
    file = config(tmp_path, architectures=["NobodyForCausalLM"])
    asked = plan("--model", file, "--ctx", "32K", "--gpus", "1xA100")
    assert asked.code == 2
    assert "has no NobodyForCausalLM" in asked.stderr
    assert "no engine of the catalog has it" in asked.stderr


def test_a_config_without_architectures_is_planned_and_told(plan: Plan, tmp_path: Path) -> None:
    file = config(tmp_path, architectures=None)
    asked = ("--model", file, "--ctx", "32K", "--gpus", "1xA100", "--engine", "vllm", "--no-gains")
    made = plan(*asked, "--format", "json")
    assert made.code == 0, made.stderr
    assert "names no architectures" in " ".join(made.json["provenance"]["assumptions"])
    emitted = plan(*asked, "--emit", tmp_path / "out")
    assert emitted.code == 2
    assert "names no architectures, and vllm 0.33.0 needs them" in emitted.stderr


@pytest.mark.parametrize(("engine", "flag"), [("vllm", "hf-overrides"), ("sglang", "json-model-override-args")])
def test_dual_chunk_attention_is_taken_out_where_the_length_allows_it(
    plan: Plan, tmp_path: Path, engine: str, flag: str
) -> None:
    file = config(tmp_path, dual_chunk_attention_config=DUAL)
    asked = ("--model", file, "--gpus", "1xA100", "--engine", engine, "--no-gains", "--weights", "bf16")
    out = tmp_path / "out"
    made = plan(*asked, "--ctx", "256K", "--emit", out)
    assert made.code == 0, made.stderr
    settings = yaml.safe_load((out / engine / "serve.yaml").read_text())
    assert settings[flag] == {"dual_chunk_attention_config": None}
    longer = plan(*asked, "--ctx", "500K")
    assert longer.code == 2
    assert "dual chunk attention" in longer.stderr
    assert "up to 262144 tokens" in longer.stderr


@pytest.mark.parametrize(("engine", "option"), [("vllm", "bfloat16"), ("sglang", "bf16")])
def test_the_type_of_kv_is_always_said(plan: Plan, tmp_path: Path, engine: str, option: str) -> None:
    """A checkpoint's own config would decide it otherwise."""
    out = tmp_path / "out"
    asked = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "1xA100", "--weights", "bf16", "--rounds", "1")
    made = plan(*asked, "--engine", engine, "--techniques", "kv_bf16", "--no-gains", "--emit", out)
    assert made.code == 0, made.stderr
    assert yaml.safe_load((out / engine / "serve.yaml").read_text())["kv-cache-dtype"] == option


def test_evaluate_tells_what_an_engine_refuses_and_emit_writes_nothing(plan: Plan, tmp_path: Path) -> None:
    decision = tmp_path / "decision.yaml"
    decision.write_text("engine: lmdeploy\nweights: bf16\nparallel: {tp: 2}\n", encoding="utf-8")
    asked = ("--model", "mistral-7b-v0.3", "--ctx", "16K", "--gpus", "2xA100", "--rounds", "1")
    made = plan("evaluate", *asked, "--decision", decision, "--format", "json")
    assert made.code == 0, made.stderr
    told = " ".join(made.json["provenance"]["assumptions"])
    assert "lmdeploy 0.18.0 doesn't run this: it has no MistralForCausalLM in the engine that is planned" in told
    document = tmp_path / "plan.json"
    document.write_text(made.stdout, encoding="utf-8")
    written = plan("emit", document, "--target", "lmdeploy", "-o", tmp_path / "out")
    assert written.code == 2
    assert "has no MistralForCausalLM in the engine that is planned" in written.stderr
    assert "engines that run it: llama.cpp, sglang, tensorrt-llm, vllm" in written.stderr
    assert not (tmp_path / "out").exists()


RULE = """
id: vllm-no-windows
name: a rule of the user's own
engine: vllm
when: {{{when}}}
verdict: {verdict}
why: it has been seen to fail here
evidence: ran
sources: [{{ref: our own run}}]
checked: 2026-11-01
"""


def test_a_users_own_rule_takes_an_engine_out(plan: Plan, write_entry: Callable[..., Path]) -> None:
    text = RULE.format(when="architectures: [Llama*], compute_capabilities: ['8.0']", verdict="refuses")
    overlay = write_entry("engine_rules", "vllm-no-windows", text)
    asked = ("--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "1xA100", "--engine", "vllm")
    refused = plan(*asked, "--catalog", overlay)
    assert refused.code == 2
    assert "it has been seen to fail here" in refused.stderr


def test_rules_that_say_nothing_are_problems(plan: Plan, write_entry: Callable[..., Path]) -> None:
    wrong = [
        ("", "needs", "verdict needs without environment, flags, overrides or kv_cache_dtype"),
        ("", "excludes", "verdict excludes without kv_formats"),
        ("config: [{key: a}]", "refuses", "says nothing of the key"),
        ("rope_typs: [yarn]", "refuses", "rope_typs"),
    ]
    for number, (when, verdict, _) in enumerate(wrong):
        text = RULE.format(when=when, verdict=verdict).replace("vllm-no-windows", f"vllm-{number}")
        overlay = write_entry("engine_rules", f"vllm-{number}", text)
    checked = plan("catalog", "validate", overlay)
    assert checked.code == 2
    for _, _, told in wrong:
        assert told in checked.stderr


def test_experts_that_come_in_fp8_are_not_planned_where_triton_has_no_fp8(plan: Plan) -> None:
    refused = plan("--model", "deepseek-v3", "--ctx", "32K", "--gpus", "2x8xA100", "--engine", "sglang")
    assert refused.code == 2
    assert "experts in fp8 run in Triton" in refused.stderr
    assert "--engine vllm" in refused.stderr
