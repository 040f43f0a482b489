"""SGLang: ``sglang.launch_server`` with every decision as a flag, and the same as its ``--config`` file."""

from __future__ import annotations

import json
import math

from planner.emit.capacity import kv_tokens
from planner.emit.checkpoint import COMPRESSOR, checkpoint_script, makes_checkpoint, served_checkpoint
from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.engines.settings import config_text, expert_traffic, several, weight_flag
from planner.emit.launch import Flags, Launch, servers
from planner.emit.lmcache import DISK, lmcache_file
from planner.emit.loading import longest_step_s
from planner.emit.longer_window import window_overrides
from planner.emit.router import BOOTSTRAP_PORT
from planner.emit.tables import SGLANG
from planner.errors import InputError
from planner.targets import ENGINES

FILES = ENGINES["sglang"]
PORT = 8000
INIT_PORT = 20000
LMCACHE_FILE = "lmcache.yaml"
_GB = 10**9
_HEALTH_SECONDS = 20
"""After which SGLang's health check by generation counts as failed (SGLANG_HEALTH_CHECK_TIMEOUT) [s]."""


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return one launch per pool.

    Raises
    ------
    InputError
        If the plan decides something that SGLang has no flag for on this GPU.
    """
    refuse_unshipped(deployment, version)
    if deployment.offload_backend == "lmcache" and deployment.decision.offload.policy == "swap":
        _check_lmcache(deployment, version)
    return [_launch(deployment, pool, version) for pool in deployment.pools]


def _check_lmcache(deployment: Deployment, version: str) -> None:
    """Refuse what SGLang's LMCache refuses when it starts."""
    own = "emit without lmcache, for SGLang's own tier"
    if len(deployment.pools) > 1:
        raise InputError(f"offload: sglang {version} uses LMCache only where one pool prefills and decodes; {own}")
    if any(pool.data_parallel > 1 for pool in deployment.pools):
        raise InputError(f"offload: sglang {version} has no LMCache for attention-data-parallel ranks; {own}")


def _launch(deployment: Deployment, pool: PoolPlan, version: str) -> Launch:
    nodes, each = servers(pool, deployment.cluster.gpus_per_node)
    model = served_checkpoint(deployment)
    swaps = deployment.decision.offload.policy == "swap" and pool.role != "decode"
    lmcache = swaps and deployment.offload_backend == "lmcache"
    tier_bytes = deployment.tier_bytes_per_instance(pool) if swaps else 0
    on_disk = deployment.decision.offload.tier == "nvme"
    flags: Flags = (
        *_interface_flags(deployment, model),
        *_parallel_flags(pool),
        *expert_traffic(deployment, pool, nodes, "--moe-a2a-backend"),
        *_batch_flags(deployment, pool),
        *_memory_flags(deployment, pool),
        *_cache_flags(deployment),
        *(_offload_flags(deployment, pool, lmcache) if swaps else ()),
        *_transfer_flags(pool),
    )
    return Launch(
        engine="sglang",
        version=version,
        image=FILES.image(deployment.hardware.vendor, version),
        program=("python3", "-m", "sglang.launch_server"),
        program_words=3,
        model=model,
        flags=flags,
        pool=pool,
        port=PORT,
        generation_path="/health_generate",
        key_flag="--api-key",
        environment=_environment(deployment, pool, tier_bytes if on_disk and not lmcache else 0),
        files={LMCACHE_FILE: lmcache_file(deployment, pool)} if lmcache else {},
        config=config_text(flags) if nodes == 1 else None,  # a rank and an address aren't settings
        config_command="python3 -m sglang.launch_server --config {file}",
        admitted=None if (most := _most_waiting(deployment, pool)) is None else most + pool.sequences,
        nodes=nodes,
        gpus_per_node=each,
        node_flags=_node_flags(nodes),
        host_memory_bytes=0 if on_disk else tier_bytes,
        disk_bytes=tier_bytes if on_disk else 0,
        packages=("sglang",),
        port_flags=("--disaggregation-bootstrap-port",) if pool.role == "prefill" else (),
        checkpoint_script=checkpoint_script(deployment) if makes_checkpoint(deployment) else None,
        checkpoint_packages=COMPRESSOR,
    )


def _interface_flags(deployment: Deployment, model: str) -> Flags:
    flags: Flags = (
        *SGLANG.flags(model=model, served_names=deployment.served_name),
        ("--enable-cache-report", True),  # answers then say how much of their prompt was in the cache
        ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--port", PORT),
        ("--enable-metrics", True),
        ("--dtype", "bfloat16"),
        *SGLANG.flags(window_tokens=deployment.max_model_len),
    )
    if not makes_checkpoint(deployment) and deployment.ready is None:
        flags += weight_flag(deployment)
    overrides = deployment.config_overrides(window_overrides(deployment))
    if overrides:
        flags += (("--json-model-override-args", json.dumps(overrides)),)
    return (*flags, *deployment.run.flags)


