"""vLLM's own start: its command line, up to where it would start processes, and its planner of KV caches.

Runs in the engines' environment; `serve.py` asks it.
"""

import importlib
import sys
import tempfile
from collections import Counter

import gpu
import torch
import vllm.platforms as platforms
from vllm.platforms.cuda import CudaPlatformBase
from vllm.platforms.interface import DeviceCapability


class PretendedPlatform(CudaPlatformBase):
    """vLLM's CUDA platform, without a driver."""

    @classmethod
    def get_device_capability(cls, device_id=0):
        return DeviceCapability(*gpu.Gpu.capability)

    @classmethod
    def has_device_capability(cls, capability, device_id=0):
        wanted = capability if isinstance(capability, tuple) else divmod(capability, 10)
        return gpu.Gpu.capability >= tuple(wanted)

    @classmethod
    def get_device_name(cls, device_id=0):
        return gpu.Gpu.name

    @classmethod
    def get_device_uuid(cls, device_id=0):
        return f"GPU-pretended-{device_id}"

    @classmethod
    def get_device_total_memory(cls, device_id=0):
        return gpu.Gpu.memory_bytes

    @classmethod
    def is_fully_connected(cls, physical_device_ids):
        return True

    @classmethod
    def device_count(cls):
        return gpu.Gpu.count

    @classmethod
    def num_compute_units(cls, device_id=0):
        return gpu.Gpu.multiprocessors

    @classmethod
    def is_integrated_gpu(cls, device_id=0):
        return False

    @classmethod
    def is_pin_memory_available(cls):
        return True

    @classmethod
    def log_warnings(cls):
        pass


platforms._current_platform = PretendedPlatform()

import vllm.distributed.parallel_state as parallel  # noqa: E402
import vllm.entrypoints.cli.main as command_line  # noqa: E402
import vllm.entrypoints.cli.serve as serve  # noqa: E402
import vllm.entrypoints.launchers.launcher as launcher  # noqa: E402
import vllm.model_executor.models.registry as registry  # noqa: E402
import vllm.v1.engine.utils as engine_utils  # noqa: E402
from vllm.config import get_layers_from_vllm_config, set_current_vllm_config  # noqa: E402
from vllm.distributed import init_distributed_environment, initialize_model_parallel  # noqa: E402
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase  # noqa: E402
from vllm.model_executor.model_loader.utils import initialize_model  # noqa: E402
from vllm.v1.core.kv_cache_planning import get_global_kv_cache_groups, get_kv_cache_configs  # noqa: E402
from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_capacity  # noqa: E402
from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402

for _name in (
    "vllm.compilation.passes.fusion.allreduce_rms_fusion",
    *(
        f"vllm.model_executor.models.{name}"
        for name in ("deepseek_v2", "gpt_oss", "mllama4", "nemotron_h", "qwen3_next")
    ),
):  # what most questions import, once
    importlib.import_module(_name)

LAYOUT = "LBNHC"
"""Any of vLLM's KV layouts: sizes don't depend on it."""
ADDED = ("--skip-tokenizer-init", "--load-format", "dummy")
"""There are no weights and no tokenizer here."""
PROGRAM_WORDS = 2
"""``vllm serve``; the model follows."""


class Started(BaseException):
    """vLLM has checked everything, and would start its processes now."""

    def __init__(self, config):
        self.config = config


def _starts(*given, vllm_config=None, **_):
    raise Started(vllm_config if vllm_config is not None else given[0])


class _Listeners:
    addresses = None


def _stop_before_processes():
    """Every way out of ``vllm serve`` into processes, sockets and GPUs ends with the configuration."""
    AsyncLLM.__init__ = lambda _self, *given, **named: _starts(*given, **named)
    serve.launch_core_engines = serve.MultiprocExecutor = serve.CoreEngineProcManager = _starts
    launcher.create_server_socket = lambda *_, **__: None
    engine_utils.bind_engine_zmq_listeners = lambda *_, **__: _Listeners()
    # Inspecting a model class in a process of its own would find no driver there.
    registry._run_in_subprocess = lambda inspect: inspect()


_stop_before_processes()


def started(words, directory):
    """Return the configuration that ``vllm serve`` ends with, for the model in a directory.

    It refuses by raising or by leaving.
    """
    sys.argv = [*words[:PROGRAM_WORDS], directory, *words[PROGRAM_WORDS + 1 :], *ADDED]
    try:
        command_line.main()
    except Started as end:
        return end.config
    raise RuntimeError("vLLM left without starting anything")


