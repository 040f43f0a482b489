"""SGLang: ``python3 -m sglang.launch_server``.

References
----------
Flags: ``catalog/engine_flags/sglang-0.5.23.json``. The chunk by the GPU's memory:
``ServerArgs._handle_gpu_memory_settings`` of github.com/sgl-project/sglang, read on 2026-12-01. The share of memory is
worked out from chunk, graphs and model there, so without the flag it isn't known here.
"""

from __future__ import annotations

from catalog.schema import Hardware
from planner.emit.tables.table import Row, Table

_GIB = 1 << 30
_CHUNKS = ((35 * _GIB, 2_048), (60 * _GIB, 4_096), (160 * _GIB, 8_192))


def _chunk_tokens(hardware: Hardware) -> int:
    return next((tokens for below, tokens in _CHUNKS if hardware.hbm < below), 16_384)


SGLANG = Table(
    "sglang",
    (
        Row("tp", "--tp-size", default=1, times=("data",), spellings=("--tp",)),
        Row("pp", "--pp-size", default=1, spellings=("--pp",)),
        Row("data", "--attn-dp-size", default=1),
        Row("replicas", "--dp-size", default=1, spellings=("--dp",)),
        Row("attention_data", "--enable-dp-attention", default=False),
        Row("dcp", "--dcp-size", default=1),
        Row("pcp", "--attn-cp-size", default=1),
        Row("ep", "--ep-size", default=1),
        Row("window_tokens", "--context-length", "tokens"),
        Row("sequences", "--max-running-requests", times=("data",)),
        Row("chunk_tokens", "--chunked-prefill-size", "tokens", by_gpu=_chunk_tokens, times=("data",)),
        Row("memory_share", "--mem-fraction-static", "of HBM, for weights and KV"),
        Row("kv_rows", "--max-total-tokens", "tokens per rank, over which dcp spreads them"),
        Row("kv_option", "--kv-cache-dtype", default="auto"),
        Row("weights", "--quantization"),
        Row("no_reuse", "--disable-radix-cache", default=False),
        Row("role", "--disaggregation-mode", default="null"),
        Row("transfer_backend", "--disaggregation-transfer-backend", default="mooncake"),
        Row("keeps_below", "--enable-hierarchical-cache", default=False),
        Row("lmcache", "--enable-lmcache", default=False),
        Row("tier_size", "--hicache-size", "GB of 1e9 bytes per GPU"),
        Row("tier_storage", "--hicache-storage-backend"),
        Row("served_names", "--served-model-name"),
        Row("model", "--model-path"),
        Row("speculative", "--speculative-algorithm"),
    ),
    unpriced={
        "--speculative-algorithm": "speculative decoding",
        "--speculative-algo": "speculative decoding",
        "--cpu-offload-gb": "weights in host memory",
    },
)
