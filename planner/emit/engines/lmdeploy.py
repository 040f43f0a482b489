"""LMDeploy's TurboMind: ``lmdeploy serve api_server``."""

from __future__ import annotations

import json

from planner.emit.capacity import kv_tokens
from planner.emit.checkpoint import COMPRESSOR, checkpoint_script, makes_checkpoint, served_checkpoint
from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.engines.settings import weight_flag
from planner.emit.launch import Flags, Launch, servers
from planner.emit.longer_window import window_overrides
from planner.emit.tables import LMDEPLOY
from planner.targets import ENGINES

FILES = ENGINES["lmdeploy"]
PORT = 8000


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return the launch.

    Raises
    ------
    InputError
        If the plan decides something that TurboMind has no flag for on this GPU.
    """
    refuse_unshipped(deployment, version)
    return [_launch(deployment, pool, version) for pool in deployment.pools]


def _launch(deployment: Deployment, pool: PoolPlan, version: str) -> Launch:
    _, each = servers(pool, deployment.cluster.gpus_per_node)
    model = served_checkpoint(deployment)
    making = makes_checkpoint(deployment)
    return Launch(
        engine="lmdeploy",
        version=version,
        image=FILES.image("nvidia", version),
        program=("lmdeploy", "serve", "api_server", model),
        program_words=3,
        model=model,
        flags=_flags(deployment, pool, making),
        pool=pool,
        port=PORT,
        key_flag="--api-keys",
        port_flag="--server-port",
        admitted=deployment.requests_at_most,
        gpus_per_node=each,
        packages=("lmdeploy",),
        checkpoint_script=checkpoint_script(deployment) if making else None,
        checkpoint_packages=COMPRESSOR,
    )


def _flags(deployment: Deployment, pool: PoolPlan, making: bool) -> Flags:
    flags: Flags = (
        *LMDEPLOY.flags(served_names=deployment.served_name),
        ("--server-name", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--server-port", PORT),
        *LMDEPLOY.flags(backend="turbomind"),
        ("--dtype", "bfloat16"),
        *LMDEPLOY.flags(
            tp=pool.tp,
            window_tokens=deployment.max_model_len,
            sequences=pool.sequences,
            batched_tokens=deployment.batched_tokens(pool),
            block_tokens=deployment.engine.kv_block_tokens,
        ),
        *_memory_flags(deployment, pool),
    )
    # llm-compressor writes compressed-tensors; a checkpoint that was named has the format of the plan.
    method = "compressed-tensors" if making else deployment.ready.format.quant_method if deployment.ready else None
    flags += weight_flag(deployment) if method is None else LMDEPLOY.flags(weights=method)
    flags += LMDEPLOY.flags(kv_option=deployment.kv_option, reuses_prefixes=deployment.reuses_prefixes)
    window = window_overrides(deployment)
    if window:
        flags += (("--hf-overrides", json.dumps(window)),)
    most = deployment.requests_at_most
    if most is not None:
        flags += (("--max-concurrent-requests", most),)
    return flags


def _memory_flags(deployment: Deployment, pool: PoolPlan) -> Flags:
    """An entry count above 1 is a number of blocks: those of the plan's sessions, and what else is free."""
    tokens = kv_tokens(deployment, pool)
    if pool.resident_sessions is None or tokens is None:
        hbm = deployment.metrics.hbm_bytes_per_gpu
        free = hbm.limit - hbm.workspace - hbm.overhead - hbm.weights
        share = round(free / (deployment.hardware.hbm - hbm.weights), 4)
        return LMDEPLOY.flags(memory_share=share)
    block = deployment.engine.kv_block_tokens
    least = pool.resident_sessions * -(-deployment.max_model_len // block)
    return LMDEPLOY.flags(memory_share=max(least, tokens // block))
