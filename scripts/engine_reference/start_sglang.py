"""SGLang's own start: its command line, its resolution of arguments with every hook, its model and memory pool.

Runs in the engines' environment; `answer.py` asks it.
"""

import inspect
from types import SimpleNamespace

import gpu
import torch
import torch.distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

torch.cuda.is_available = lambda: True  # before SGLang looks, as it is imported

import sglang.launch_server as launch_server  # noqa: E402
import sglang.srt.entrypoints.http_server  # noqa: E402, F401
from sglang.srt.configs.load_config import LoadConfig, LoadFormat  # noqa: E402
from sglang.srt.configs.model_config import AttentionArch, ModelConfig  # noqa: E402
from sglang.srt.distributed import bootstrap, parallel_state  # noqa: E402
from sglang.srt.entrypoints.engine import Engine  # noqa: E402
from sglang.srt.layers.moe import initialize_moe_config  # noqa: E402
from sglang.srt.mem_cache import kv_cache_configurator as pools  # noqa: E402
from sglang.srt.mem_cache.kv_cache_dtype import configure_kv_cache_dtype  # noqa: E402
from sglang.srt.model_executor.model_runner_components import layer_setup, load_model_utils  # noqa: E402
from sglang.srt.model_loader.loader import _get_quantization_config, _initialize_model  # noqa: E402
from sglang.srt.runtime_context import SpawnRanks, get_model, get_parallel, get_schedule, publish  # noqa: E402
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm  # noqa: E402

PROGRAM_WORDS = 3
"""``python3 -m sglang.launch_server``."""
REPORTED = (
    "attention_backend", "prefill_attention_backend", "decode_attention_backend", "chunked_prefill_size",
    "context_length", "disable_radix_cache", "disaggregation_decode_enable_radix_cache", "disaggregation_mode",
    "disaggregation_transfer_backend", "dtype", "enable_hierarchical_cache", "enable_lmcache", "hicache_io_backend",
    "hicache_mem_layout", "hicache_size", "hicache_storage_backend", "hicache_write_policy", "kv_cache_dtype",
    "max_queued_requests", "max_running_requests", "max_total_tokens", "mem_fraction_static", "moe_a2a_backend",
    "moe_runner_backend", "nnodes", "node_rank", "page_size", "pp_size", "quantization", "schedule_policy",
    "tp_size", "attn_dp_size", "dcp_size", "attn_cp_size", "ep_size",
)  # fmt: skip
"""What resolution makes of the arguments."""
POOL = ("max_total_num_tokens", "full_max_total_num_tokens", "swa_max_total_num_tokens", "max_running_requests")
_GIB = 1 << 30


class Started(BaseException):
    """SGLang has checked everything, and would start its schedulers now."""

    def __init__(self, server_args):
        self.server_args = server_args


def _starts(server_args, *_, **__):
    raise Started(server_args)


def _stop_before_processes():
    """The launcher ends where schedulers would start; groups of ranks need neither GPUs nor other processes."""
    Engine._launch_scheduler_processes = _starts
    communicators = (
        "use_pynccl", "use_mscclpp", "use_custom_allreduce", "use_torch_symm_mem_all_reduce",
        "use_message_queue_broadcaster",
    )  # fmt: skip
    without = dict.fromkeys(communicators, False)
    group, new_group = parallel_state.GroupCoordinator.__init__, torch.distributed.new_group
    parallel_state.GroupCoordinator.__init__ = lambda self, *given, **named: group(self, *given, **{**named, **without})
    fake = {"backend": "fake", "pg_options": None}
    torch.distributed.new_group = lambda *given, **named: new_group(*given, **{**named, **fake})


_stop_before_processes()


def started(words, directory):
    """Return the server arguments that the launcher ends with, for the model in a directory; it refuses by raising."""
    words = list(words[PROGRAM_WORDS:])
    words[words.index("--model-path") + 1] = directory
    given = launch_server.prepare_server_args(words)
    try:
        launch_server.run_server(given)
    except Started as end:
        return end.server_args
    raise RuntimeError("SGLang left without starting anything")


