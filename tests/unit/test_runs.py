"""What engines do with a model, on a GPU, at a length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.load import Catalog, built_in_directory
from catalog.schema import Engine, EngineRule
from planner.problem import Problem, resolve
from planner.request import read_request
from planner.run_notes import run_notes
from planner.service import Choice, Compression, Service
from planner.space import Run, open_space, runs

FACTS = Catalog([built_in_directory()])

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 1000,
    "max_position_embeddings": 1_000_000,
    "rope_theta": 10_000.0,
}


def problem(model: str, gpus: str = "8xA100", ctx: str = "100K", **more: Any) -> Problem:
    return resolve(read_request({"model": model, "gpus": gpus, "ctx": ctx, "engine": "any", **more}, "test"), FACTS)


def run(engine: str, model: str, gpus: str = "8xA100", ctx: str = "100K", **more: Any) -> Run:
    return runs(problem(model, gpus, ctx, **more), FACTS.get(Engine, engine))


def own(directory: Path, **changes: Any) -> str:
    file = directory / "config.json"
    file.write_text(json.dumps({**TINY, **changes}), encoding="utf-8")
    return str(file)


# --------------------------------------------------------------------------- architectures


def test_a_removed_architecture_tells_who_had_it_last() -> None:
    (refusal,) = run("vllm", "minimax-text-01").refusals
    assert refusal == "has no MiniMaxText01ForCausalLM any more; 0.23.0 had it last"
    assert not run("llama.cpp", "minimax-text-01").refusals


def test_a_users_own_config_is_judged_by_its_architectures(tmp_path: Path) -> None:
    unknown = own(tmp_path, architectures=["NobodyHasThisForCausalLM"])
    assert run("vllm", unknown).refusals == ("has no NobodyHasThisForCausalLM",)
    assert not run("vllm", own(tmp_path)).refusals


def test_a_config_that_names_none_is_told_and_not_refused(tmp_path: Path) -> None:
    found = run("vllm", own(tmp_path, architectures=None))
    assert not found.named
    assert not found.refusals
    assert "names no architectures" in found.told[0]


def test_recurrent_layers_dont_run_through_transformers() -> None:
    """SGLang has no class of its own for Jamba, and Transformers' doesn't say that it fits."""
    assert run("sglang", "jamba-1.5-mini").refusals
    assert run("sglang", "seed-oss-36b").implementation == "transformers"
    assert not run("sglang", "seed-oss-36b").refusals
    assert any("Transformers" in text for text in run("vllm", "smollm3-3b").told)


def test_only_engines_that_have_the_model_are_in_its_space() -> None:
    """TensorRT-LLM has no Kimi Linear, whatever it would be priced at."""
    space = open_space(problem("kimi-linear-48b-a3b", "8xH100"))
    assert {engine.id for engine in space.engines} == {"vllm", "sglang"}
    assert "KimiLinearForCausalLM" in space.dropped["tensorrt-llm"]


def test_an_engine_of_the_same_package_that_isnt_planned_is_named() -> None:
    (refusal,) = run("lmdeploy", "mistral-7b-v0.3").refusals
    assert "only in its PyTorch one" in refusal


# --------------------------------------------------------------------------- rules on keys of the config

DUAL = {"chunk_size": 262_144, "local_size": 8192, "original_max_position_embeddings": 262_144}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_dual_chunk_attention_is_taken_out_of_the_config_within_the_trained_length(engine: str, tmp_path: Path) -> None:
    model = own(tmp_path, dual_chunk_attention_config=DUAL)
    short = run(engine, model, ctx="256K")
    assert not short.refusals
    assert short.overrides == {"dual_chunk_attention_config": None}
    (refusal,) = run(engine, model, ctx="300K").refusals
    assert "up to 262144 tokens, not to 300K" in refusal


@pytest.mark.parametrize("engine", ["lmdeploy", "llama.cpp", "tensorrt-llm", "transformers-kvpress"])
def test_an_engine_that_ignores_a_key_is_out_beyond_the_trained_length(engine: str, tmp_path: Path) -> None:
    model = own(tmp_path, dual_chunk_attention_config=DUAL)
    assert not run(engine, model, ctx="256K").refusals
    assert run(engine, model, ctx="300K").refusals


@pytest.mark.parametrize(
    ("engine", "kind", "runs_it"),
    [("vllm", "yarn", True), ("vllm", "spiral", False), ("sglang", "spiral", False), ("lmdeploy", "longrope", False)],
)
def test_kinds_of_positions(engine: str, kind: str, runs_it: bool, tmp_path: Path) -> None:
    rope = {"rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 8192}
    assert bool(run(engine, own(tmp_path, rope_scaling=rope)).refusals) != runs_it


@pytest.mark.parametrize(
    ("engine", "name"),
    [("vllm", "VLLM_ALLOW_LONG_MAX_MODEL_LEN"), ("sglang", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN")],
)
def test_a_length_beyond_the_declared_one_is_allowed_by_the_environment(engine: str, name: str, tmp_path: Path) -> None:
    declared = own(tmp_path, max_position_embeddings=200_000)
    assert run(engine, declared, ctx="300K").environment == {name: "1"}
    assert not run(engine, declared, ctx="100K").environment


def test_a_session_that_outgrows_the_declared_length_counts_with_its_answers(tmp_path: Path) -> None:
    declared = own(tmp_path, max_position_embeddings=100_000)
    assert run("vllm", declared, ctx="100000").environment


# --------------------------------------------------------------------------- KV formats and kernels per GPU


@pytest.mark.parametrize(
    ("model", "gpus", "backend"),
    [
        ("llama-3.1-8b", "8xA100", "FLASH_ATTN"),
        ("gemma-4-31b", "8xA100", "TRITON_ATTN"),
        ("gemma-4-31b", "8xH100", "TRITON_FLASH_ATTN"),
        ("gemma-3-12b", "8xA100", "TRITON_ATTN"),
        ("gemma-3-12b", "8xH100", "TRITON_FLASH_ATTN"),
        ("deepseek-v2-lite", "8xA100", "TRITON_MLA"),
        ("glm-5.2", "64xH100", "FLASH_ATTN_MLA_SPARSE"),
        ("gpt-oss-120b", "8xA100", "TRITON_ATTN"),
        ("gpt-oss-120b", "8xH100", "FLASH_ATTN"),
        ("mimo-v2-flash", "8xA100", "TRITON_ATTN_DIFFKV"),
        ("mimo-v2-flash", "8xH100", "FLASH_ATTN_DIFFKV"),
        ("kimi-linear-48b-a3b", "8xA100", "TRITON_MLA"),
        ("kimi-linear-48b-a3b", "8xH100", "FLASH_ATTN_MLA"),
        ("minimax-m3", "8xA100", "MINIMAX_M3_SPARSE"),
    ],
)
def test_vllm_runs_attention_in_the_kernels_that_its_own_code_chose(model: str, gpus: str, backend: str) -> None:
    asked = problem(model, gpus)
    found = runs(asked, FACTS.get(Engine, "vllm"))
    assert not found.refusals
    (plain,) = found.kv_formats("kv_bf16", asked)
    assert found.backend_of(plain) == backend


@pytest.mark.parametrize(
    ("model", "gpus", "takes"),
    [
        ("llama-3.1-8b", "8xA100", True),
        ("gemma-4-31b", "8xA100", False),
        ("gemma-4-31b", "8xH100", True),
        ("gpt-oss-120b", "8xA100", False),
        ("mimo-v2-flash", "8xA100", False),
        ("kimi-linear-48b-a3b", "8xA100", False),
        ("gemma-3-27b", "8xA100", False),
    ],
)
def test_fp8_kv_in_vllm(model: str, gpus: str, takes: bool) -> None:
    asked = problem(model, gpus)
    found = runs(asked, FACTS.get(Engine, "vllm"))
    assert bool(found.kv_formats("kv_fp8_e4m3", asked)) == takes


@pytest.mark.parametrize(("model", "told"), [("gemma-4-31b", True), ("llama-3.1-8b", False)])
def test_other_kernels_than_those_that_were_measured_are_told(model: str, told: bool) -> None:
    notes = " ".join(run_notes(problem(model), Service(engine="vllm")))
    assert ("runs in TRITON_ATTN here, and its times are those of FLASH_ATTN" in notes) == told


def test_a_kv_format_that_a_model_cant_be_kept_in_is_told() -> None:
    fp8 = Choice(technique="kv_fp8_e4m3", point="kv_fp8_e4m3")
    notes = " ".join(run_notes(problem("gemma-4-31b"), Service(engine="vllm", compression=Compression(hidden=fp8))))
    assert "vllm 0.33.0 can't keep this KV: its fp8_e4m3 isn't for this model: FLASHINFER refuses it" in notes


def test_sparse_latents_need_hopper_and_sparse_blocks_dont() -> None:
    assert any("9.x" in refusal for refusal in run("vllm", "glm-5.2", "64xA100").refusals)
    assert not run("vllm", "glm-5.2", "64xH100").refusals
    assert not run("vllm", "minimax-m3", "64xA100").refusals


def test_latents_that_are_stored_in_fp8_are_said_so() -> None:
    assert run("vllm", "deepseek-v4-flash", "8xH100").kv_cache_dtype == "fp8"
    assert run("vllm", "deepseek-v3", "8xH100").kv_cache_dtype is None


def test_a_model_whose_cache_isnt_reused_runs_for_one_question() -> None:
    assert run("tensorrt-llm", "qwen3-next-80b-a3b").refusals
    assert not run("tensorrt-llm", "qwen3-next-80b-a3b", rounds=1).refusals


# --------------------------------------------------------------------------- the rules themselves


@pytest.mark.parametrize("rule", FACTS.all(EngineRule), ids=lambda rule: rule.id)
def test_a_rule_names_formats_and_versions_of_its_engine(rule: EngineRule) -> None:
    engine = FACTS.get(Engine, rule.engine)
    assert rule.id.startswith(f"{rule.engine}-")
    assert set(rule.kv_formats) <= {kv_format.option for kv_format in engine.kv_formats}
    assert set(rule.when.compute_capabilities) <= set(engine.compute_capabilities)
    assert rule.verdict in ("ignores", "needs") or rule.trusted_key is None


def test_a_rule_of_later_versions_doesnt_speak_of_an_earlier_one(tmp_path: Path) -> None:
    asked = problem(own(tmp_path, dual_chunk_attention_config=DUAL))
    vllm = FACTS.get(Engine, "vllm")
    assert runs(asked, vllm).overrides
    assert not runs(asked, vllm, "0.10.2").overrides