def _parallel_flags(pool: PoolPlan) -> Flags:
    return SGLANG.flags(
        tp=pool.tp,
        pp=pool.pp,
        data=several(pool.data_parallel),
        dcp=several(pool.dcp),
        pcp=several(pool.pcp),
        ep=several(pool.ep),
    )


def _batch_flags(deployment: Deployment, pool: PoolPlan) -> Flags:
    chunk = deployment.batched_tokens(pool) - pool.decode_sequences
    unchunked = pool.chunk_tokens is None and pool.role != "decode"
    # SGLang divides the chunk over its attention-data-parallel ranks; the queue is each rank's own.
    flags = SGLANG.flags(
        sequences=pool.sequences, chunk_tokens=-1 if unchunked else chunk, over={"data": pool.data_parallel}
    )
    waiting = _most_waiting(deployment, pool)
    return flags if waiting is None else (*flags, ("--max-queued-requests", waiting))


def _most_waiting(deployment: Deployment, pool: PoolPlan) -> int | None:
    """Requests beyond those that run, of a rank: all of the service, as running ones may be few for want of memory."""
    return deployment.requests_at_most if pool.role == "serve" else None


def _memory_flags(deployment: Deployment, pool: PoolPlan) -> Flags:
    """Weights and KV take what the plan leaves beside workspace and overhead; tokens bound the pool."""
    hbm = deployment.metrics.hbm_bytes_per_gpu
    static = (hbm.limit - hbm.workspace - hbm.overhead) / deployment.hardware.hbm
    tokens = kv_tokens(deployment, pool)
    # Counted in rows of a rank, over which decode context parallelism spreads the tokens.
    rows = None if tokens is None else -(-tokens // pool.dcp)
    return SGLANG.flags(memory_share=math.floor(static * 1e4) / 1e4, kv_rows=rows)


def _cache_flags(deployment: Deployment) -> Flags:
    flags = list(SGLANG.flags(kv_option=deployment.kv_option))
    if deployment.technology("hidden") is not None:
        backend = deployment.run.backend_of(deployment.kv_format)
        if backend is not None:
            flags.append(("--attention-backend", backend))
    return (*flags, *SGLANG.flags(no_reuse=None if deployment.reuses_prefixes else True))


def _offload_flags(deployment: Deployment, pool: PoolPlan, lmcache: bool) -> Flags:
    if lmcache:
        return (*SGLANG.flags(lmcache=True), ("--lmcache-config-file", "{directory}/" + LMCACHE_FILE))
    flags: Flags = (*SGLANG.flags(keeps_below=True), ("--hicache-write-policy", "write_through"))
    if deployment.decision.offload.tier == "nvme":
        return (*flags, *SGLANG.flags(tier_storage="file"))
    # Every rank has a host pool of its own, sized in GB of 1e9 bytes.
    each = deployment.tier_bytes_per_instance(pool) / pool.instance_gpus
    return (*flags, *SGLANG.flags(tier_size=math.ceil(each / _GB)))


def _transfer_flags(pool: PoolPlan) -> Flags:
    if pool.role == "serve":
        return ()
    flags = SGLANG.flags(role=pool.role, transfer_backend="nixl")
    # A decode server has no prefix cache: every prompt's cache is sent to it, which is what the plan counts on.
    # --disaggregation-decode-enable-radix-cache would keep them, and SGLang calls it experimental.
    return (*flags, ("--disaggregation-bootstrap-port", BOOTSTRAP_PORT)) if pool.role == "prefill" else flags


def _node_flags(nodes: int) -> Flags:
    if nodes == 1:
        return ()
    return (("--nnodes", nodes), ("--node-rank", "{rank}"), ("--dist-init-addr", f"{{head}}:{INIT_PORT}"))


def _environment(deployment: Deployment, pool: PoolPlan, file_bytes: int) -> dict[str, str]:
    environment = dict(deployment.run.environment or {})
    if longest_step_s(deployment, pool) > _HEALTH_SECONDS / 2:
        # Its health check generates a token, and gives up while a prefill takes longer than that.
        environment["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] = "0"
    if file_bytes:
        environment["SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"] = DISK
        environment["SGLANG_HICACHE_FILE_BACKEND_MAX_SIZE"] = str(file_bytes)
    return environment
