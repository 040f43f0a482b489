"""Reading configs that nobody vouches for: every one is understood, or refused with file, field and fix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catalog.architecture import UnknownArchitectureError, read_config
from catalog.architecture.read import MAX_BYTES, READERS, WRAPPERS, read_config_file

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
DEEP = "[" * 100_000 + "]" * 100_000


def problems_of(config: Any, **changes: Any) -> list[str]:
    values = {**config, **changes}
    with pytest.raises(UnknownArchitectureError) as refusal:
        read_config({key: value for key, value in values.items() if value is not ...}, where="my.json")
    return refusal.value.problems


def refusal_of(path: Path) -> str:
    with pytest.raises(UnknownArchitectureError) as refusal:
        read_config_file(path)
    return str(refusal.value)


# --------------------------------------------------------------------------- files


def test_reads_a_file_or_the_directory_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config_file(tmp_path) == read_config_file(tmp_path / "config.json") == read_config(LLAMA)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "isn't JSON"),
        (json.dumps(LLAMA)[:-20], "isn't JSON: .* at line 1, column"),
        ("[1, 2]", "holds a list, no object"),
        ("null", "holds null, no object"),
        ("7", "holds 7, no object"),
        (DEEP, "nested too deeply"),
        ('{"a": ' * 100_000, "isn't JSON|nested too deeply"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "isn't a usable JSON file"),
        ('{"hidden_size": 1, "hidden_size": 2}', "'hidden_size' is given twice"),
        ("<html>Access to this model is restricted</html>", "isn't JSON"),
        ("version https://git-lfs.github.com/spec/v1", "isn't JSON"),
    ],
)
def test_refuses_files_that_are_no_config(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UnknownArchitectureError, match=words):
        read_config_file(path)
    assert refusal_of(path).startswith(str(path))


def test_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": "\xff\xfe"}')
    assert "UTF-8" in refusal_of(path)


def test_refuses_a_missing_file_a_pipe_and_a_huge_one(tmp_path: Path) -> None:
    assert "doesn't exist" in refusal_of(tmp_path / "nowhere.json")
    assert "doesn't exist" in refusal_of(tmp_path)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert "isn't a file" in refusal_of(pipe)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert "larger than 16 MiB" in refusal_of(huge)


def test_an_infinite_number_beside_the_point_is_fine(tmp_path: Path) -> None:
    # Published Nemotron-H configs have one.
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "time_step_limit": [0.0, float("inf")]}))
    assert read_config_file(tmp_path).total_params == 8_030_261_248


# --------------------------------------------------------------------------- model_type


def test_an_unknown_type_names_the_field_and_the_nearest() -> None:
    (problem,) = problems_of(LLAMA, model_type="qwen4", kv_lora_rank=512)
    assert problem.startswith("my.json: model_type: 'qwen4' isn't known; did you mean qwen")


def test_an_encoder_is_told_to_be_one() -> None:
    (problem,) = problems_of(LLAMA, model_type="bert")
    assert "caches nothing" in problem


@pytest.mark.parametrize(
    "foreign", [{}, {"kv_lora_rank": 512}, {"mamba_d_state": 16}, {"num_experts": 8}, {"sliding_window": 512}]
)
def test_an_unknown_type_that_may_cache_otherwise_is_not_called_a_llama(foreign: dict[str, int]) -> None:
    (problem,) = problems_of({**LLAMA, **foreign}, model_type="fresh")
    assert "set model_type" not in problem
    assert "isn't read as another" in problem


@pytest.mark.parametrize("value", [..., None, 7, [], ""])
def test_a_type_that_is_none(value: Any) -> None:
    (problem,) = problems_of(LLAMA, model_type=value)
    assert "model_type" in problem
    assert "llama" in problem


def test_a_text_model_inside_a_wrapper() -> None:
    text = {key: value for key, value in LLAMA.items() if key != "model_type"}
    wrapped = {"model_type": "mistral3", "text_config": {**text, "model_type": "mistral"}}
    assert read_config(wrapped).kv_bytes_per_token == read_config(LLAMA).kv_bytes_per_token
    assert read_config(wrapped).model_type == "mistral3"
    (problem,) = problems_of(wrapped, text_config={**text, "model_type": "mystery"})
    assert problem.startswith("my.json: text_config.model_type: 'mystery' isn't known")
    (problem,) = problems_of(wrapped, text_config=...)
    assert problem.startswith("my.json: text_config: missing")
    assert any("text_config.hidden_size" in p for p in problems_of(wrapped, text_config={"model_type": "mistral"}))


def test_an_unknown_wrapper_of_a_known_model() -> None:
    (problem,) = problems_of({"model_type": "new_vl", "text_config": LLAMA})
    assert "give its text_config as a config.json" in problem


def test_tied_embeddings_may_be_declared_outside() -> None:
    text = {key: value for key, value in LLAMA.items() if key != "model_type"}
    wrapped = {"model_type": "mistral3", "text_config": text}
    assert read_config({**wrapped, "tie_word_embeddings": True}).tied
    assert not read_config({**wrapped, "tie_word_embeddings": False}).tied


def test_every_wrapper_leads_to_a_reader() -> None:
    assert set(WRAPPERS.values()) <= set(READERS)


# --------------------------------------------------------------------------- fields


@pytest.mark.parametrize("field", [name for name in LLAMA if name not in ("model_type", "num_key_value_heads")])
@pytest.mark.parametrize("value", [..., "4096", -1, 0, 1.5, 4096.0, True, [4096], {}, float("nan"), 10**400])
def test_a_wrong_value_names_its_field(field: str, value: Any) -> None:
    problems = problems_of(LLAMA, **{field: value})
    assert any(problem.startswith(f"my.json: {field}: ") for problem in problems)
    assert all(len(problem) < 300 for problem in problems)


def test_all_problems_at_once() -> None:
    problems = problems_of(LLAMA, hidden_size=-1, vocab_size="many", num_hidden_layers=...)
    assert [problem.split(": ")[1] for problem in problems] == ["num_hidden_layers", "hidden_size", "vocab_size"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_key_value_heads": 7}, "num_key_value_heads"),
        ({"num_key_value_heads": 64}, "num_key_value_heads"),
        ({"hidden_size": 4097, "head_dim": ...}, "num_attention_heads"),
        ({"num_hidden_layers": 10_001}, "num_hidden_layers"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"rope_scaling": {"type": "linear", "factor": -2}}, "rope_scaling.factor"),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
    ],
)
def test_values_that_contradict_each_other(changes: dict[str, Any], field: str) -> None:
    assert any(problem.startswith(f"my.json: {field}: ") for problem in problems_of(LLAMA, **changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", 4096),
        ("layer_types", ["sliding_attention"] * 32),
        ("kv_lora_rank", 512),
        ("index_topk", 2048),
        ("attention_chunk_size", 8192),
        ("hybrid_override_pattern", "M*"),
        ("num_kv_shared_layers", 10),
        ("cla_share_factor", 2),
        ("compress_ratios", [4] * 32),
    ],
)
def test_a_field_that_changes_the_cache_is_never_ignored(field: str, value: Any) -> None:
    assert any(problem.startswith(f"my.json: {field}") for problem in problems_of(LLAMA, **{field: value}))


@pytest.mark.parametrize("value", [None, False, 0, [], "", {}])
def test_the_same_field_switched_off_is_fine(value: Any) -> None:
    assert read_config({**LLAMA, "sliding_window": value, "layer_types": None}) == read_config(LLAMA)


def test_an_unknown_kind_of_layer_is_refused() -> None:
    qwen = {**LLAMA, "model_type": "qwen3", "use_sliding_window": False}
    kinds = ["full_attention"] * 31 + ["lightning_attention"]
    (problem,) = problems_of(qwen, layer_types=kinds)
    assert "layer_types[31]: unknown kind of layer 'lightning_attention'" in problem
    assert "layer_types: 31 entries for 32 layers" in problems_of(qwen, layer_types=kinds[:31])[0]


def test_a_model_that_caches_nothing_is_refused() -> None:
    pattern = {"model_type": "nemotron_h", "hybrid_override_pattern": "----", "num_hidden_layers": ...}
    (problem,) = problems_of({**LLAMA, **pattern})
    assert "no layer keeps a cache or a state" in problem


# --------------------------------------------------------------------------- windows and context


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({}, 131_072),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131_072),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131_072),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 524_288),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 262_144),
        ({"model_max_length": 200_000}, 200_000),
        ({"model_max_length": 10**30}, 131_072),
    ],
)
def test_declared_context(changes: dict[str, Any], context: int) -> None:
    assert read_config({**LLAMA, **changes}).context_tokens == context


def test_a_window_that_never_binds_is_full_attention() -> None:
    mistral = {**LLAMA, "model_type": "mistral"}
    assert read_config({**mistral, "sliding_window": 131_072}).attention_kinds == {"gqa"}
    assert read_config({**mistral, "sliding_window": 4096}).attention_kinds == {"sliding"}
    assert read_config({**mistral, "sliding_window": None}).attention_kinds == {"gqa"}


def test_upper_layers_of_qwen_have_the_window_only_where_it_is_switched_on() -> None:
    qwen = {**LLAMA, "model_type": "qwen2", "sliding_window": 4096, "max_window_layers": 28}
    assert read_config({**qwen, "use_sliding_window": False}).attention_kinds == {"gqa"}
    layers = read_config({**qwen, "use_sliding_window": True}).layers
    assert [layer.cache[0].kind for layer in layers] == ["gqa"] * 28 + ["sliding"] * 4


def test_layers_that_share_a_cache_store_it_once() -> None:
    gemma = {
        "model_type": "gemma4_text",
        "hidden_size": 1536,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "global_head_dim": 512,
        "intermediate_size": 6144,
        "vocab_size": 262_144,
        "max_position_embeddings": 131_072,
        "sliding_window": 512,
        "layer_types": ["sliding_attention"] * 4 + ["full_attention"] + ["sliding_attention"] * 4 + ["full_attention"],
    }
    assert read_config(gemma).kv_bytes_per_token == 2 * (512 + 512) * 2
    shared = read_config({**gemma, "num_kv_shared_layers": 5})
    assert shared.kv_bytes_per_token == 1 * (512 + 512) * 2
    assert shared.layers[9].cache[0].read_elements == 1024
    assert shared.layers[9].kv_params == 0


# --------------------------------------------------------------------------- quantised checkpoints


@pytest.mark.parametrize(
    ("quantisation", "bits"),
    [
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.125),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8.0),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 32}}}}, 4.5),
        ({"config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}}, 8.0),
        ({"config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {}}}, None),
        ({"quant_method": "a-new-one"}, None),
        ({"quant_method": "awq", "bits": "four"}, None),
        ("fp8", None),
    ],
)
def test_native_bits_per_weight(quantisation: Any, bits: float | None) -> None:
    assert read_config({**LLAMA, "quantization_config": quantisation}).native_weight_bits == bits
