"""LMDeploy's TurboMind: ``lmdeploy serve api_server``.

References
----------
Flags and the defaults of its parser: ``catalog/engine_flags/lmdeploy-0.18.0.json`` and ``lmdeploy/cli/utils.py`` of
github.com/InternLM/lmdeploy, read on 2026-12-01.
"""

from __future__ import annotations

from planner.emit.tables.table import Row, Table

LMDEPLOY = Table(
    "lmdeploy",
    (
        Row("backend", "--backend", default="turbomind"),
        Row("tp", "--tp", default=1),
        Row("data", "--dp", default=1),
        Row("ep", "--ep", default=1),
        Row("window_tokens", "--session-len", "tokens"),
        Row("sequences", "--max-batch-size"),
        Row("batched_tokens", "--max-prefill-token-num", "tokens", default=8_192),
        Row("block_tokens", "--cache-block-seq-len", "tokens", default=64),
        Row("memory_share", "--cache-max-entry-count", "of what weights leave; above 1, blocks", default=0.8),
        Row("weights", "--model-format"),
        Row("kv_option", "--quant-policy", default="0", values={0: "0", 4: "4", 8: "8", 42: "42", 16: "16", 17: "17"}),
        Row("reuses_prefixes", "--enable-prefix-caching", default=False),
        Row("served_names", "--model-name"),
        Row("role", "--role", default="Hybrid"),
        Row("speculative", "--speculative-algorithm"),
    ),
    unpriced={"--speculative-algorithm": "speculative decoding"},
)
