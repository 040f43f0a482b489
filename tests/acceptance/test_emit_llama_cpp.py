"""A real engine starts from an emitted command: llama.cpp, on a model of random numbers made here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from catalog.architecture.read import read_config_file
from catalog.load import open_catalog
from catalog.schema import Engine
from planner.cost.workspace import step_bytes
from planner.emit import emit
from tests.plans import flat_plan, plan_of

PLAN = Path(__file__).parents[1] / "golden" / "emit" / "plans" / "llamacpp-q8.json"
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, WINDOW = 2, 256, 4, 2, 64, 512, 131_072
CONTEXT, SESSIONS = 500, 3

SERVER = Path(__file__).with_name("llama_cpp_server.py")


def test_llama_cpp_starts_from_the_emitted_command_with_the_planned_capacity(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    content = flat_plan(PLAN.stem)
    content["request"] |= {"model": str(tmp_path), "ctx": CONTEXT}
    content["decision"]["batch"] |= {"decode_sequences": 2, "resident_sessions": SESSIONS}
    files = emit(plan_of(content), "llama.cpp", open_catalog(), checkpoint=str(model))
    flags = flags_of(files["llama.cpp/serve.sh"])
    run = subprocess.run(
        [sys.executable, str(SERVER), json.dumps(flags), str(CONTEXT - 10)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=True,
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    longest = CONTEXT + 5 * 350
    assert seen["slots"] == SESSIONS
    assert longest <= seen["context"] < longest + 256
    assert len(seen["answers"]) == SESSIONS
    for usage in seen["answers"]:
        assert CONTEXT - 20 < usage["prompt_tokens"] <= CONTEXT
        assert usage["completion_tokens"] >= 1
    # What it reserves for a step is in the plan's workspace, with no more than a quarter to spare.
    buffers = sum(float(size) for size in re.findall(r"compute buffer size\s*=\s*([\d.]+) MiB", run.stderr)) * 2**20
    memory = open_catalog().get(Engine, "llama.cpp").memory
    assert memory is not None
    assert memory.step is not None
    on_processor = memory.step.model_copy(update={"unpacked_kv_bytes": 0.0})
    architecture = read_config_file(tmp_path)
    assert int(flags["ubatch-size"]) == min(memory.step.most_tokens, int(flags["batch-size"]))
    reserved = step_bytes(on_processor, architecture, int(flags["ubatch-size"]), seen["context"])
    assert 0.75 * reserved <= buffers <= reserved
    # q8_0 keeps 8.5 bits per element; llama.cpp says what it has allocated.
    sizes = [float(size) for size in re.findall(r"llama_kv_cache: size\s*=\s*([\d.]+) MiB", run.stderr)]
    expected = SESSIONS * seen["context"] * LAYERS * 2 * KV_HEADS * HEAD_DIM * 8.5 / 8 / 2**20
    assert sum(sizes) == pytest.approx(expected, abs=0.02)


def flags_of(script: str) -> dict[str, Any]:
    """Return the flags of the emitted command, those without a value as True."""
    line = next(line for line in script.replace("\\\n", " ").splitlines() if line.startswith("exec llama-server"))
    words = shlex.split(line)[2:]
    flags: dict[str, Any] = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            flags[word.removeprefix("--")] = True if after.startswith("--") else after
    return flags


def make_model(directory: Path) -> Path:
    """Write a Llama of random numbers as GGUF, and its ``config.json`` for the planner."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "intermediate_size": FFN,
        "vocab_size": 354,
        "max_position_embeddings": WINDOW,
        "tie_word_embeddings": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    path = directory / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
    tokens += ["\u2581".encode(), *(bytes([code]) for code in range(33, 127))]  # a space has a spelling of its own
    _describe(writer, tokens)
    numbers = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (numbers.standard_normal(shape) * 0.02).astype(np.float16))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, np.float32))

    tensor("token_embd.weight", len(tokens), HIDDEN)
    tensor("output.weight", len(tokens), HIDDEN)
    ones("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        tensor(block + "attn_q.weight", HEADS * HEAD_DIM, HIDDEN)
        tensor(block + "attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        tensor(block + "attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        tensor(block + "attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
        tensor(block + "ffn_gate.weight", FFN, HIDDEN)
        tensor(block + "ffn_up.weight", FFN, HIDDEN)
        tensor(block + "ffn_down.weight", HIDDEN, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, tokens: list[bytes]) -> None:
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(95)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 95)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
