"""Answer questions from stdin, one line of JSON each. Runs in vLLM's environment, one child process per question."""

import json
import os
import sys
import tempfile
import traceback
from collections import Counter

import gpu

gpu.pretend()

import torch  # noqa: E402
import vllm.distributed.parallel_state as parallel  # noqa: E402
from vllm.config import get_layers_from_vllm_config, set_current_vllm_config  # noqa: E402
from vllm.distributed import init_distributed_environment, initialize_model_parallel  # noqa: E402
from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: E402
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase  # noqa: E402
from vllm.model_executor.model_loader.utils import initialize_model  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402
from vllm.v1.core.kv_cache_planning import get_global_kv_cache_groups, get_kv_cache_configs  # noqa: E402
from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_capacity  # noqa: E402
from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs  # noqa: E402

LAYOUT = "LBNHC"
"""Any of vLLM's KV layouts: sizes don't depend on it."""


def engine_config(asked):
    """Return vLLM's own configuration of a command line; it refuses by raising or by leaving."""
    directory = asked["directory"]
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as stream:
        json.dump(asked["config"], stream)
    words = [directory, *asked["arguments"], "--skip-tokenizer-init", "--load-format", "dummy"]
    given = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    validate_parsed_serve_args(given)
    given.model = given.model_tag
    return AsyncEngineArgs.from_cli_args(given).create_engine_config(UsageContext.OPENAI_API_SERVER)


def build(config):
    """Build every pipeline stage's model without memory; return KV specs, backends and weight bytes by stage."""
    sizes = config.parallel_config
    # Data-parallel ranks are alike and plan their caches each for itself; other servers aren't there to be asked.
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
        specs.append(found)
    return specs, dict(backends), weights


def kv_plan(config, specs, available_bytes):
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


def answer(asked):
    """Return what vLLM says to one question."""
    for name, value in asked["gpu"].items():
        setattr(gpu.Gpu, name, tuple(value) if name == "capability" else value)
    os.environ.update(asked.get("environment", {}))
    config = engine_config(asked)
    found = {
        "max_model_len": config.model_config.max_model_len,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "kv_cache_dtype": str(config.cache_config.cache_dtype),
    }
    if asked.get("available_bytes") is None:
        return found
    with set_current_vllm_config(config):
        specs, backends, weights = build(config)
        return {
            **found,
            "backends": backends,
            "weights_bytes": weights,
            **kv_plan(config, specs, asked["available_bytes"]),
        }


def main():
    """Answer every line in a process of its own, so that none leaves anything behind for the next."""
    for line in sys.stdin:
        asked = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                with tempfile.TemporaryDirectory() as directory:
                    said = {"accepted": True, **answer({**asked, "directory": directory})}
            except SystemExit:
                said = {"accepted": False, "error": "vLLM's parser refuses the command line (see stderr)"}
            except Exception as error:
                traceback.print_exc()
                said = {"accepted": False, "error": f"{type(error).__name__}: {error}"[:2000]}
            with os.fdopen(writing, "w", encoding="utf-8") as stream:
                stream.write(json.dumps(said))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as stream:
            text = stream.read()
        os.waitpid(child, 0)
        said = json.loads(text) if text else {"accepted": False, "error": "the process died"}
        print("ANSWER " + json.dumps({"name": asked.get("name"), **said}), flush=True)


main()
