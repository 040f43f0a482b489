"""Which model is planned when nobody names one, what a model's config is worth, and how long a context it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.read_yaml import read_entries

Plan = Callable[..., Any]
Write = Callable[..., Path]

CHEAP = ("--efficiency", "peak")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
ENTRY = """\
id: mine
name: Mine
hf_id: me/mine
context_tokens: 131072
config_file: mine.json
sources: [{ref: a test}]
checked: 2026-11-01
"""


@pytest.mark.parametrize(
    ("ctx", "gpus", "model"),
    [
        ("8K", "1xL40S", "qwen3-30b-a3b-2507"),
        ("100K", "1xL40S", "qwen3-4b-2507"),
        ("100K", "1xRTX4090", "qwen3-4b-2507"),
        ("50K", "8xA100", "qwen3-30b-a3b-2507"),
        ("256K", "8xMI300X", "qwen3-30b-a3b-2507"),
        ("300K", "8xA100", "nemotron-3-nano-30b-a3b"),
        ("1M", "8xA100", "nemotron-3-nano-30b-a3b"),
        ("1M", "1xH100", "nemotron-3-nano-30b-a3b"),
        ("1M", "8xH100", "nemotron-3-super-120b-a12b"),
        ("1M", "8xB200", "nemotron-3-super-120b-a12b"),
        ("1M", "8xMI300X", "nemotron-3-nano-30b-a3b"),
    ],
)
def test_the_catalog_chooses_a_model_per_length_and_gpu(plan: Plan, ctx: str, gpus: str, model: str) -> None:
    found = plan("evaluate", "--ctx", ctx, "--gpus", gpus, *CHEAP, "--format", "json").json
    assert found["request"]["model"] == model
    assert found["provenance"]["model_choice"].startswith(f"{model} (")
    assert found["metrics"]["window_loss_mean"] == 0


def test_the_first_lines_say_which_model_and_why(plan: Plan) -> None:
    first = plan("evaluate", "--ctx", "1M", "--gpus", "8xA100", *CHEAP).stdout.splitlines()[:7]
    told = " ".join(" ".join(first).split())
    assert "Model: nemotron-3-nano-30b-a3b (nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16)" in told
    assert "as no --model was given" in told
    assert "RULER" in told


def test_a_model_that_was_named_needs_no_reason(plan: Plan) -> None:
    asked = ("--model", "llama-3.1-8b", "--ctx", "50K", "--gpus", "1xA100", *CHEAP)
    assert "Model: " not in plan("evaluate", *asked).stdout


def test_a_named_engine_gets_a_model_that_it_has(plan: Plan) -> None:
    asked = ("--ctx", "1M", "--gpus", "8xA100", "--engine", "lmdeploy", *CHEAP, "--format", "json")
    assert plan("evaluate", *asked).json["request"]["model"] == "qwen3.5-35b-a3b"


def test_a_length_beyond_every_default_says_so(plan: Plan) -> None:
    found = plan("evaluate", "--ctx", "2M", "--gpus", "8xA100", *CHEAP, "--format", "json").json
    assert "beyond every default" in found["provenance"]["model_choice"]
    assert found["metrics"]["window_loss_mean"] > 0.3
    assert found["warnings"]


def test_a_remembered_config_warns(plan: Plan) -> None:
    asked = ("--ctx", "50K", "--gpus", "8xA100", *CHEAP)
    assert "written down from memory" in " ".join(plan("evaluate", "--model", "gemma-3-27b", *asked).stdout.split())
    assert "from memory" not in plan("evaluate", "--model", "qwen2.5-32b", *asked).stdout


def test_a_million_tokens_of_dual_chunk_attention_are_256k(plan: Plan) -> None:
    asked = ("--model", "qwen2.5-14b-1m", "--gpus", "8xA100", *CHEAP, "--format", "json")
    found = plan("evaluate", "--ctx", "1M", *asked).json
    (warning,) = [text for text in found["warnings"] if "dual chunk" in text]
    assert "262144" in warning
    assert found["metrics"]["window_loss_mean"] > 0.5
    assert plan("evaluate", "--ctx", "256K", *asked).json["metrics"]["window_loss_mean"] == 0


def test_a_published_extension_costs_some_quality_and_names_its_factor(plan: Plan) -> None:
    asked = ("--model", "qwen3-32b", "--ctx", "120K", "--gpus", "8xA100", *CHEAP, "--format", "json")
    found = plan("evaluate", *asked).json
    assert 0.1 < found["metrics"]["window_loss_mean"] < 0.2
    assert any("YaRN with factor 4" in text for text in found["warnings"])


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b-2507", "mixtral-8x7b"])
def test_files_for_a_length_that_nothing_reaches_are_refused_before_planning(
    plan: Plan, tmp_path: Path, model: str
) -> None:
    output = plan("--model", model, "--ctx", "300K", "--gpus", "8xH100", "--emit", tmp_path / "d")
    assert output.code == 2
    assert not (tmp_path / "d").exists()
    assert "--ctx" in output.stderr
    assert "no method that extends it so far is known" in output.stderr
    assert "seed-oss-36b" in output.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "llama.cpp"])
def test_a_model_without_positions_gets_none(plan: Plan, tmp_path: Path, engine: str) -> None:
    asked = ("--ctx", "1M", "--gpus", "8xA100", "--engine", engine, "--no-gains", "--emit", tmp_path / "d")
    assert plan(*asked).code == 0
    written = "".join(path.read_text() for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert "yarn" not in written.lower()
    assert "rope" not in written.lower()


@pytest.mark.slow
def test_a_server_without_a_length_has_what_its_config_declares(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("vllm serve Qwen/Qwen3-8B\n")
    found = plan("import", tmp_path / "run.sh", "--gpus", "1xH100", "--format", "json").json
    assert found["plan"]["request"]["ctx"] == 40_960 - 5 * 350


# --------------------------------------------------------------------------- configs as files


def overlay(write_entry: Write, entry: str = ENTRY, config: bytes | None = None) -> Path:
    root = write_entry("models", "mine", entry)
    (root / "configs").mkdir(exist_ok=True)
    (root / "configs" / "mine.json").write_bytes(json.dumps(CONFIG).encode() if config is None else config)
    return root


def test_a_config_of_ones_own_may_be_a_file(plan: Plan, write_entry: Write) -> None:
    root = overlay(write_entry)
    assert plan("evaluate", "--model", "mine", "--ctx", "8K", "--gpus", "1xA100", *CHEAP, "--catalog", root).code == 0


def test_a_changed_config_file_is_seen(plan: Plan, write_entry: Write) -> None:
    root = overlay(write_entry)
    show = ("catalog", "show", "models", "mine", "--format", "json", "--catalog", root)
    before = plan(*show).stdout
    (root / "configs" / "mine.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 16}))
    assert plan(*show).stdout != before


@pytest.mark.parametrize(
    ("entry", "config", "told"),
    [
        (ENTRY + "config: {model_type: llama}\n", None, "write one of the two"),
        (ENTRY.replace("mine.json", "../models/mine.json"), None, "isn't the name of a file"),
        (ENTRY.replace("mine.json", "other.json"), None, "can't be read"),
        (ENTRY, b"{", "give a config.json as the hub has it"),
        (ENTRY, b"[]", "holds no object"),
        (ENTRY.replace("config_file: mine.json\n", ""), None, "write config:, or name a file"),
        (
            ENTRY + "config_grade: recalled\ndefault_for: [{context_tokens: 8K, reason: it is nice, source: a test}]\n",
            None,
            "a default has a config that is proven or copied",
        ),
        (ENTRY + "trained_tokens: 262144\n", None, "trained_tokens is more than context_tokens"),
        (ENTRY + "extension: {method: yarn, to_tokens: 262144, source: a test}\n", None, "give steps"),
    ],
)
def test_what_doesnt_fit_is_told(write_entry: Write, entry: str, config: bytes | None, told: str) -> None:
    problems: list[str] = []
    assert not list(read_entries("models", overlay(write_entry, entry, config), trusted=False, problems=problems))
    (problem,) = problems
    assert told in problem
    assert "mine" in problem


def test_hashes_that_dont_fit_are_told(plan: Plan, write_entry: Write) -> None:
    entry = ENTRY + f'config_grade: proven\nconfig_sha256: "{64 * "0"}"\n'
    output = plan("catalog", "validate", "--catalog", overlay(write_entry, entry))
    assert output.code == 2
    assert "config_sha256: configs/mine.json has " in output.stderr
    assert "no published hash is given" in output.stderr


def test_a_published_hash_proves_the_bytes(plan: Plan, write_entry: Write) -> None:
    raw = json.dumps(CONFIG).encode()
    proof = {"url": "https://hub/me/mine/config.json", "sha256": hashlib.sha256(raw).hexdigest(), "source": "a test"}
    entry = ENTRY + yaml.safe_dump({"config_grade": "proven", "config_published": proof})
    assert plan("catalog", "validate", "--catalog", overlay(write_entry, entry, raw)).code == 0
    changed = plan("catalog", "validate", "--catalog", overlay(write_entry, entry, raw + b"\n"))
    assert changed.code == 2
    assert "the published hash is" in changed.stderr
