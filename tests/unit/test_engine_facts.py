"""What engines take: bytes per token and head, backends and GPUs, as the engines themselves say."""

from __future__ import annotations

import pytest

from catalog.load import Catalog, built_in_directory
from catalog.schema import Engine, EngineRule, Hardware, KvFormat, Technique
from planner.cost.allocation import bytes_per_token_head

FACTS = Catalog([built_in_directory()])
ENGINES = FACTS.all(Engine)
CAPABILITIES = {gpu.compute_capability for gpu in FACTS.all(Hardware)} | {"cpu"}
KINDS = {"mha", "gqa", "mqa", "mla", "sliding", "chunked", "sparse", "linear"}


def _ids(engine: Engine) -> str:
    return engine.id


def _points(engine: Engine) -> set[str]:
    """Points of the catalog that an engine stores caches or weights in."""
    return {f.technique_point for f in engine.kv_formats} | {f.technique_point for f in engine.weight_formats}


def _formats(engine: str, option: str, capability: str, attention: str = "gqa") -> list[KvFormat]:
    return [
        kv_format
        for kv_format in FACTS.get(Engine, engine).kv_formats
        if kv_format.option == option
        and capability in kv_format.compute_capabilities
        and attention in kv_format.attention
    ]


# --------------------------------------------------------------------------- bytes

VLLM_BYTES = {
    "bfloat16": (256, 512, 1024),
    "fp8_e4m3": (128, 256, 512),
    "fp8_e5m2": (128, 256, 512),
    "int8_per_token_head": (136, 264, 520),
    "int4_per_token_head": (72, 136, 264),
    "turboquant_k8v4": (100, 196, 388),
    "turboquant_4bit_nc": (70, 134, 262),
    "turboquant_k3v4_nc": (62, 118, 230),
    "turboquant_3bit_nc": (54, 102, 198),
    "nvfp4": (72, 144, 288),
}
"""Bytes of K and V per token and KV head at head dimensions 64, 128 and 256, from vLLM 0.33.0's own cache specs."""


@pytest.mark.parametrize("dim", [64, 128, 256])
def test_vllm_formats_take_the_bytes_that_vllm_allocates(dim: int) -> None:
    column = {64: 0, 128: 1, 256: 2}[dim]
    for kv_format in FACTS.get(Engine, "vllm").kv_formats:
        if not set(kv_format.attention) & {"gqa"}:
            continue
        expected = VLLM_BYTES[kv_format.option][column]
        assert bytes_per_token_head(dim, dim, kv_format) == expected, kv_format.option


def test_every_vllm_format_is_in_the_table() -> None:
    assert {kv_format.option for kv_format in FACTS.get(Engine, "vllm").kv_formats} == set(VLLM_BYTES)


@pytest.mark.parametrize(("option", "mib"), [("f16", 128), ("q8_0", 68), ("q4_0", 36)])
def test_llama_cpp_formats_take_the_bytes_that_it_reports(option: str, mib: int) -> None:
    """A model of 2 layers with 2 KV heads of 64 at a context of 131072, measured in the running engine."""
    (kv_format,) = _formats("llama.cpp", option, "8.0")
    assert 131_072 * 2 * 2 * bytes_per_token_head(64, 64, kv_format) == mib * 2**20


def test_llama_cpp_mixed_format_is_half_of_each() -> None:
    (kv_format,) = _formats("llama.cpp", "q8_0/q4_0", "8.0")
    assert bytes_per_token_head(64, 64, kv_format) == 68 + 36


# --------------------------------------------------------------------------- GPUs and backends

TURBOQUANT = {f"turboquant_{name}": "TURBOQUANT" for name in ("k8v4", "4bit_nc", "k3v4_nc", "3bit_nc")}
PER_TOKEN_HEAD = {"int8_per_token_head": "TRITON_ATTN", "int4_per_token_head": "TRITON_ATTN"}
FLASHINFER = {"fp8_e4m3": "FLASHINFER", "fp8_e5m2": "FLASHINFER", "nvfp4": "FLASHINFER"}
VLLM_BACKENDS = {
    "8.0": {"bfloat16": "FLASH_ATTN", **FLASHINFER, **PER_TOKEN_HEAD, **TURBOQUANT},
    "8.9": {"bfloat16": "FLASH_ATTN", **FLASHINFER, **PER_TOKEN_HEAD, **TURBOQUANT},
    "9.0": {"bfloat16": "FLASH_ATTN", **FLASHINFER, "fp8_e4m3": "FLASH_ATTN", **PER_TOKEN_HEAD, **TURBOQUANT},
    "10.0": {"bfloat16": "FLASHINFER", **FLASHINFER, **PER_TOKEN_HEAD, **TURBOQUANT},
    "12.0": {"bfloat16": "FLASH_ATTN", **FLASHINFER, **PER_TOKEN_HEAD, **TURBOQUANT},
}
"""First choice of vLLM 0.33.0's own selector for GQA with head dimension 128; nvfp4 on 10.0 is trtllm-gen's."""


@pytest.mark.parametrize("capability", VLLM_BACKENDS)
def test_vllm_takes_the_formats_that_its_selector_takes(capability: str) -> None:
    found = {
        kv_format.option: kv_format.backend[capability]
        for kv_format in FACTS.get(Engine, "vllm").kv_formats
        if capability in kv_format.compute_capabilities and "gqa" in kv_format.attention
    }
    assert found == VLLM_BACKENDS[capability]


