"""TensorRT-LLM: the YAML file that ``trtllm-serve --extra_llm_api_options`` reads, and the flags that say the same.

References
----------
Keys: ``catalog/engine_flags/tensorrt-llm-1.2.1.json``. Flags and defaults: ``tensorrt_llm/commands/serve.py`` and
``llmapi/llm_args.py`` of github.com/NVIDIA/TensorRT-LLM, read on 2026-12-01.
"""

from __future__ import annotations

from planner.emit.tables.table import Row, Table

TENSORRT_LLM = Table(
    "tensorrt-llm",
    (
        Row("tp", "tensor_parallel_size", default=1, times=("data",), spellings=("--tp_size",)),
        Row("pp", "pipeline_parallel_size", default=1, spellings=("--pp_size",)),
        Row("window_tokens", "max_seq_len", "tokens", spellings=("--max_seq_len",)),
        Row("sequences", "max_batch_size", spellings=("--max_batch_size",)),
        Row("batched_tokens", "max_num_tokens", "tokens", spellings=("--max_num_tokens",)),
        Row("chunked", "enable_chunked_prefill", default=False),
        Row("reuses_prefixes", "kv_cache_config.enable_block_reuse", default=True),
        Row(
            "block_tokens",
            "kv_cache_config.tokens_per_block",
            "tokens",
        ),
        Row(
            "memory_share",
            "kv_cache_config.free_gpu_memory_fraction",
            "of what weights leave",
            default=0.9,
            spellings=("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
        ),
        Row("kv_tokens", "kv_cache_config.max_tokens", "tokens"),
        Row("kv_option", "kv_cache_config.dtype", default="auto", spellings=("--kv_cache_dtype",)),
        Row("disk_bytes", "kv_cache_config.disk_cache_size", "bytes"),
        Row("disk_path", "kv_cache_config.disk_cache_path"),
        Row("tier_size", "kv_cache_config.host_cache_size", "bytes per GPU", default=0),
        Row("ep", "moe_expert_parallel_size", default=1, spellings=("--ep_size",)),
        Row("attention_data", "enable_attention_dp", default=False, spellings=("--enable_attention_dp",)),
        Row("sparse_algorithm", "sparse_attention_config.algorithm"),
        Row("sparse_budget", "sparse_attention_config.prompt_budget", "tokens"),
        Row("speculative", "speculative_config"),
    ),
    unpriced={"speculative_config": "speculative decoding"},
)
