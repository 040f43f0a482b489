"""Families read exactly: their parameters are those that transformers counts, and what they cache is their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.architecture.quantisation import read_quantisation
from catalog.architecture.read import read_config

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "family_counts.json").read_text())["models"]
PLAIN = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
PLAIN |= {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_parameters_are_those_that_transformers_counts(name: str) -> None:
    assert read_config(GOLDEN[name]["config"]).total_params == GOLDEN[name]["params"]


def test_layers_that_look_at_the_image_cache_no_text() -> None:
    mllama = read_config(GOLDEN["mllama"]["config"])
    assert mllama.kv_bytes_per_token == 32 * 2 * 8 * 128 * 2


def test_a_wrapper_ties_embeddings_as_its_top_says() -> None:
    config = {**GOLDEN["qwen2_5_vl"]["config"], "tie_word_embeddings": True}
    untied = read_config({**config, "tie_word_embeddings": False})
    assert untied.total_params - read_config(config).total_params == untied.head_params


@pytest.mark.parametrize(
    ("quantised", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.125),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8.0),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, 4.125),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4.127),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8.0),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]}, 8.0),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8.0),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, 4.125),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "group_size": 64}}},
            4.25,
        ),
        ({"quant_method": "torchao", "quant_type": "float8_weight_only"}, 8.0),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, 4.25),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}}, 4.25),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, 8.0),
        ({"quant_method": "eetq", "weights": "int8"}, 8.0),
        ({"quant_method": "zipped", "bits": 3}, None),
        ({"quant_method": "aqlm", "nbits_per_codebook": 16}, None),
    ],
)
def test_every_method_has_its_bits_or_is_told(quantised: dict[str, Any], bits: float | None) -> None:
    found = read_config({**PLAIN, "quantization_config": quantised})
    assert found.native_weight_bits == bits
    assert found.quantised_by is not None


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        ({"num_bits": 4, "type": "float", "group_size": 16}, 4.5),
        ({"num_bits": 4, "type": "float", "group_size": 32}, 4.25),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, 8.0),
        ({"num_bits": 4, "type": "int", "group_size": 128}, 4.125),
        ({"num_bits": 8, "type": "int", "strategy": "channel"}, 8.0),
    ],
)
def test_groups_of_compressed_tensors(weights: dict[str, Any], bits: float) -> None:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    found = read_quantisation({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}})
    assert found is not None
    assert found.bits == bits