def test_fp8_on_ampere_is_flashinfer_only_and_never_for_latents_or_sinks() -> None:
    for option in ("fp8_e4m3", "fp8_e5m2"):
        (kv_format,) = _formats("vllm", option, "8.0")
        assert kv_format.backend["8.0"] == "FLASHINFER"
        assert kv_format.head_dims == (64, 128, 256, 512)
        assert not kv_format.attention_sinks
        assert not _formats("vllm", option, "8.0", attention="mla")
    assert _formats("vllm", "fp8_e4m3", "9.0", attention="mla")


def test_int8_per_token_head_is_the_format_for_sinks_on_ampere() -> None:
    (kv_format,) = _formats("vllm", "int8_per_token_head", "8.0", attention="sliding")
    assert kv_format.attention_sinks
    assert not kv_format.head_dims


def test_turboquant_keeps_edge_layers_and_needs_plain_attention() -> None:
    formats = [f for f in FACTS.get(Engine, "vllm").kv_formats if f.option.startswith("turboquant")]
    assert len(formats) == 4
    for kv_format in formats:
        assert kv_format.unquantised_edge_layers == 2
        assert set(kv_format.attention) == {"mha", "gqa", "mqa"}


def test_sparse_latents_have_no_kernel_on_ampere_and_sparse_blocks_have_one() -> None:
    vllm = FACTS.get(Engine, "vllm")
    assert {"8.0", "9.0"} <= set(vllm.attention["sparse"])
    assert "8.0" in vllm.attention["mla"]
    rule = FACTS.get(EngineRule, "vllm-dsa-before-hopper")
    assert (rule.verdict, rule.when.compute_capabilities) == ("refuses", ("8.0", "8.6", "8.9"))


def test_ampere_has_no_fp8_cache_outside_vllm_and_sglang() -> None:
    for engine in ENGINES:
        on_ampere = {f.technique_point for f in engine.kv_formats if "8.0" in f.compute_capabilities}
        assert ("kv_fp8_e4m3" in on_ampere) == (engine.id == "vllm")
        assert ("kv_fp8_e5m2" in on_ampere) == (engine.id in ("vllm", "sglang"))


# --------------------------------------------------------------------------- consistency


@pytest.mark.parametrize("engine", ENGINES, ids=_ids)
def test_capabilities_are_those_of_some_gpu(engine: Engine) -> None:
    everywhere = set(engine.compute_capabilities)
    assert everywhere <= CAPABILITIES
    for capabilities in [
        *engine.attention.values(),
        *(f.compute_capabilities for f in engine.kv_formats),
        *(f.compute_capabilities for f in engine.weight_formats),
    ]:
        assert capabilities
        assert set(capabilities) <= everywhere
        assert len(set(capabilities)) == len(capabilities)
    for kv_format in engine.kv_formats:
        assert set(kv_format.backend) <= set(kv_format.compute_capabilities)


@pytest.mark.parametrize("engine", ENGINES, ids=_ids)
def test_plain_cache_and_weights_work_wherever_the_engine_does(engine: Engine) -> None:
    (plain,) = (f for f in engine.kv_formats if f.technique_point == "kv_bf16")
    assert (plain.k_bits, plain.v_bits, plain.scale_bytes_per_head) == (16, 16, 0)
    assert set(plain.compute_capabilities) == set(engine.compute_capabilities)
    assert set(plain.attention) == set(engine.attention) <= KINDS
    (weights,) = (f for f in engine.weight_formats if f.technique_point == "w_bf16")
    assert set(weights.compute_capabilities) == set(engine.compute_capabilities)


@pytest.mark.parametrize("engine", ENGINES, ids=_ids)
def test_formats_name_points_of_the_catalog(engine: Engine) -> None:
    for name in _points(engine):
        technique, point = FACTS.point(name)
        assert technique.dimension == ("weights" if name.startswith("w_") else "hidden")
        assert point.id == name


@pytest.mark.parametrize("engine", ENGINES, ids=_ids)
def test_one_format_per_point_gpu_and_kind_of_attention(engine: Engine) -> None:
    seen = set()
    for kv_format in engine.kv_formats:
        for capability in kv_format.compute_capabilities:
            for kind in kv_format.attention:
                key = (kv_format.technique_point, capability, kind)
                assert key not in seen
                seen.add(key)


@pytest.mark.parametrize("engine", ENGINES, ids=_ids)
def test_quantised_formats_are_smaller_than_bf16(engine: Engine) -> None:
    for kv_format in engine.kv_formats:
        dims = kv_format.head_dims or (64, 128, 256)
        for dim in dims:
            size = bytes_per_token_head(dim, dim, kv_format)
            assert size <= 4 * dim
            assert size < 4 * dim or kv_format.technique_point == "kv_bf16"


OTHER_BACKENDS = {
    ("w_fp8", "lmdeploy"),
    ("w_int8_w8a8", "lmdeploy"),
    ("w_int8_w8a8", "tensorrt-llm"),
    ("w_qserve_w4a8", "tensorrt-llm"),
}
"""Shipped in LMDeploy's PyTorch engine or TensorRT-LLM's legacy one, which the catalog's entries don't describe."""


def test_techniques_and_engines_agree_on_who_ships_a_format() -> None:
    """A technique that says that an engine ships its point is borne out by a format of that engine."""
    known = {engine.id: _points(engine) for engine in ENGINES}
    missing = {
        (point.id, support.engine)
        for technique in FACTS.all(Technique)
        if technique.dimension in ("hidden", "weights") and not technique.requires_native_model
        for support in technique.engines
        if support.status == "ships" and support.engine in known
        for point in technique.points
        if (not support.points or point.id in support.points) and point.id not in known[support.engine]
    }
    assert missing == OTHER_BACKENDS
