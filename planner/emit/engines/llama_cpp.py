"""llama.cpp: ``llama-server`` with a GGUF file; its slots are the plan's resident sessions."""

from __future__ import annotations

from planner.efficiency import planned_step_tokens
from planner.emit.checkpoint import MODELS
from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.launch import Flags, Launch, servers
from planner.emit.longer_window import window_change
from planner.emit.tables import LLAMA_CPP
from planner.errors import InputError
from planner.targets import ENGINES

FILES = ENGINES["llama.cpp"]
PROGRAM = "llama-server"
PORT = 8000
_MIB = 1 << 20


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return the launch.

    Raises
    ------
    InputError
        If the plan decides something that llama.cpp has no flag for.
    """
    refuse_unshipped(deployment, version)
    (pool,) = deployment.pools
    problems = []
    nodes, each = servers(pool, deployment.cluster.gpus_per_node)
    if nodes > 1 and not FILES.several_servers:
        problems.append("parallel: llama-server runs on one server; plan fewer GPUs per replica, or use vllm or sglang")
    if pool.tp > 1 and pool.pp > 1 and not FILES.tensors_and_layers:
        problems.append("parallel: llama.cpp splits tensors or layers, not both; plan tp 1 or pp 1")
    if problems:
        raise InputError(problems)
    made = deployment.checkpoint is None
    model = deployment.checkpoint or f"{MODELS}/{deployment.slug}-bf16.gguf"
    return [
        Launch(
            engine="llama.cpp",
            version=version,
            image=FILES.image(deployment.hardware.vendor, version),
            program=(PROGRAM,),
            program_words=1,
            model=model,
            flags=_flags(deployment, pool, model),
            pool=pool,
            port=PORT,
            key_variable="LLAMA_API_KEY",
            drains=False,
            container_prefix="/app/",
            gpus_per_node=each,
            host_memory_bytes=deployment.tier_bytes_per_instance(pool),
            checkpoint_script=_convert_script(deployment) if made else None,
            notes=(
                "llama-server decodes every slot that has a request: up to the resident sessions at once, not only "
                f"{pool.decode_sequences}, which makes each slower",
            ),
        )
    ]


def _flags(deployment: Deployment, pool: PoolPlan, model: str) -> Flags:
    block = deployment.engine.kv_block_tokens
    slots = pool.resident_sessions or pool.sequences
    chunk = deployment.batched_tokens(pool) - pool.decode_sequences
    split = "tensor" if pool.tp > 1 else "layer" if pool.pp > 1 else "none"
    k_type, _, v_type = (deployment.kv_format.option if deployment.kv_format else "f16").partition("/")
    flags: Flags = (
        *LLAMA_CPP.flags(model=model, served_names=deployment.served_name),
        ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--port", PORT),
        *LLAMA_CPP.flags(
            context_of_all_slots=slots * block * -(-deployment.max_model_len // block),
            slots=slots,
            shared_context=False,
            chunk_tokens=chunk,
            step_tokens=min(chunk, planned_step_tokens(deployment.problem, deployment.engine) or chunk),
            kv_k=k_type,
            kv_v=v_type or k_type,
            flash_attention="on",
            layers_on_gpu="all",
            split=split,
        ),
        ("--fit", "off"),
        ("--metrics", True),
        *LLAMA_CPP.flags(tier_size=-(-deployment.tier_bytes_per_instance(pool) // _MIB)),
    )
    window = window_change(deployment)
    if window.kind == "rope":
        flags += (
            ("--rope-scaling", "yarn"),
            ("--rope-scale", window.factor),
            ("--yarn-orig-ctx", window.original_tokens),
        )
    return flags


def _convert_script(deployment: Deployment) -> str:
    return f'''"""Convert the model to GGUF with llama.cpp's own converter (in its image below /app).

    python make_checkpoint.py FILE.gguf
"""

import os
import subprocess
import sys

from huggingface_hub import snapshot_download

MODEL = {deployment.model_source!a}

source = MODEL if os.path.isdir(MODEL) else snapshot_download(MODEL)
converter = os.environ.get("CONVERTER", "/app/convert_hf_to_gguf.py")
os.makedirs(os.path.dirname(sys.argv[1]) or ".", exist_ok=True)
subprocess.run([sys.executable, converter, source, "--outtype", "bf16", "--outfile", sys.argv[1]], check=True)
'''
