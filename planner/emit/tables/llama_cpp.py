"""llama.cpp: ``llama-server``.

References
----------
Flags: ``catalog/engine_flags/llama.cpp-11549.json``; short names and defaults: ``common/arg.cpp`` and
``tools/server/README.md`` of github.com/ggml-org/llama.cpp, read on 2026-12-01.
"""

from __future__ import annotations

from planner.emit.tables.table import Row, Table

LLAMA_CPP = Table(
    "llama.cpp",
    (
        Row("model", "--model", spellings=("-m",)),
        Row("repository", "--hf-repo", spellings=("-hf", "-hfr")),
        Row("served_names", "--alias", spellings=("-a",)),
        Row("context_of_all_slots", "--ctx-size", "tokens over all slots", spellings=("-c",)),
        Row("slots", "--parallel", spellings=("-np",)),
        Row("shared_context", "--kv-unified", off="--no-kv-unified", spellings=("-kvu",)),
        Row("chunk_tokens", "--batch-size", "tokens", default=2_048, spellings=("-b",)),
        Row("step_tokens", "--ubatch-size", "tokens", default=512, spellings=("-ub",)),
        Row("kv_k", "--cache-type-k", default="f16", spellings=("-ctk",)),
        Row("kv_v", "--cache-type-v", default="f16", spellings=("-ctv",)),
        Row("flash_attention", "--flash-attn", default="auto", spellings=("-fa",)),
        Row("layers_on_gpu", "--n-gpu-layers", default="auto", spellings=("-ngl", "--gpu-layers")),
        Row("split", "--split-mode", default="layer", spellings=("-sm",)),
        Row("tier_size", "--cache-ram", "MiB", spellings=("-cram",)),
        Row("draft", "--model-draft", spellings=("-md",)),
    ),
    unpriced={
        "--model-draft": "speculative decoding",
        "--spec-draft-model": "speculative decoding",
        "--spec-draft-hf": "speculative decoding",
    },
)