def _build(config):
    """Build every pipeline stage's model without memory; return KV specs, backends and weight bytes by stage."""
    sizes = config.parallel_config
    # Data-parallel ranks are alike and plan their caches each for itself; other servers aren't there to be asked.
    replicas = sizes.data_parallel_size
    sizes.data_parallel_size = sizes.nnodes = 1
    names = ("tensor_parallel_size", "pipeline_parallel_size", "world_size", "decode_context_parallel_size")
    planned = {name: getattr(sizes, name) for name in names}
    for name in names:
        setattr(sizes, name, 1)
    init_distributed_environment(1, 0, f"file://{tempfile.mkdtemp()}/init", 0, "gloo")
    initialize_model_parallel(1, 1)
    for name, value in planned.items():
        setattr(sizes, name, value)
    parallel.get_tp_group().world_size = sizes.tensor_parallel_size
    parallel.get_dp_group().world_size = replicas  # over which experts spread
    if sizes.decode_context_parallel_size > 1:
        parallel.get_dcp_group().world_size = sizes.decode_context_parallel_size
    torch.set_default_dtype(config.model_config.dtype)
    specs, weights, backends = [], [], Counter()
    for stage in range(sizes.pipeline_parallel_size):
        group = parallel.get_pp_group()
        group.world_size, group.rank_in_group = sizes.pipeline_parallel_size, stage
        group.ranks, group.rank = list(range(sizes.pipeline_parallel_size)), stage
        config.compilation_config.static_forward_context.clear()
        with torch.device("meta"):
            model = initialize_model(vllm_config=config)
        weights.append(sum(p.numel() * p.element_size() for p in model.parameters()))
        # As executors do when the model is loaded: hybrids get their real block here.
        platforms.current_platform.update_block_size_for_backend(config)
        specs.append(_specs(config, backends))
    return specs, dict(backends), weights


def _specs(config, backends):
    """Return the KV specs of the stage's layers, counting attention backends."""
    found = {}
    for name, layer in get_layers_from_vllm_config(config, AttentionLayerBase).items():
        backend = layer.get_attn_backend()
        backends[backend.get_name()] += 1
        spec = layer.get_kv_cache_spec(config)
        if spec is None:
            continue
        if hasattr(backend, "customize_spec") and not type(spec).__name__.startswith("Mamba"):
            spec = backend.customize_spec(spec)
        found[name] = spec
    return found


def _kv_plan(config, specs, available_bytes):
    """Return what vLLM's planner makes of the bytes on every rank."""
    register_all_kvcache_specs(config)
    if config.cache_config.kv_cache_layout is None:
        config.cache_config.kv_cache_layout = LAYOUT
    groups = get_global_kv_cache_groups(config, specs)
    plans = get_kv_cache_configs(config, specs, [available_bytes] * len(specs), groups)
    plan = generate_scheduler_kv_cache_config(plans)
    tokens, concurrency = get_kv_cache_capacity(config, plan)
    shown = [
        [
            type(g.kv_cache_spec).__name__,
            len(g.layer_names),
            g.kv_cache_spec.block_size,
            g.kv_cache_spec.page_size_bytes,
        ]
        for g in plan.kv_cache_groups
    ]
    return {"blocks": plan.num_blocks, "tokens": tokens, "concurrency": round(concurrency, 6), "groups": shown}


def _available(config, asked, weights):
    """Return the bytes for KV on a rank: given, or what utilisation leaves beside weights (no profile run here)."""
    given = asked.get("available_bytes") or config.cache_config.kv_cache_memory_bytes
    return given or int(gpu.Gpu.memory_bytes * config.cache_config.gpu_memory_utilization) - max(weights)


def answer(asked, directory):
    """Return what vLLM says to one question; what it refuses raises."""
    config = started(asked["words"], directory)
    sizes, cache, scheduler = config.parallel_config, config.cache_config, config.scheduler_config
    transfer = config.kv_transfer_config
    found = {
        "max_model_len": config.model_config.max_model_len,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "long_prefill_tokens": scheduler.long_prefill_token_threshold,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "prefix_caching": cache.enable_prefix_caching,
        "kv_cache_dtype": str(cache.cache_dtype),
        "dtype": str(config.model_config.dtype),
        "quantization": config.model_config.quantization,
        "parallel": {
            "tp": sizes.tensor_parallel_size,
            "pp": sizes.pipeline_parallel_size,
            "dp": sizes.data_parallel_size,
            "dp_local": sizes.data_parallel_size_local,
            "dp_rank": sizes.data_parallel_rank,
            "dcp": sizes.decode_context_parallel_size,
            "pcp": sizes.prefill_context_parallel_size,
            "ep": sizes.enable_expert_parallel,
            "nodes": sizes.nnodes,
            "node_rank": sizes.node_rank,
            "executor": str(sizes.distributed_executor_backend),
        },
        "connector": transfer and {"name": transfer.kv_connector, "extra": transfer.kv_connector_extra_config},
    }
    if asked.get("only_starts"):
        return found
    with set_current_vllm_config(config):
        specs, backends, weights = _build(config)
        plan = _kv_plan(config, specs, _available(config, asked, weights))
        return {**found, "backends": backends, "weights_bytes": weights, **plan}
