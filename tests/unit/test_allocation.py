"""What vLLM allocates: equal, to the block, to the plans that its own planner made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from catalog.architecture import Architecture, read_config
from catalog.load import Catalog, built_in_directory
from catalog.schema import Model
from planner.cost.allocation import NotCoveredError, bytes_per_token_head, pipeline_stages, vllm_capacity

GOLDEN = Path(__file__).parents[1] / "golden" / "vllm_kv_plans.jsonl"
PLANS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]


@dataclass(frozen=True)
class Format:
    """A KV format as vLLM 0.33 lays it out (bits of K and V; scales per token and head)."""

    k_bits: float = 16
    v_bits: float = 16
    scale_bytes_per_head: float = 0
    group_elements: int | None = None
    unquantised_edge_layers: int = 0


FP8 = Format(8, 8)
FORMATS = {
    "fp8": FP8,
    "fp8_e4m3": FP8,
    "fp8_e5m2": FP8,
    "int8_per_token_head": Format(8, 8, 8),
    "int4_per_token_head": Format(4, 4, 8),
    "nvfp4": Format(4, 4, 0, 16),
    "turboquant_k8v4": Format(8, 4, 4, None, 2),
    "turboquant_4bit_nc": Format(4, 4, 6, None, 2),
    "turboquant_k3v4_nc": Format(3, 4, 6, None, 2),
    "turboquant_3bit_nc": Format(3, 3, 6, None, 2),
}


@cache
def model(name: str) -> Architecture:
    return read_config(Catalog([built_in_directory()]).get(Model, name).config)


def name_of(plan: dict) -> str:
    extra = ",".join(f"{key}={value}" for key, value in plan["extra"].items() if key != "max_model_len")
    return f"{plan['model']}-{plan['cap']}-{extra}{'-aligned' if plan['aligned'] else ''}"


@pytest.mark.parametrize("plan", PLANS, ids=name_of)
def test_equals_the_plan_of_vllm(plan: dict) -> None:
    extra = plan["extra"]
    capacity = vllm_capacity(
        model(plan["model"]),
        available_bytes=plan["available_gib"] << 30,
        max_model_len=plan["max_model_len"],
        max_num_batched_tokens=plan["max_num_batched_tokens"],
        kv_format=FORMATS[extra["kv_cache_dtype"]] if "kv_cache_dtype" in extra else None,
        tp=extra.get("tensor_parallel_size", 1),
        pp=extra.get("pipeline_parallel_size", 1),
        dcp=extra.get("decode_context_parallel_size", 1),
        block_tokens=plan.get("aligned_block_tokens", 16) if plan["model"] in ("deepseek-v3.2", "glm-5") else 16,
        aligned=plan["aligned"],
    )
    assert capacity.blocks == plan["num_blocks"]
    assert capacity.tokens == plan["tokens"]
    assert capacity.concurrency == pytest.approx(plan["concurrency"], abs=6e-4)
    if plan["aligned"]:
        assert capacity.block_tokens == plan["aligned_block_tokens"]


def test_the_plans_cover_every_kind_of_cache() -> None:
    kinds = frozenset().union(*(model(plan["model"]).attention_kinds for plan in PLANS))
    assert kinds >= {"gqa", "mla", "sliding", "chunked", "sparse", "linear"}
    assert len(PLANS) >= 35


def test_worked_example_of_the_docs() -> None:
    # Llama 3.1 8B, 55 GiB, bf16: 32 layers x 8 heads x 256 elements x 2 B = 131,072 B per token,
    # 2 MiB per block of 16; 55 GiB / 2 MiB = 28,160 blocks; 131,072 tokens take 8,192 of them.
    capacity = vllm_capacity(
        model("llama-3.1-8b"), available_bytes=55 << 30, max_model_len=131_072, max_num_batched_tokens=2048
    )
    assert (capacity.blocks, capacity.blocks_per_request, capacity.tokens) == (28_160, 8_192, 450_560)
    assert capacity.concurrency == 28_160 / 8_192


def test_a_window_keeps_only_its_tokens_and_those_in_flight() -> None:
    # Mistral 7B v0.1: 4,096 - 1 + 2 * 2,048 tokens in blocks of 16, and one block more.
    capacity = vllm_capacity(
        model("mistral-7b-v0.1"), available_bytes=8 << 30, max_model_len=32_768, max_num_batched_tokens=2048
    )
    assert capacity.blocks_per_request == -(-(4_095 + 4_096) // 16) + 1


def test_starts_only_if_one_request_fits_beside_the_null_block() -> None:
    architecture = model("llama-3.1-8b")
    block = 16 * 131_072

    def start(blocks: int) -> bool:
        return vllm_capacity(
            architecture, available_bytes=blocks * block, max_model_len=16_000, max_num_batched_tokens=2048
        ).starts

    assert start(1001)
    assert not start(1000)


def test_the_one_group_of_a_state_is_copied_to_every_rank() -> None:
    # Granite 4 Small on 2 GPUs: each holds 64 of 128 heads, half of the channels and the whole of B and C
    # (vLLM 0.33, MambaStateShapeCalculator.mamba2_state_shape). Four layers per group.
    capacity = vllm_capacity(
        model("granite-4.0-h-small"),
        available_bytes=8 << 30,
        max_model_len=8192,
        max_num_batched_tokens=2048,
        tp=2,
        aligned=False,
    )
    assert capacity.bytes_per_block == 4 * (3 * (8192 // 2 + 2 * 128) * 2 + 64 * 64 * 128 * 2)


@pytest.mark.parametrize(
    ("k_dim", "v_dim", "kv_format", "size"),
    [
        (128, 128, Format(8, 8), 256),
        (64, 64, FORMATS["int8_per_token_head"], 136),
        (128, 128, FORMATS["int4_per_token_head"], 136),
        (128, 128, FORMATS["nvfp4"], 144),
        (64, 64, FORMATS["nvfp4"], 72),
        (128, 128, FORMATS["turboquant_k8v4"], 196),
        (256, 256, FORMATS["turboquant_4bit_nc"], 262),
        (64, 64, FORMATS["turboquant_k3v4_nc"], 62),
        (128, 128, FORMATS["turboquant_3bit_nc"], 102),
    ],
)
def test_bytes_per_token_and_head_of_the_formats(k_dim: int, v_dim: int, kv_format: Format, size: int) -> None:
    assert bytes_per_token_head(k_dim, v_dim, kv_format) == size


@pytest.mark.parametrize(
    ("layers", "pp", "counts"), [(80, 2, [40, 40]), (80, 3, [27, 27, 26]), (61, 4, [15, 15, 16, 15]), (3, 3, [1, 1, 1])]
)
def test_pipeline_stages_are_cut_as_vllm_does(layers: int, pp: int, counts: list[int]) -> None:
    assert [len(stage) for stage in pipeline_stages(layers, pp)] == counts


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("deepseek-v4-flash", {}, "with a window isn.t modelled"),
        ("qwen3.5-27b", {}, "only Mamba2 states"),
        ("gemma-4-26b-a4b", {"tp": 8, "dcp": 2}, "no decode-context parallelism"),
        ("llama-3.1-8b", {"tp": 8, "dcp": 2}, "at most tp / KV heads"),
        ("llama-3.1-8b", {"pp": 33}, "can't be cut into 33 stages"),
        ("deepseek-v3", {"kv_format": FORMATS["int4_per_token_head"]}, "16 or 8 bits"),
        ("gpt-oss-20b", {"kv_format": FORMATS["turboquant_k8v4"]}, "plain full attention only"),
    ],
)
def test_says_what_it_does_not_know(name: str, options: dict, words: str) -> None:
    with pytest.raises(NotCoveredError, match=words):
        vllm_capacity(model(name), available_bytes=40 << 30, max_model_len=8192, max_num_batched_tokens=2048, **options)


def test_refuses_sizes_that_are_none() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        vllm_capacity(model("llama-3.1-8b"), available_bytes=1, max_model_len=0, max_num_batched_tokens=1)