def _model(server_args):
    """Build the first rank's model without memory, as its scheduler would; return it with its configuration."""
    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=0, gpu_id=0))
    config = ModelConfig.from_server_args(server_args)
    ranks = get_parallel().tp_size * get_parallel().pp_size
    torch.distributed.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    bootstrap._init_parallel_groups(backend="fake", dist_init_method="", server_args=server_args, gpu_id=0)
    bootstrap.init_layer_runtime(model_config=config)
    initialize_moe_config()
    load = LoadConfig(load_format=LoadFormat.DUMMY)
    quantization = _get_quantization_config(config, load)
    torch.set_default_dtype(config.dtype)
    with torch.device("meta"):
        model = _initialize_model(config, load, quantization)
    if get_parallel().pp_size > 1:  # as its model runner asks
        assert "pp_proxy_tensors" in inspect.signature(model.forward).parameters, "Pipeline Parallel is not compatible"
    return model, config


def _weights_bytes(model):
    """Return what weights take when they are loaded: those that are made fp8 then are built in bf16 here."""
    total = 0
    for module in model.modules():
        made = type(getattr(module, "quant_method", None)).__name__.startswith("Fp8")
        for weight in module.parameters(recurse=False):
            total += weight.numel() * (1 if made and weight.dim() > 1 else weight.element_size())
    return total


def _pool(server_args, model, config, weights_bytes):
    """Return SGLang's configuration of the memory pool on the first rank."""
    kept = get_model().kv_cache_dtype
    name, dtype = configure_kv_cache_dtype(
        server_args_kv_cache_dtype=kept,
        model=model,
        model_dtype=config.dtype,
        is_draft_worker=False,
        is_dflash=False,
        speculative_draft_attention_backend=None,
    )
    no_draft = {"draft_model_config": None, "dflash_draft_num_layers": None, "eagle_draft_num_layers": None}
    configurator = pools.KVCacheConfigurator(
        device="cuda",
        gpu_id=0,
        attn_dp_size=get_parallel().attn_dp_size,
        pp_size=get_parallel().pp_size,
        pp_group=get_parallel().pp_group,
        model=model,
        model_config=config,
        server_args=server_args,
        kv_cache_dtype=dtype,
        kv_cache_dtype_str=name or kept,
        model_dtype=config.dtype,
        page_size=get_schedule().page_size,
        sliding_window_size=load_model_utils.resolve_sliding_window_size(model, config),
        spec_algorithm=SpeculativeAlgorithm.from_string(None),
        is_draft_worker=False,
        post_capture_kv_active=False,
        spec_aux_config=SimpleNamespace(**no_draft),
        is_hybrid_swa=config.is_hybrid_swa,
        is_hybrid_swa_compress=config.is_hybrid_swa_compress,
        use_mla_backend=config.attention_arch == AttentionArch.MLA,
        layer_info=layer_setup.resolve_layer_indices(model=model, model_config=config, is_draft_worker=False),
        forward_stream=None,
        req_to_token_pool=None,
        token_to_kv_pool_allocator=None,
        memory_pool_config=None,
    )
    pools.get_available_gpu_memory = lambda *_, **__: (gpu.Gpu.memory_bytes - weights_bytes) / _GIB
    return configurator._resolve_memory_pool_config(gpu.Gpu.memory_bytes / _GIB)


def answer(asked, directory):
    """Return what SGLang says to one question; what it refuses raises."""
    server_args = started(asked["words"], directory)
    resolved = server_args.resolved_dict()
    found = {name: resolved[name] for name in REPORTED if resolved[name] is not None}
    if asked.get("only_starts"):
        return found
    model, config = _model(server_args)
    weights = _weights_bytes(model)
    pool = _pool(server_args, model, config, weights)
    sizes = {name: getattr(pool, name) for name in POOL if getattr(pool, name) is not None}
    return {**found, "weights_bytes": [weights], "pool": sizes}
