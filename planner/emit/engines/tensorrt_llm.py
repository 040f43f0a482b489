"""TensorRT-LLM: ``trtllm-serve`` and the YAML file that holds everything."""

from __future__ import annotations

from typing import Any

from planner.emit.capacity import kv_tokens
from planner.emit.checkpoint import makes_checkpoint, modelopt_script, served_checkpoint
from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.engines.settings import several
from planner.emit.flags import problems_of_keys
from planner.emit.launch import Launch, servers
from planner.emit.lmcache import DISK
from planner.emit.longer_window import window_change, window_overrides
from planner.emit.quoting import yaml_text
from planner.emit.tables import TENSORRT_LLM
from planner.errors import InputError
from planner.targets import ENGINES

FILES = ENGINES["tensorrt-llm"]
PORT = 8000
FILE = "trtllm.yaml"


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return the launch.

    Raises
    ------
    InputError
        If the plan decides something that TensorRT-LLM has no setting for on this GPU, or that isn't
        written here: several servers and pools, which start through other programs.
    """
    refuse_unshipped(deployment, version)
    (pool, *others) = deployment.pools
    problems = []
    if others and not FILES.pools:
        problems.append(
            "serving: pools of tensorrt-llm start through an orchestrator's file, which isn't written here; plan with "
            "--engine vllm or sglang"
        )
    nodes, each = servers(pool, deployment.cluster.gpus_per_node)
    if nodes > 1 and not FILES.several_servers:
        problems.append(
            "parallel: tensorrt-llm spans servers through MPI, which isn't written here; use vllm or sglang"
        )
    if pool.data_parallel > 1 and pool.tp > 1:
        problems.append(
            "parallel: tensorrt-llm's ranks that share experts each hold all of attention; plan tp 1 with these "
            "experts, or use vllm or sglang"
        )
    settings = _settings(deployment, pool)
    problems += problems_of_keys(settings, "LlmArgs", "tensorrt-llm", version)
    if problems:
        raise InputError(problems)
    model = served_checkpoint(deployment)
    tier_bytes = deployment.tier_bytes_per_instance(pool) if deployment.decision.offload.policy == "swap" else 0
    on_disk = deployment.decision.offload.tier == "nvme"
    return [
        Launch(
            engine="tensorrt-llm",
            version=version,
            image=FILES.image("nvidia", version),
            program=("trtllm-serve", model),
            program_words=1,
            model=model,
            flags=(
                ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
                ("--port", PORT),
                ("--backend", "pytorch"),
                ("--extra_llm_api_options", "{directory}/" + FILE),
            ),
            pool=pool,
            port=PORT,
            generation_path="/health_generate",
            metrics_path=None,
            files={FILE: yaml_text(settings)},
            gpus_per_node=each,
            api_name=model,
            packages=("tensorrt_llm",),
            checkpoint_script=modelopt_script(deployment) if makes_checkpoint(deployment) else None,
            host_memory_bytes=0 if on_disk else tier_bytes,
            disk_bytes=tier_bytes if on_disk else 0,
        )
    ]


def _settings(deployment: Deployment, pool: PoolPlan) -> dict[str, Any]:
    rocket = deployment.technology("token")
    budget = None if rocket is None or rocket.point.strength is None else int(rocket.point.strength)
    settings = TENSORRT_LLM.settings(
        tp=pool.tp,
        pp=pool.pp,
        window_tokens=deployment.max_model_len,
        sequences=pool.sequences,
        batched_tokens=deployment.batched_tokens(pool),
        chunked=pool.chunk_tokens is not None,
        **_cache_settings(deployment, pool),
        ep=several(pool.ep),
        attention_data=True if pool.data_parallel > 1 else None,
        sparse_algorithm=None if budget is None else "rocket",
        sparse_budget=budget,
        over={"data": pool.data_parallel},
    )
    change = window_change(deployment)
    if change.kind != "none":
        settings["model_kwargs"] = window_overrides(deployment) or _higher_window(deployment, change.max_tokens)
    return settings


def _higher_window(deployment: Deployment, tokens: int) -> dict[str, Any]:
    changed: dict[str, Any] = {"max_position_embeddings": tokens}
    return {"text_config": changed} if "text_config" in deployment.config else changed


def _cache_settings(deployment: Deployment, pool: PoolPlan) -> dict[str, Any]:
    hbm = deployment.metrics.hbm_bytes_per_gpu
    free = hbm.limit - hbm.weights - hbm.workspace - hbm.overhead
    settings: dict[str, Any] = {
        "reuses_prefixes": deployment.reuses_prefixes,
        "block_tokens": deployment.engine.kv_block_tokens,
        "memory_share": round(free / (deployment.hardware.hbm - hbm.weights), 4),
    }
    block = deployment.engine.kv_block_tokens
    tokens = kv_tokens(deployment, pool)
    if pool.resident_sessions is not None and tokens is not None:
        least = pool.resident_sessions * -(-deployment.max_model_len // block)
        settings["kv_tokens"] = block * max(least, tokens // block)
    if deployment.kv_format is not None and deployment.technology("hidden") is not None:
        settings["kv_option"] = deployment.kv_format.option
    offload = deployment.decision.offload
    if offload.policy == "swap" and offload.tier == "nvme":
        settings |= {"disk_bytes": deployment.tier_bytes_per_instance(pool), "disk_path": DISK}
    elif offload.policy == "swap":
        settings["tier_size"] = deployment.tier_bytes_per_instance(pool) // pool.instance_gpus
    return settings
