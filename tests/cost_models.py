"""Models, a server and builders that the tests of the cost model share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from catalog.architecture import Architecture, read_config
from catalog.load import open_catalog
from catalog.schema import Hardware, Node
from planner.cost.compression import CompressionTable, compression_table
from planner.cost.compute import Compressed
from planner.cost.efficiency import PEAK, Efficiency
from planner.cost.pool import compressed
from planner.cost.price import Candidates, Setting
from planner.cost.replica import Shape, WeightFormat
from planner.cost.workload import Workload
from planner.measured.machine import machine
from planner.measured.times import MeasuredTimer

YI = {
    "model_type": "llama",
    "hidden_size": 7168,
    "intermediate_size": 20480,
    "num_hidden_layers": 60,
    "num_attention_heads": 56,
    "num_key_value_heads": 8,
    "vocab_size": 64000,
    "max_position_embeddings": 200000,
    "tie_word_embeddings": False,
}
"""Yi-34B-200K, the source paper's model."""

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
"""Llama 3.1 8B."""

DEEPSEEK_LITE = {
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
}
"""DeepSeek-V2-Lite: MLA and experts."""

GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
"""Gemma 3 27B without its vision tower: five sliding layers for each full one."""

_SMALL = {**LLAMA_8B, "num_hidden_layers": 8}

CONFIGS: dict[str, dict[str, Any]] = {
    "gqa": LLAMA_8B,
    "mha": {**_SMALL, "num_key_value_heads": 32},
    "mqa": {**_SMALL, "num_key_value_heads": 1},
    "mla": DEEPSEEK_LITE,
    "indexer": {
        **DEEPSEEK_LITE,
        "model_type": "deepseek_v32",
        "q_lora_rank": 768,
        "index_n_heads": 16,
        "index_head_dim": 128,
        "index_topk": 2048,
    },
    "sliding": GEMMA,
    "chunked": {
        "model_type": "llama4_text",
        "hidden_size": 2048,
        "intermediate_size": 4096,
        "intermediate_size_mlp": 8192,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 8192,
        "vocab_size": 32000,
        "max_position_embeddings": 1000000,
        "tie_word_embeddings": False,
    },
    "ssm": {
        "model_type": "nemotron_h",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 8,
        "hybrid_override_pattern": "M-M*-M-M",
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_head_dim": 128,
        "mamba_num_heads": 64,
        "mamba_head_dim": 64,
        "n_groups": 8,
        "ssm_state_size": 128,
        "conv_kernel": 4,
        "chunk_size": 128,
        "vocab_size": 32000,
        "max_position_embeddings": 1000000,
        "tie_word_embeddings": False,
    },
    "moe": {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 8,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
}
"""One small model of each kind of attention and of feed-forward."""


@cache
def model(kind: str) -> Architecture:
    """One of `CONFIGS`."""
    return read_config(CONFIGS[kind])


def hardware(**changes: float) -> Hardware:
    """An A100 SXM 80 GB: 80 GiB, 2.039 TB/s, 312 TFLOP/s, PCIe 20 GB/s each way; fields may be changed."""
    sizes = {"hbm": 80.0 * 2**30, "hbm_bandwidth": 2.039e12, "flops": 312e12, "pcie": 20e9, "nvlink": 228e9, **changes}
    return Hardware(
        id="a100",
        name="A100",
        vendor="nvidia",
        generation="Ampere",
        compute_capability="8.0",
        form_factor="SXM4",
        hbm=f"{sizes['hbm']} B",
        hbm_bandwidth=f"{sizes['hbm_bandwidth']} B/s",
        flops={"bf16": f"{sizes['flops']} FLOP/s"},
        gpu_link={"kind": "NVLink", "nominal": "1000 GB/s", "effective": f"{sizes['nvlink']} B/s"},
        pcie={"kind": "PCIe", "nominal": "1000 GB/s", "effective": f"{sizes['pcie']} B/s"},
        tdp="400 W",
        sources=[{"ref": "test"}],
        checked="2026-11-25",
    )


def server(**changes: Any) -> Node:
    """Eight GPUs on one switch, two per PCIe uplink, 2 TB of host memory; fields may be changed."""
    return Node(
        **{
            "id": "server",
            "name": "Server",
            "hardware": "a100",
            "gpus": 8,
            "gpu_topology": "nvswitch",
            "gpus_per_pcie_uplink": 2,
            "host_memory": "2 TB",
            "nvme": {"capacity": "10 TB", "read": "20 GB/s", "write": "10 GB/s"},
            "nic": {"kind": "InfiniBand", "bandwidth": "200 GB/s"},
            "sources": [{"ref": "test"}],
            "checked": "2026-11-25",
            **changes,
        }
    )


def uncompressed() -> CompressionTable:
    """The table with the one combination that compresses nothing."""
    return compression_table([[None] * 5])


def kept(storage: float, reads: float | None = None) -> CompressionTable:
    """A hidden-dimension option that leaves a share of the bytes."""
    table = uncompressed()
    table.storage_slope[3] = storage
    table.reads_slope[3] = storage if reads is None else reads
    return table


def setting(
    architecture: Architecture,
    ctx: int,
    *shapes: Shape,
    efficiency: Efficiency = PEAK,
    gpu: Hardware | None = None,
    node: Node | None = None,
    compression: CompressionTable | None = None,
    timer: MeasuredTimer | None = None,
    **session: Any,
) -> Setting:
    """A pricing on the A100 server at 1 USD per GPU and hour."""
    return Setting(
        architecture=architecture,
        hardware=gpu or hardware(),
        node=node or server(),
        gpus_per_node=8,
        cluster_gpus=8,
        workload=Workload(ctx, growth=efficiency.growth, **session),
        efficiency=efficiency,
        shapes=shapes or (Shape(),),
        weight_formats={"w_bf16": WeightFormat()},
        compression=compression or uncompressed(),
        usd_per_gpu_hour=1.0,
        timer=timer,
    )


@cache
def measured(engine: str = "vllm", gpu: str = "a100-sxm-80gb") -> MeasuredTimer:
    """Times of a GPU of the catalog with an engine."""
    catalog = open_catalog()
    return MeasuredTimer(machine(catalog, catalog.get(Hardware, gpu), engine))


_DEFAULTS: dict[str, Any] = {
    "shape": 0,
    "compression": 0,
    "replicas": 1,
    "decode_sequences": 1,
    "resident_limit": 0,
    "prefill_chunk": 0,
    "throttled": False,
    "policy": 0,
    "tier": 0,
    "prefill_shape": -1,
    "prefill_replicas": 0,
    "prefill_pool_chunk": 0,
    "reserve_gpus": 0,
}


def candidates(**columns: Any) -> Candidates:
    """Candidates of these columns, which may be scalars; what isn't given is the plainest decision."""
    count = max((np.size(values) for values in columns.values()), default=1)
    return Candidates(
        **{name: np.broadcast_to(np.asarray(value), count).copy() for name, value in {**_DEFAULTS, **columns}.items()}
    )


def left(tokens: float, count: int = 1) -> Compressed:
    """Nothing compressed, for ``count`` candidates of ``tokens`` tokens."""
    return compressed(uncompressed(), tokens, tokens, False).take(np.zeros(count, dtype=np.int64))


def without_overlap(efficiency: Efficiency = PEAK) -> Efficiency:
    """The same view with linear layers and attention apart."""
    return replace(efficiency, overlap=False)
