"""From a config.json to layers: KV bytes by hand, parameter counts by transformers, states, FLOPs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from catalog.architecture import Architecture, read_config
from catalog.load import Catalog, built_in_directory
from catalog.schema import Model

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "param_counts.json").read_text())

MUST_RESOLVE = [
    "yi-34b-200k",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-405b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "qwen2.5-7b",
    "qwen2.5-7b-1m",
    "qwen2.5-14b",
    "qwen2.5-14b-1m",
    "qwen2.5-32b",
    "qwen2.5-72b",
    "qwen3-8b",
    "qwen3-32b",
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "mixtral-8x7b",
    "mixtral-8x22b",
    "deepseek-v2-lite",
    "deepseek-v3",
    "deepseek-v3.2",
    "gemma-3-27b",
    "gpt-oss-20b",
    "gpt-oss-120b",
    "llama-4-scout",
    "llama-4-maverick",
    "nemotron-h-56b",
    "mistral-7b",
    "mistral-7b-v0.1",
    "mistral-7b-v0.2",
    "mistral-7b-v0.3",
    "command-r",
    "command-r-plus",
    "minimax-m2.5",
    "glm-5",
    "kimi-k2",
    "mimo-v2-flash",
    "falcon-7b",
    "falcon-40b",
    "jamba",
    "llama-3-8b-gradient-1048k",
    "glm-4-9b-1m",
    "minimax-text-01",
    "internlm2.5-7b-1m",
    "nemotron-3-nano",
    "nemotron-3-super",
    "llama-3.1-8b-instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct-1M",
    "01-ai/Yi-34B-200K",
]

MEASURED = [
    "BLOOM-176B",
    "Falcon-180B",
    "GPT-175B",
    "GPT-20B",
    "GPT-6.7B",
    "GPT-J-6B",
    "Llama-2-70B",
    "Llama-2-7B",
    "Llama-3-70B",
    "Llama-3-8B",
    "Llama-3-8B-1M(gradient)",
    "Llama-3.1-8B",
    "Mistral-7B",
    "Mixtral-8x7B",
    "Qwen2-7B",
    "Qwen2.5-32B",
    "Qwen2.5-3B",
    "Qwen2.5-7B",
    "Qwen3-32B",
]
"""Names of models in the published measurements that the cost model is checked against."""


@cache
def models() -> Catalog:
    return Catalog([built_in_directory()])


@cache
def model(name: str) -> Architecture:
    entry = models().get(Model, name)
    return read_config(entry.config, where=entry.id)


# layers x KV heads x (K + V) elements x 2 bytes, by hand from the config
KV_BYTES_PER_TOKEN = {
    # the paper's model: 60 layers, 8 KV heads of 128
    "yi-34b-200k": 60 * 8 * (128 + 128) * 2,
    # mha, gqa, mqa
    "llama-2-7b": 32 * 32 * (128 + 128) * 2,
    "llama-3.1-70b": 80 * 8 * (128 + 128) * 2,
    "falcon-7b": 32 * 1 * (64 + 64) * 2,
    "bloom": 70 * 112 * (128 + 128) * 2,
    # heads wider than hidden / query heads
    "qwen3-32b": 64 * 8 * (128 + 128) * 2,
    # mla: latent and rope key, no heads
    "deepseek-v3": 61 * (512 + 64) * 2,
    "kimi-k2": 61 * (512 + 64) * 2,
    # mla with an indexer: one fp8 key of 128 and a 4-byte scale per layer
    "deepseek-v3.2": 61 * ((512 + 64) * 2 + 128 + 4),
    # ... which 57 of 78 layers share
    "glm-5.2": 78 * (512 + 64) * 2 + 21 * (128 + 4),
    # gqa with an indexer on 57 of 60 layers, its key in bf16
    "minimax-m3": 60 * 4 * (128 + 128) * 2 + 57 * 128 * 2,
    # compressed entries: one per 4 tokens (with an indexer key) in 21 layers, one per 128 in 20
    "deepseek-v4-flash": 21 * (512 * 2 + 132) // 4 + 20 * 512 * 2 // 128,
    # sliding windows: only the global layers grow
    "gemma-3-27b": 10 * 16 * (128 + 128) * 2,
    "gpt-oss-20b": 12 * 8 * (64 + 64) * 2,
    "command-r7b-12-2024": 8 * 8 * (128 + 128) * 2,
    "mistral-7b-v0.1": 0,
    # global layers with heads of their own
    "gemma-4-26b-a4b": 5 * 2 * (512 + 512) * 2,
    # K wider than V
    "mimo-v2-flash": 9 * 4 * (192 + 128) * 2,
    # chunks: every fourth layer attends to everything
    "llama-4-scout": 12 * 8 * (128 + 128) * 2,
    # layers without attention
    "llama-3.3-nemotron-super-49b-v1": 49 * 8 * (128 + 128) * 2,
    # state-space and linear hybrids: KV only where they attend
    "nemotron-h-56b": 10 * 8 * (128 + 128) * 2,
    "nemotron-3-nano-30b-a3b": 6 * 2 * (128 + 128) * 2,
    "jamba-1.5-mini": 4 * 8 * (128 + 128) * 2,
    "granite-4.0-h-small": 4 * 8 * (128 + 128) * 2,
    "falcon-h1-7b": 44 * 2 * (128 + 128) * 2,
    "qwen3.5-27b": 16 * 4 * (256 + 256) * 2,
    "qwen3-next-80b-a3b": 12 * 2 * (256 + 256) * 2,
    "kimi-linear-48b-a3b": 7 * (512 + 64) * 2,
    "kimi-k3": 24 * (512 + 64) * 2,
    "minimax-text-01": 10 * 8 * (128 + 128) * 2,
    "lfm2-1.2b": 6 * 8 * (64 + 64) * 2,
}


@pytest.mark.parametrize(("name", "size"), KV_BYTES_PER_TOKEN.items())
def test_kv_bytes_per_token_by_hand(name: str, size: int) -> None:
    assert model(name).kv_bytes_per_token == size


def test_the_model_of_the_paper() -> None:
    yi = model("yi-34b-200k")
    assert yi.kv_bytes_per_token == 245_760
    assert yi.kv_bytes(50_000) == 12_288_000_000
    assert yi.total_params == yi.active_params == 34_388_917_248
    assert yi.attention_kinds == {"gqa"}
    assert models().get(Model, "yi-34b-200k").context_tokens == 200_000


@pytest.mark.parametrize(
    ("name", "tokens", "size"),
    [
        # 52 local layers keep 1,024 tokens of 16 heads
        ("gemma-3-27b", 1_000_000, 81_920 * 1_000_000 + 52 * 8192 * 1024),
        ("gemma-3-27b", 100, 62 * 8192 * 100),
        ("mistral-7b-v0.1", 1_000_000, 32 * 2048 * 2 * 4096),
        ("gpt-oss-20b", 4000, 12 * 2048 * 4000 + 12 * 2048 * 128),
        # 36 layers keep an aligned chunk of 8,192 tokens
        ("llama-4-scout", 1_000_000, 49_152 * 1_000_000 + 36 * 4096 * 8192),
        # whole compressed entries only: 7 tokens make one of ratio 4 and none of ratio 128
        ("deepseek-v4-flash", 7, 43 * 1024 * 7 + 21 * (1024 + 132)),
    ],
)
def test_kv_bytes_of_a_session(name: str, tokens: int, size: int) -> None:
    assert model(name).kv_bytes(tokens) == size


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # Mamba 2: 3 inputs of the convolution in bf16, one matrix of head_dim x state per head in fp32
        ("nemotron-h-56b", 54 * (3 * (256 * 64 + 2 * 8 * 256) * 2 + 256 * 64 * 256 * 4)),
        ("granite-4.0-h-small", 36 * (3 * (128 * 64 + 2 * 128) * 2 + 128 * 64 * 128 * 2)),
        # Mamba 1
        ("jamba-1.5-mini", 28 * (3 * 8192 * 2 + 8192 * 16 * 2)),
        # delta rule: 2 x 16 key heads and 48 value heads of 128
        ("qwen3.5-27b", 48 * (3 * (2 * 16 + 48) * 128 * 2 + 48 * 128 * 128 * 4)),
        ("kimi-linear-48b-a3b", 20 * (3 * 3 * 32 * 128 * 2 + 32 * 128 * 128 * 4)),
        # lightning attention: no convolution
        ("minimax-text-01", 70 * 64 * 128 * 128 * 4),
        # short convolutions only
        ("lfm2-1.2b", 10 * 2 * 2048 * 2),
        ("llama-3.1-8b", 0),
    ],
)
def test_constant_state_by_hand(name: str, size: int) -> None:
    assert model(name).kv_bytes(0) == size
    assert ("linear" in model(name).attention_kinds) == (size > 0)


@pytest.mark.parametrize("name", GOLDEN["models"])
def test_parameter_counts_equal_those_of_transformers(name: str) -> None:
    assert model(name).total_params == GOLDEN["models"][name]["params"]


def test_every_model_of_the_catalog_has_a_count() -> None:
    assert {entry.id for entry in models().all(Model)} == set(GOLDEN["models"])


@pytest.mark.parametrize("name", GOLDEN["configs"])
def test_counts_of_published_configs(name: str) -> None:
    row = GOLDEN["configs"][name]
    if "why_not_equal" in row:
        assert row["params"] != model(row["model"]).total_params
    else:
        assert row["params"] == model(row["model"]).total_params


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("yi-34b-200k", 34_388_917_248),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("qwen2.5-72b", 72_706_203_648),
    ],
)
def test_published_counts(name: str, published: int) -> None:
    assert model(name).total_params == published


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9),
        ("deepseek-v3", 37),
        ("qwen3-235b-a22b", 22),
        ("qwen3-30b-a3b", 3.3),
        ("kimi-k2", 32),
        ("llama-4-scout", 17),
        ("jamba-1.5-mini", 12),
        ("nemotron-3-super-120b-a12b", 12.7),
        ("mimo-v2-flash", 15),
    ],
)
def test_active_parameters_are_the_published_ones(name: str, billions: float) -> None:
    assert model(name).active_params == pytest.approx(billions * 1e9, rel=0.04)


def test_flops_of_attention() -> None:
    (plain,) = model("yi-34b-200k").layers[0].cache
    assert plain.decode_flops == plain.prefill_flops == 2 * 56 * (128 + 128)
    (latent,) = model("deepseek-v3").layers[0].cache
    # absorbed: scores over latent and rope key, sums over the latent; prefill re-expands K and V of 128 heads
    assert latent.decode_flops == 2 * 128 * ((512 + 64) + 512)
    assert latent.prefill_flops == 2 * 128 * ((128 + 64) + 128)
    assert latent.expand_flops == 2 * 512 * 128 * (128 + 128)
    main, indexer = model("deepseek-v3.2").layers[0].cache
    assert main.read_cap_tokens == 2048
    assert indexer.decode_flops == 2 * 64 * 128
    assert not indexer.compressible


def test_layers_come_in_order() -> None:
    kinds = ["state" if layer.state_bytes else "attention" for layer in model("jamba-1.5-mini").layers]
    assert [i for i, kind in enumerate(kinds) if kind == "attention"] == [4, 12, 20, 28]
    assert [layer.experts is not None for layer in model("deepseek-v3").layers] == [False] * 3 + [True] * 58
    assert model("mixtral-8x7b").layers[0].experts.count == 8
    assert len(model("nemotron-h-56b").layers) == 118


@pytest.mark.parametrize(
    ("name", "bits"),
    [("deepseek-v3", 8), ("gpt-oss-20b", 4.25), ("kimi-k2.5", 4.5), ("llama-3.1-8b", None)],
)
def test_weights_that_are_published_quantised(name: str, bits: float | None) -> None:
    assert model(name).native_weight_bits == bits


@pytest.mark.parametrize("name", MUST_RESOLVE + MEASURED)
def test_names_resolve(name: str) -> None:
    assert models().has(Model, name)


def test_ids_are_the_name_of_the_repository() -> None:
    assert models().get(Model, "Llama-3.1-8B-Instruct").id == "llama-3.1-8b"
    for entry in models().all(Model):
        assert not entry.id.endswith(("-instruct", "-hf", "-it"))


def test_enough_models_of_every_kind() -> None:
    entries = models().all(Model)
    assert len(entries) >= 60
    kinds = frozenset().union(*(model(entry.id).attention_kinds for entry in entries))
    assert kinds == {"mha", "gqa", "mqa", "mla", "sliding", "chunked", "sparse", "linear"}
    assert sum(entry.context_tokens >= 1_000_000 for entry in entries) >= 10
    assert {model(entry.id).dense for entry in entries} == {True, False}


def test_a_window_other_than_the_declared_one_has_a_source() -> None:
    for entry in models().all(Model):
        if model(entry.id).context_tokens != entry.context_tokens:
            sourced = any("context_tokens" in source.fields for source in entry.sources)
            assert sourced or entry.extension.source, entry.id


def test_what_is_recalled_says_so() -> None:
    for entry in models().all(Model):
        assert {source.provenance for source in entry.sources} <= {"found", "secondary", "derived", "recalled"}
        assert all(source.note for source in entry.sources if source.provenance == "recalled"), entry.id
