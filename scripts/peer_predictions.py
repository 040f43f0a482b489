"""What another tool predicts for measured points: reads points as JSON on stdin, writes predictions to stdout.

Run with the Python of an environment that holds the tool, by `scripts/compare_tools.py`::

    python scripts/peer_predictions.py genz|llm-analysis|aiconfigurator < points.json

Each tool gets what it can express, with its own defaults. A point that it can't express, or refuses, has
a reason instead of a time. Times are in seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Point = dict[str, Any]
BITS = {"bf16": 16, "int8": 8, "w8a8": 8, "fp8": 8, "int4": 4}


class CantError(Exception):
    """The tool has no answer; the message says why."""


def whole(point: Point, prefill_s: Callable[[], float], step_s: Callable[[float], float]) -> float:
    """A point's metric from a prefill of the batch and a decode step at a length."""
    if point["metric"] == "prefill_s":
        return prefill_s()
    middle = point["input_tokens"] + point["output_tokens"] / 2.0
    if point["metric"] == "tpot_s":
        return step_s(middle)
    return prefill_s() + max(point["output_tokens"] - 1, 0) * step_s(middle)


def genz(point: Point) -> float:
    """GenZ-LLM: operators of a described model on one of its systems, at full efficiency (its default)."""
    from GenZ import decode_moddeling, prefill_moddeling
    from GenZ.Models.default_models import ModelConfig

    systems = {"a100-sxm-80gb": "A100_80GB_GPU", "a100-pcie-80gb": "A100_80GB_GPU", "a100-sxm-40gb": "A100_40GB_GPU"}
    systems["h100-sxm-80gb"] = "H100_GPU"
    if point["gpu"] not in systems:
        raise CantError(f"no system for {point['gpu']}")
    experts = {"num_experts": point["experts"], "expert_top_k": 2, "moe_layer_freq": 1} if point["experts"] else {}
    model = ModelConfig(
        model="point",
        vocab_size=point["vocab"],
        hidden_size=point["hidden"],
        intermediate_size=point["ffn"],
        num_ffi=2 if point["gated"] else 1,
        num_decoder_layers=point["layers"],
        num_attention_heads=point["q_heads"],
        num_key_value_heads=point["kv_heads"],
        head_dim=point["head_dim"],
        **experts,
    )
    bits = {"bf16": "bf16", "int8": "int8", "w8a8": "int8", "fp8": "fp8", "int4": "int4"}[point["weights"]]
    shared = {
        "model": model,
        "batch_size": point["batch"],
        "system_name": systems[point["gpu"]],
        "bits": bits,
        "tensor_parallel": point["tp"],
        "pipeline_parallel": point["pp"],
        "parallelism_heirarchy": f"TP{{{point['tp']}}}_EP{{1}}_PP{{{point['pp']}}}",
    }

    def prefill_s() -> float:
        return float(prefill_moddeling(input_tokens=point["input_tokens"], **shared)["Latency"]) / 1e3

    def step_s(length: float) -> float:
        return float(decode_moddeling(input_tokens=int(length), output_tokens=0, Bb=1, **shared)["Latency"]) / 1e3

    return whole(point, prefill_s, step_s)


def llm_analysis(point: Point) -> float:
    """llm-analysis: FLOPs and bytes at full efficiency (its default); a gated layer counts as 1.5 times its width."""
    from llm_analysis.analysis import LLMAnalysis
    from llm_analysis.config import DtypeConfig, ModelConfig, ParallelismConfig, get_gpu_config_by_name

    width = point["ffn"] * (1.5 if point["gated"] else 1.0)
    model = ModelConfig(
        name="point",
        num_layers=point["layers"],
        n_head=point["q_heads"],
        hidden_dim=point["hidden"],
        vocab_size=point["vocab"],
        num_key_value_heads=point["kv_heads"],
        ffn_embed_dim=round(width),
        expansion_ratio=width / point["hidden"],
        model_type="llama",
        moe_num_experts=point["experts"] or 1,
        moe_top_k=2 if point["experts"] else 1,
    )
    bits = BITS[point["weights"]]
    activations = 8 if point["weights"] in ("w8a8", "fp8") else 16
    analysis = LLMAnalysis(
        model,
        get_gpu_config_by_name(point["gpu"]),
        DtypeConfig(name="point", weight_bits=bits, activation_bits=activations, embedding_bits=16),
        ParallelismConfig(tp_size=point["tp"], pp_size=point["pp"]),
    )
    answer = analysis.inference(
        batch_size_per_gpu=point["batch"],
        seq_len=point["input_tokens"],
        num_tokens_to_generate=point["output_tokens"],
        kv_cache_dtype_bytes=2,
    )
    return whole(
        point,
        lambda: float(answer["prefill_latency"]),
        lambda length: float(answer["total_decode_latency"]) / point["output_tokens"],
    )


def aiconfigurator(point: Point) -> float:
    """aiconfigurator: its measured tables of the point's engine, static batching; bf16 only here."""
    from aiconfigurator.cli.api import cli_estimate

    systems = {"a100-sxm-80gb": "a100_sxm", "h100-sxm-80gb": "h100_sxm"}
    engines = {"vllm": "vllm", "tensorrt-llm": "trtllm", "sglang": "sglang"}
    if point["gpu"] not in systems or point["engine"] not in engines:
        raise CantError(f"no tables for {point['engine']} on {point['gpu']}")
    if point["weights"] not in ("bf16", "fp8"):
        raise CantError(f"{point['weights']} weights")
    if point["kv_dtype"] not in ("", "bf16", "fp16", "f16"):
        raise CantError(f"{point['kv_dtype']} cache")
    config = {
        "architectures": ["MixtralForCausalLM" if point["experts"] else "LlamaForCausalLM"],
        "model_type": "mixtral" if point["experts"] else "llama",
        "num_hidden_layers": point["layers"],
        "hidden_size": point["hidden"],
        "num_attention_heads": point["q_heads"],
        "num_key_value_heads": point["kv_heads"],
        "head_dim": point["head_dim"],
        "intermediate_size": point["ffn"],
        "vocab_size": point["vocab"],
        "max_position_embeddings": 1 << 20,
        "torch_dtype": "bfloat16",
        **({"num_local_experts": point["experts"], "num_experts_per_tok": 2} if point["experts"] else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        quantised = {"gemm_quant_mode": "fp8"} if point["weights"] == "fp8" else {}
        spread = {"moe_tp_size": point["tp"], "moe_ep_size": 1} if point["experts"] else {}
        answer = cli_estimate(
            folder,
            systems[point["gpu"]],
            mode="static",
            backend_name=engines[point["engine"]],
            isl=point["input_tokens"],
            osl=max(point["output_tokens"], 2),
            batch_size=point["batch"],
            tp_size=point["tp"],
            pp_size=point["pp"],
            **quantised,
            **spread,
        )
    return whole(point, lambda: answer.ttft / 1e3, lambda length: answer.tpot / 1e3)


TOOLS = {"genz": genz, "llm-analysis": llm_analysis, "aiconfigurator": aiconfigurator}


def main() -> None:
    """Predict every point that is on stdin."""
    tool = TOOLS[sys.argv[1]]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found: dict[str, Any] = {}
    for point in json.load(sys.stdin):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                value = tool(point)
            found[point["id"]] = value if value > 0 else "no positive time"
        except (Exception, SystemExit) as error:  # Whatever a tool refuses with is its answer.
            found[point["id"]] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
