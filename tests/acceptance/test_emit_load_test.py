"""The emitted load test against real engines: it names its sessions, and later questions come from the cache.

Slow (minutes), and it needs an environment with aiperf and the routers: docs/deploy.md says how to make it.

    PLAN_OPERATOR=/path/to/environment pytest -m slow tests/acceptance/test_emit_load_test.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner.emit import emit, write
from planner.emit.check_speed import CACHED_AT_LEAST, cached_share, read_requests, turn
from planner.emit.read_deployment import read_deployment
from planner.plan import Document
from tests.acceptance import test_emit_vllm_cpu as vllm_cpu
from tests.acceptance.test_emit_llama_cpp import PLAN, SERVER, flags_of, make_model
from tests.acceptance.test_emit_router import free_port, router_before
from tests.plans import flat_plan, plan_of

ENVIRONMENT = os.environ.get("PLAN_OPERATOR")
CONTEXT, ROUNDS, QUESTION, ANSWER, THINK_S, USERS = 1500, 3, 20, 8, 0.2, 2
TOKENIZER = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

words = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
fast.save_pretrained(sys.argv[1])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_OPERATOR names no environment (docs/deploy.md)"),
]


@pytest.mark.parametrize(("replicas", "slots"), [(1, 3), (2, 4)])
def test_later_questions_of_the_emitted_load_test_come_from_the_cache(
    replicas: int, slots: int, tmp_path: Path
) -> None:
    """One llama.cpp server, and two behind the emitted router; a slot more than users for a session that has ended."""
    deployed = tmp_path / "deployed"
    document, files = scaled_down(tmp_path, replicas, slots)
    write(files, deployed)
    subprocess.run([f"{ENVIRONMENT}/bin/python", "-c", TOKENIZER, str(tmp_path)], check=True, capture_output=True)
    with ExitStack() as stack:
        flags = flags_of(files["llama.cpp/serve.sh"])
        addresses = [stack.enter_context(llama_server(flags)) for _ in range(replicas)]
        address = addresses[0]
        if replicas > 1:
            deployment = read_deployment(document, open_catalog(), checkpoint=flags["model"])
            address = stack.enter_context(router_before(deployment, {"serve": addresses}, free_port()))
        for words in commands(files["README.md"]):
            words[words.index("--url") + 1] = address
            run_aiperf(words, deployed)
    requests = read_requests(deployed / "results" / "users" / "profile_export.jsonl")
    assert len(requests) == 2 * USERS * ROUNDS
    assert not any(request.get("error") for request in requests)
    assert len({request["metadata"]["x_correlation_id"] for request in requests}) == 2 * USERS
    prompts = [request["metrics"]["usage_prompt_tokens"]["value"] for request in requests if turn(request) == 0]
    assert all(0.9 * CONTEXT < tokens <= CONTEXT + QUESTION for tokens in prompts)
    assert (cached_share([request for request in requests if turn(request)]) or 0) >= CACHED_AT_LEAST
    shown = subprocess.run([sys.executable, "check_speed.py"], cwd=deployed, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search(r"answers per hour, all users +\d\S* +(\d\S* to \d\S*|-) +\d", shown.stdout)


@pytest.mark.skipif(vllm_cpu.ENVIRONMENT is None, reason="PLAN_VLLM_CPU names no environment (docs/deploy.md)")
def test_vllm_keeps_the_sessions_of_the_emitted_load_test(tmp_path: Path) -> None:
    """The real vLLM on a CPU, started by the emitted script."""
    binaries = Path(str(vllm_cpu.ENVIRONMENT)) / "bin"
    model = tmp_path / "tiny-llama"
    subprocess.run([binaries / "python", "-c", vllm_cpu.MODEL, model], check=True, capture_output=True)
    content = flat_plan(vllm_cpu.PLAN.stem)
    content["request"] |= {
        "model": str(model),
        "ctx": CONTEXT,
        "rounds": ROUNDS,
        "question_tokens": QUESTION,
        "output_tokens": ANSWER,
        "think_time": THINK_S,
        "gpus": "1xA100",
    }
    content["decision"] |= {
        "compression": {},
        "parallel": {"tp": 1},
        "batch": {"decode_sequences": USERS, "resident_sessions": USERS, "prefill_chunk_tokens": 512},
    }
    metrics, hbm = content["metrics"], content["metrics"]["hbm_bytes_per_gpu"]
    metrics |= {"users": float(USERS), "concurrency": USERS, "ttft_cold_s": 1.0, "ttft_warm_s": 0.1, "tpot_s": 0.02}
    hbm |= {"kv": 1.0, "limit": hbm["weights"] + hbm["workspace"] + hbm["overhead"] + 32 * 2**20}  # of this machine
    catalog = vllm_cpu.facts(tmp_path)
    deployed = tmp_path / "out"
    write(emit(plan_of(content), "vllm", catalog, engine_version=vllm_cpu.VERSION), deployed)
    server = vllm_cpu.start(tmp_path, binaries)
    try:
        vllm_cpu.wait(server, tmp_path / "log")
        for words in commands((deployed / "README.md").read_text()):
            run_aiperf(words, deployed)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    requests = read_requests(deployed / "results" / "users" / "profile_export.jsonl")
    assert len(requests) == 2 * USERS * ROUNDS
    assert not any(request.get("error") for request in requests)
    assert (cached_share([request for request in requests if turn(request)]) or 0) >= CACHED_AT_LEAST


def scaled_down(directory: Path, replicas: int, slots: int) -> tuple[Document, dict[str, str]]:
    """Return a plan of llama.cpp for the tests' model, with few tokens and users, and its files."""
    model = make_model(directory)
    content = flat_plan(PLAN.stem)
    content["request"] |= {
        "model": str(directory),
        "ctx": CONTEXT,
        "rounds": ROUNDS,
        "question_tokens": QUESTION,
        "output_tokens": ANSWER,
        "think_time": THINK_S,
        "gpus": f"{replicas}xA100",
    }
    content["decision"]["parallel"]["replicas"] = replicas
    content["decision"]["batch"] |= {"decode_sequences": slots, "resident_sessions": slots}
    content["metrics"] |= {"users": float(USERS), "concurrency": slots * replicas}
    content["metrics"] |= {"ttft_cold_s": 1.0, "ttft_warm_s": 0.1, "tpot_s": 0.02, "tpot_mean_s": 0.02}
    document = plan_of(content)
    return document, emit(document, "llama.cpp", open_catalog(), checkpoint=str(model))


def commands(page: str) -> list[list[str]]:
    """Return aiperf's command lines out of the page, as an operator copies them."""
    blocks = re.findall(r"```sh\n(aiperf .*?)\n```", page, re.DOTALL)
    assert len(blocks) == 2
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def run_aiperf(words: list[str], directory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    quiet = ["--no-gpu-telemetry", "--ui", "none"]
    done = subprocess.run(
        [f"{ENVIRONMENT}/bin/{words[0]}", *words[1:], *quiet],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@contextmanager
def llama_server(flags: dict[str, Any]) -> Iterator[str]:
    """Run llama.cpp with the emitted flags; yield its address."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER), json.dumps(flags), "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()
