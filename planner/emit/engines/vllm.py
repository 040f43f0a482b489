"""vLLM: ``vllm serve`` with every decision as a flag, and the same as its ``--config`` file."""

from __future__ import annotations

import json
import math
from typing import Any

from planner.emit.capacity import Reservation, reserve
from planner.emit.carried import with_kept
from planner.emit.checkpoint import COMPRESSOR, checkpoint_script, makes_checkpoint, served_checkpoint
from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.engines.settings import config_text, expert_traffic, several
from planner.emit.flags import snapshot
from planner.emit.launch import SHARED_MEMORY_BYTES, Flags, Launch, Value, servers
from planner.emit.lmcache import DISK, lmcache_file
from planner.emit.loading import longest_request_s
from planner.emit.longer_window import window_change, window_overrides
from planner.emit.router import engine_port
from planner.emit.tables import VLLM
from planner.errors import InputError
from planner.targets import ENGINES

FILES = ENGINES["vllm"]
PORT = 8000
TRANSFER_PORT = 5600
"""Of NIXL's handshake between the pools."""
LMCACHE_FILE = "lmcache.yaml"
BEYOND_THE_CONFIG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
QUANTIZATION = {
    "w_fp8": "fp8",
    "w_int8_w8a8": None,
    "w_gptq8": "gptq_marlin",
    "w_awq4": "awq_marlin",
    "w_gptq4": "gptq_marlin",
}
"""Catalog point of the weights -> ``--quantization``; None: vLLM reads it from the checkpoint."""
_WHOLE_SESSIONS = {"offload_prompt_only": False}
"""vLLM keeps only prompts below HBM by default; the plan counts on the answers too, which the next round repeats."""
_ADMISSION = frozenset({"--max-num-queued-reqs", "--max-num-queued-tokens"})


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return one launch per pool.

    Raises
    ------
    InputError
        If the plan decides something that vLLM has no flag for on this GPU.
    """
    refuse_unshipped(deployment, version)
    if _uses_lmcache(deployment) and _has_windows(deployment) and not FILES.lmcache_windows:
        raise InputError(
            f"offload: vllm {version} keeps whole caches for windowed layers when LMCache is its connector, so the "
            "plan's sessions wouldn't fit; emit without lmcache"
        )
    return [_launch(deployment, pool, version) for pool in deployment.pools]


def _launch(deployment: Deployment, pool: PoolPlan, version: str) -> Launch:
    batched = deployment.batched_tokens(pool)
    nodes, each = servers(pool, deployment.cluster.gpus_per_node)
    reservation = reserve(deployment, pool, batched)
    swaps = deployment.decision.offload.policy == "swap" and pool.role != "decode"
    tier_bytes = deployment.tier_bytes_per_instance(pool) if swaps else 0
    lmcache = swaps and _uses_lmcache(deployment)
    on_disk = deployment.decision.offload.tier == "nvme"
    admitted = None if pool.resident_sessions is None else deployment.requests_at_most
    flags: Flags = (
        *_interface_flags(deployment),
        *_parallel_flags(pool),
        *expert_traffic(deployment, pool, nodes, "--all2all-backend"),
        *VLLM.flags(window_tokens=deployment.window_tokens, sequences=pool.sequences, batched_tokens=batched),
        *_prefill_flags(deployment, pool),
        *_memory_flags(deployment, reservation),
        *_cache_flags(deployment),
        *_connector_flags(deployment, pool),
        *_admission_flags(admitted),
    )
    model = served_checkpoint(deployment)
    flags = with_kept(deployment, flags, version, model)
    throttle = _throttle_note(deployment, pool) if pool.throttled else None
    unbounded = None
    if on_disk and swaps and not lmcache:
        unbounded = (
            f"vLLM's disk tier in {DISK} has no size of its own: the plan counts on {tier_bytes / 2**30:.0f} GiB per "
            "instance; remove files that nobody has read for a while"
        )
    return Launch(
        engine="vllm",
        version=version,
        image=FILES.image(deployment.hardware.vendor, version),
        program=("vllm", "serve", model),
        program_words=2,
        model=model,
        packages=("vllm",),
        checkpoint_script=checkpoint_script(deployment) if makes_checkpoint(deployment) else None,
        checkpoint_packages=COMPRESSOR,
        flags=flags,
        pool=pool,
        port=engine_port(deployment, PORT),
        key_variable="VLLM_API_KEY",
        config=config_text(flags, model=model) if nodes == 1 else None,  # a rank and an address aren't settings
        config_command="vllm serve --config {file}",
        batched_tokens=batched,
        notes=tuple(note for note in (reservation.note if reservation else None, throttle, unbounded) if note),
        environment=_environment(deployment, pool, lmcache),
        files={LMCACHE_FILE: lmcache_file(deployment, pool)} if lmcache else {},
        admitted=admitted,
        nodes=nodes,
        gpus_per_node=each,
        node_flags=_node_flags(nodes),
        worker_flags=(("--headless", True),) if nodes > 1 else (),
        first_node_flags=_api_flags(flags, version),
        shared_memory_bytes=SHARED_MEMORY_BYTES + (0 if lmcache else tier_bytes),
        host_memory_bytes=0 if on_disk else tier_bytes,
        disk_bytes=tier_bytes if on_disk else 0,
        disk_is_bounded=not (on_disk and not lmcache),
        pod_address_variable="VLLM_NIXL_SIDE_CHANNEL_HOST" if pool.role != "serve" else None,
        port_variables=("VLLM_NIXL_SIDE_CHANNEL_PORT",) if pool.role != "serve" else (),
    )


def _interface_flags(deployment: Deployment) -> Flags:
    flags: list[tuple[str, Value]] = [
        *VLLM.flags(served_names=deployment.served_name),
        ("--enable-prompt-tokens-details", True),  # answers then say how much of their prompt was in the cache
        ("--host", "0.0.0.0"),  # noqa: S104 - a server that clients reach
        ("--port", engine_port(deployment, PORT)),
        ("--dtype", "bfloat16"),
        # Without it vLLM drops what it works on when it is told to stop.
        ("--shutdown-timeout", math.ceil(longest_request_s(deployment))),
    ]
    method = _quantization(deployment)
    flags += VLLM.flags(weights=method)
    overrides = deployment.config_overrides(window_overrides(deployment))
    if overrides:
        flags.append(("--hf-overrides", json.dumps(overrides)))
    return (*flags, *deployment.run.flags)


def _quantization(deployment: Deployment) -> str | None:
    if deployment.weights is None:
        return None
    if makes_checkpoint(deployment):
        return "compressed-tensors"  # what llm-compressor writes
    if deployment.ready is not None:
        return None  # vLLM reads it in the checkpoint's config
    running = deployment.running
    if running is not None and running.model == deployment.checkpoint is not None:
        given = running.flags.get("--quantization")
        return None if given is None else str(given)
    return QUANTIZATION[deployment.weights.point.id]


def _parallel_flags(pool: PoolPlan) -> Flags:
    data = several(pool.data_parallel)
    flags = VLLM.flags(
        tp=pool.tp,
        pp=pool.pp,
        dcp=several(pool.dcp),
        pcp=several(pool.pcp),
        experts_spread=True if pool.ep > 1 else None,
        data=data,
    )
    return flags if data is None else (*flags, ("--api-server-count", 1))


def _prefill_flags(deployment: Deployment, pool: PoolPlan) -> Flags:
    if pool.chunk_tokens is None and pool.role != "decode":
        return VLLM.flags(chunked=False)
    return VLLM.flags(chunked=True, throttle_tokens=_throttle(deployment, pool) if pool.throttled else None)


def _throttle(deployment: Deployment, pool: PoolPlan) -> int:
    """Tokens of a step that one long prefill may take, leaving room for a question beside it [tokens]."""
    if pool.chunk_tokens is None:
        raise InputError(
            "the plan: prefill_throttled without prefill_chunk_tokens: a prompt in one piece can't yield; give a chunk"
        )
    # A prefill pool prefills the answer with the question after it: another pool gave it.
    room = deployment.request.question_tokens + (deployment.request.output_tokens if pool.role == "prefill" else 0)
    left = pool.chunk_tokens - room if room < pool.chunk_tokens else max(1, pool.chunk_tokens // 2)
    return min(left, deployment.max_model_len)  # vLLM refuses more


def _throttle_note(deployment: Deployment, pool: PoolPlan) -> str:
    return (
        f"a long prefill takes {_throttle(deployment, pool)} of the {pool.chunk_tokens} tokens of a chunk while others "
        "wait, so that a question fits beside it; alone it takes all of them"
    )


def _memory_flags(deployment: Deployment, reservation: Reservation | None) -> Flags:
    # MLA's backends each want a block of their own; vLLM then picks it.
    picks = "mla" in deployment.architecture.attention_kinds
    return VLLM.flags(
        memory_share=deployment.memory_share,
        kv_bytes=None if reservation is None else reservation.bytes_per_gpu,
        block_tokens=None if picks else deployment.engine.kv_block_tokens,
    )


def _cache_flags(deployment: Deployment) -> Flags:
    flags = list(VLLM.flags(kv_option=deployment.kv_option))
    if deployment.technology("hidden") is not None:
        backend = deployment.run.backend_of(deployment.kv_format)
        # The backends that take sinks are vLLM's own choice; those of the catalog are for models without.
        if backend is not None and not deployment.architecture.attention_sinks:
            flags.append(("--attention-backend", backend))
    return (*flags, *VLLM.flags(reuses_prefixes=deployment.reuses_prefixes))


def _has_windows(deployment: Deployment) -> bool:
    """Whether layers keep less than the whole session, which LMCache's connector doesn't know."""
    return bool(deployment.architecture.attention_kinds & {"sliding", "chunked", "linear"})


def _uses_lmcache(deployment: Deployment) -> bool:
    """Whether caches go below HBM through LMCache: asked for, or to a disk, whose size vLLM's own tier can't bound."""
    offload = deployment.decision.offload
    on_disk = offload.tier == "nvme" and not _has_windows(deployment)
    return offload.policy == "swap" and (deployment.offload_backend == "lmcache" or on_disk)


def _disk_tier(deployment: Deployment, pool: PoolPlan) -> dict[str, Any]:
    """The disk tier of vLLM itself, behind host memory for the sessions on their way."""
    staged = math.ceil(deployment.metrics.kv_bytes_per_session * pool.sequences)
    tier = {"type": "fs", "root_dir": DISK}
    return {"spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": staged, "secondary_tiers": [tier]}


def _connector_flags(deployment: Deployment, pool: PoolPlan) -> Flags:
    """Where caches go below HBM, and how they get from the prefill to the decode pool."""
    swaps = deployment.decision.offload.policy == "swap" and pool.role != "decode"
    # Data-parallel ranks are engines of their own, each with its own tier.
    tier_bytes = deployment.tier_bytes_per_instance(pool) // pool.data_parallel
    on_disk = deployment.decision.offload.tier == "nvme"
    if swaps and pool.role == "serve" and not on_disk and not _uses_lmcache(deployment):
        return (
            ("--kv-offloading-backend", "native"),
            *VLLM.flags(
                tier_size=math.ceil(tier_bytes / 2**30 * 1000) / 1000,
                transfer=json.dumps({"kv_connector_extra_config": _WHOLE_SESSIONS}),
            ),
        )
    connectors: list[dict[str, Any]] = []
    if pool.role != "serve":
        role = "kv_producer" if pool.role == "prefill" else "kv_consumer"
        connectors.append({"kv_connector": "NixlConnector", "kv_role": role})
    if swaps and _uses_lmcache(deployment):
        connectors.append({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})
    elif swaps:
        tier = _disk_tier(deployment, pool) if on_disk else {"cpu_bytes_to_use": tier_bytes}
        extra = {**tier, **_WHOLE_SESSIONS}
        connectors.append(
            {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
        )
    if not connectors:
        return ()
    if len(connectors) == 1:
        return VLLM.flags(transfer=json.dumps(connectors[0]))
    both = {"kv_connector": "MultiConnector", "kv_role": "kv_both"}
    return VLLM.flags(transfer=json.dumps({**both, "kv_connector_extra_config": {"connectors": connectors}}))


def _admission_flags(admitted: int | None) -> Flags:
    """Refuse (503) beyond the promised users; vLLM counts waiting and running ones, over its data-parallel ranks."""
    return () if admitted is None else (("--max-num-queued-reqs", admitted),)


def _api_flags(flags: Flags, version: str) -> frozenset[str]:
    """Return the flags of the API server, which a server without one (``--headless``) refuses or ignores.

    They are those that are no argument of the engine, and the two limits on admission, which vLLM keeps where
    requests come in.
    """
    engine = snapshot("vllm", version)["tables"]["EngineArgs"]
    fields = {name: name.removeprefix("--").removeprefix("disable-").replace("-", "_") for name, _ in flags}
    outside = {name for name, field in fields.items() if field not in engine and f"enable_{field}" not in engine}
    return frozenset((outside | _ADMISSION | {"--served-model-name"}) & set(fields))


def _node_flags(nodes: int) -> Flags:
    if nodes == 1:
        return ()
    return (
        ("--distributed-executor-backend", "mp"),
        ("--nnodes", nodes),
        ("--node-rank", "{rank}"),
        ("--master-addr", "{head}"),
    )


def _environment(deployment: Deployment, pool: PoolPlan, lmcache: bool) -> dict[str, str]:
    environment = {"VLLM_NO_USAGE_STATS": "1", **(deployment.run.environment or {})}
    if window_change(deployment).kind == "rope":
        environment.pop(BEYOND_THE_CONFIG, None)  # the config itself is changed
    if "chunked" in deployment.architecture.attention_kinds:
        # Without it vLLM keeps whole caches for chunked layers, and the plan's sessions don't fit.
        environment["VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE"] = "1"
    if pool.role != "serve":
        environment["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(TRANSFER_PORT)
    if lmcache:
        environment["LMCACHE_CONFIG_FILE"] = "{directory}/" + LMCACHE_FILE
    return environment
