"""vLLM: ``vllm serve``.

References
----------
Flags: ``catalog/engine_flags/vllm-0.33.0.json``. Defaults: ``EngineArgs`` and ``get_batch_defaults`` of vLLM 0.33, by
the GPU's memory, with the A100 among the small; read on 2026-11-25.
"""

from __future__ import annotations

from catalog.schema import Hardware
from planner.emit.tables.table import Row, Table

_GIB = 1 << 30
_LARGE_BYTES, _MIDDLE_BYTES = 160 * _GIB, 70 * _GIB


def _is_large(hardware: Hardware) -> bool:
    return hardware.hbm >= _LARGE_BYTES


def _is_middle(hardware: Hardware) -> bool:
    return hardware.hbm >= _MIDDLE_BYTES and not hardware.id.lower().startswith("a100")


def _sequences(hardware: Hardware) -> int:
    return 1024 if _is_large(hardware) or _is_middle(hardware) else 256


def _batched_tokens(hardware: Hardware) -> int:
    return 16_384 if _is_large(hardware) else 8_192 if _is_middle(hardware) else 2_048


VLLM = Table(
    "vllm",
    (
        Row("tp", "--tensor-parallel-size", default=1),
        Row("pp", "--pipeline-parallel-size", default=1),
        Row("dcp", "--decode-context-parallel-size", default=1),
        Row("pcp", "--prefill-context-parallel-size", default=1),
        Row("experts_spread", "--enable-expert-parallel", default=False),
        Row("data", "--data-parallel-size", default=1),
        Row("window_tokens", "--max-model-len", "tokens"),
        Row("sequences", "--max-num-seqs", by_gpu=_sequences),
        Row("batched_tokens", "--max-num-batched-tokens", "tokens", by_gpu=_batched_tokens),
        Row("chunked", "--enable-chunked-prefill", default=True, off="--disable-chunked-prefill"),
        Row("throttle_tokens", "--long-prefill-token-threshold", "tokens", default=0),
        Row("memory_share", "--gpu-memory-utilization", "of HBM", default=0.92),
        Row("kv_bytes", "--kv-cache-memory-bytes", "bytes per GPU"),
        Row("block_tokens", "--block-size", "tokens", default=16),
        Row("kv_option", "--kv-cache-dtype", default="auto", means={"fp8": "fp8_e4m3"}),
        Row("weights", "--quantization"),
        Row("reuses_prefixes", "--enable-prefix-caching", default=True, off="--disable-prefix-caching"),
        Row("tier_size", "--kv-offloading-size", "GiB per instance"),
        Row("transfer", "--kv-transfer-config", "JSON"),
        Row("served_names", "--served-model-name"),
        Row("speculative", "--speculative-config", "JSON"),
    ),
    unpriced={
        "--speculative-config": "speculative decoding",
        "--speculative-model": "speculative decoding",
        "--cpu-offload-gb": "weights in host memory",
        "--enable-lora": "LoRA adapters",
        "--enable-dbo": "two batches that overlap",
    },
)
