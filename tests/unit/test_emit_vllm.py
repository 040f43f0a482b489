"""vLLM's launch: every decision has its flag, and every value is the plan's."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.architecture import read_config
from catalog.load import Catalog, open_catalog
from catalog.schema import Model
from planner.cost.allocation import vllm_capacity
from planner.emit.capacity import FREE_SHARE, reserve
from planner.emit.engines import vllm
from planner.emit.launch import Launch
from planner.emit.read_deployment import read_deployment
from planner.errors import InputError
from planner.plan import Document
from tests.plans import flat_plan, plan_of

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
VERSION = "0.33.0"


@cache
def facts() -> Catalog:
    return open_catalog()


def document(name: str, **changes: Any) -> Document:
    """A golden plan, with parts of it changed: ``decision={"weights": ...}``."""
    content = flat_plan(name)
    for part, values in changes.items():
        content[part] |= values
    return plan_of(content)


def launches(name: str, backend: Any = "native", checkpoint: str | None = None, **changes: Any) -> list[Launch]:
    plan = document(name, **changes)
    deployment = read_deployment(plan, facts(), checkpoint=checkpoint, offload_backend=backend)
    return vllm.launches(deployment, VERSION)


def flags(name: str, **changes: Any) -> dict[str, Any]:
    (launch,) = launches(name, **changes)
    return dict(launch.flags)


def test_lengths_and_batches_are_the_plans_own() -> None:
    given = flags("llama8b-int8")
    assert given["--max-model-len"] == 120_000 + 5 * (100 + 250)
    assert given["--max-num-seqs"] == 4 + 1
    assert given["--max-num-batched-tokens"] == 2048 + 4
    assert given["--gpu-memory-utilization"] == 0.92
    assert given["--max-num-queued-reqs"] == 8 * 6  # of all instances: sessions may lie unevenly
    assert given["--enable-prefix-caching"] is True


def test_a_throttled_prefill_leaves_room_for_a_question() -> None:
    assert flags("llama8b-int8")["--long-prefill-token-threshold"] == 2048 - 100
    assert "--long-prefill-token-threshold" not in flags("llama70b-fp8")


def test_an_unchunked_prefill_takes_the_whole_session() -> None:
    batch = {"decode_sequences": 2, "resident_sessions": 3, "prefill_chunk_tokens": None}
    given = flags("llama70b-fp8", decision={"batch": batch})
    assert given["--disable-chunked-prefill"] is True
    assert given["--max-num-batched-tokens"] == 121_750 + 2


def test_fp8_kv_on_ampere_needs_flashinfer() -> None:
    given = flags("llama70b-fp8")
    assert given["--kv-cache-dtype"] == "fp8_e4m3"
    assert given["--attention-backend"] == "FLASHINFER"


def test_int8_kv_runs_on_triton() -> None:
    given = flags("llama8b-int8")
    assert (given["--kv-cache-dtype"], given["--attention-backend"]) == ("int8_per_token_head", "TRITON_ATTN")


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("llama8b-int8", 16),
        ("llama70b-fp8", 16),
        ("llama70b-swap", 16),
        ("scout-1m-pp", 16),
        ("deepseek-v3-dcp", 16),
        ("deepseek-v3-dcp", 64),
        ("deepseek-v3-dcp", 128),
    ],
)
def test_vllm_holds_exactly_the_sessions_that_the_plan_counts(name: str, block: int) -> None:
    plan = document(name)
    deployment = read_deployment(plan, facts())
    (launch,) = vllm.launches(deployment, VERSION)
    given, pool = dict(launch.flags), launch.pool
    held = reserve(deployment, pool, launch.batched_tokens)
    assert held is not None
    capacity = vllm_capacity(
        deployment.architecture,
        available_bytes=held.planned_bytes,
        max_model_len=given["--max-model-len"],
        max_num_batched_tokens=given["--max-num-batched-tokens"],
        kv_format=deployment.kv_format if deployment.technology("hidden") else None,
        tp=pool.tp,
        pp=pool.pp,
        dcp=pool.dcp,
        block_tokens=block,
    )
    assert capacity.starts
    assert int(capacity.concurrency) == pool.resident_sessions
    if block == 16 and name != "deepseek-v3-dcp":
        assert capacity.blocks == capacity.blocks_per_request * pool.resident_sessions + 1


@pytest.mark.parametrize("name", ["llama8b-int8", "llama70b-fp8", "scout-1m-pp"])
def test_most_of_what_is_free_keeps_sessions_too(name: str) -> None:
    plan = document(name)
    deployment = read_deployment(plan, facts())
    (launch,) = vllm.launches(deployment, VERSION)
    held = reserve(deployment, launch.pool, launch.batched_tokens)
    assert held is not None
    assert held.capacity is not None
    hbm = plan.metrics.hbm_bytes_per_gpu
    left = hbm.limit - hbm.weights - hbm.workspace - hbm.overhead - held.planned_bytes
    added = held.bytes_per_gpu - held.planned_bytes
    assert launch.value("--kv-cache-memory-bytes") == held.bytes_per_gpu
    assert FREE_SHARE * left - held.capacity.bytes_per_block < added <= FREE_SHARE * left
    assert held.bytes_per_gpu == held.capacity.blocks * held.capacity.bytes_per_block  # whole blocks: exact at start


def test_dropped_caches_take_no_more_than_they_need() -> None:
    off = {"policy": "recompute", "tier": None}
    plan = document("llama70b-fp8", decision={"offload": off})
    deployment = read_deployment(plan, facts())
    held = reserve(deployment, deployment.pools[0], 4104)
    assert held is not None
    assert held.bytes_per_gpu == held.planned_bytes


def test_kv_memory_stays_within_what_the_plan_leaves_free() -> None:
    for path in PLANS.glob("*.json"):
        plan = Document.model_validate_json(path.read_text())
        if plan.service.engine != "vllm":
            continue
        hbm = plan.metrics.hbm_bytes_per_gpu
        for launch in vllm.launches(read_deployment(plan, facts()), VERSION):
            asked = launch.value("--kv-cache-memory-bytes") or 0
            assert asked <= hbm.limit - hbm.weights - hbm.workspace - hbm.overhead


def test_native_offload_takes_the_tier_of_the_plan() -> None:
    (launch,) = launches("llama70b-swap")
    given = dict(launch.flags)
    assert given["--kv-offloading-backend"] == "native"
    assert given["--kv-offloading-size"] * 2**30 == document("llama70b-swap").metrics.ddr_bytes
    assert launch.shared_memory_bytes > document("llama70b-swap").metrics.ddr_bytes
    assert not launch.files


def test_lmcache_takes_the_tier_of_the_plan_rank_by_rank() -> None:
    (launch,) = launches("llama70b-swap", backend="lmcache")
    config = yaml.safe_load(launch.files["lmcache.yaml"])
    assert config["max_local_cpu_size"] * 8 * 2**30 == document("llama70b-swap").metrics.ddr_bytes
    assert json.loads(str(launch.value("--kv-transfer-config")))["kv_connector"] == "LMCacheConnectorV1"
    assert launch.environment["LMCACHE_CONFIG_FILE"].endswith("lmcache.yaml")


def test_the_nvme_tier_goes_through_lmcache() -> None:
    (launch,) = launches("llama70b-swap-nvme")
    config = yaml.safe_load(launch.files["lmcache.yaml"])
    assert config["max_local_disk_size"] * 8 * 2**30 == document("llama70b-swap-nvme").metrics.nvme_bytes
    assert config["local_disk"].startswith("file://")


def test_lmcache_is_refused_where_it_would_undo_the_windows() -> None:
    offload = {"policy": "swap", "tier": "ddr"}
    with pytest.raises(InputError, match="windowed layers"):
        launches("scout-1m-pp", backend="lmcache", decision={"offload": offload})


def test_recomputation_keeps_no_prefix_unless_one_is_shared() -> None:
    off = {"decision": {"offload": {"policy": "recompute", "tier": None}}}
    assert flags("llama70b-fp8", **off)["--disable-prefix-caching"] is True
    shared = {"request": {"shared_prefix_tokens": 4000}}
    assert "--enable-prefix-caching" in flags("llama70b-fp8", **off, **shared)


def test_a_pipeline_over_servers_names_its_servers() -> None:
    (launch,) = launches("scout-1m-pp")
    assert (launch.nodes, launch.gpus_per_node) == (2, 8)
    assert dict(launch.node_flags)["--nnodes"] == 2
    assert dict(launch.flags)["--pipeline-parallel-size"] == 2
    assert dict(launch.worker_flags) == {"--headless": True}


def test_chunked_attention_keeps_its_windows() -> None:
    (launch,) = launches("scout-1m-pp")
    assert launch.environment["VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE"] == "1"


def test_latent_caches_are_sharded_over_tokens() -> None:
    given = flags("deepseek-v3-dcp")
    assert given["--decode-context-parallel-size"] == 8
    assert "--block-size" not in given
    assert "--quantization" not in given


def test_pools_pass_their_caches_on() -> None:
    prefill, decode = launches("llama8b-split")
    for launch in (prefill, decode):
        assert json.loads(str(launch.value("--kv-transfer-config")))["kv_connector"] == "NixlConnector"
        assert launch.pod_address_variable == "VLLM_NIXL_SIDE_CHANNEL_HOST"
    assert (prefill.pool.instances, decode.pool.instances) == (2, 4)
    assert dict(prefill.flags)["--max-num-batched-tokens"] == 8192 + 1
    assert dict(decode.flags)["--max-num-batched-tokens"] == 100 + 3


def test_caches_wait_where_every_prompt_goes_first() -> None:
    swap = {"policy": "swap", "tier": "ddr"}
    prefill, decode = launches("llama8b-split", decision={"offload": swap}, metrics={"ddr_bytes": 8 * 2.0**30})
    config = json.loads(str(prefill.value("--kv-transfer-config")))
    inner = config["kv_connector_extra_config"]["connectors"]
    assert [c["kv_connector"] for c in inner] == ["NixlConnector", "OffloadingConnector"]
    config = json.loads(str(decode.value("--kv-transfer-config")))
    assert config == {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}
    assert inner[0]["kv_role"] == "kv_producer"
    assert (prefill.host_memory_bytes, decode.host_memory_bytes) == (4 * 2**30, 0)
    # All free memory of a prefill instance is for sessions between rounds, as the plan counts it.
    assert prefill.value("--kv-cache-memory-bytes") is None
    assert "--enable-prefix-caching" in dict(prefill.flags)


def test_a_prefill_pool_leaves_room_for_an_answer_and_the_question_after_it() -> None:
    content = flat_plan("llama8b-split")["decision"]["pools"]
    content["prefill"]["batch"]["prefill_throttled"] = True
    prefill, _ = launches("llama8b-split", decision={"pools": content})
    chunk = content["prefill"]["batch"]["prefill_chunk_tokens"]
    assert prefill.value("--long-prefill-token-threshold") == chunk - (100 + 250)


def test_experts_over_replicas_make_one_instance() -> None:
    parallel = {"tp": 2, "ep": 8, "replicas": 4}
    (launch,) = launches("deepseek-v3-dcp", decision={"parallel": parallel})
    given = dict(launch.flags)
    assert given["--enable-expert-parallel"] is True
    assert (given["--data-parallel-size"], launch.pool.instances) == (4, 1)


def test_quantised_weights_are_loaded_ready_named_or_made() -> None:
    (ready,) = launches("qwen32b-awq-yarn")
    assert ready.program[-1] == "Qwen/Qwen3-32B-AWQ"
    assert ready.value("--quantization") is None  # its config says it
    (named,) = launches("qwen32b-awq-yarn", checkpoint="me/my-awq")
    assert named.program[-1] == "me/my-awq"
    assert named.value("--quantization") == "awq_marlin"
    (made,) = launches("qwen32b-awq-yarn", decision={"weights": "int8_w8a8"})
    assert made.program[-1] == "{models}/plan-qwen3-32b-int8_w8a8"
    assert made.value("--quantization") == "compressed-tensors"


def test_yarn_extends_the_trained_window_and_says_so_twice() -> None:
    overrides = json.loads(str(flags("qwen32b-awq-yarn")["--hf-overrides"]))
    rope = overrides["rope_parameters"]
    assert rope["rope_type"] == "yarn"
    assert rope["original_max_position_embeddings"] == 32_768
    assert rope["factor"] == 4.0, "the factor of the model's card, not one that just reaches the session"
    assert overrides["max_position_embeddings"] == 131_072


def test_a_session_within_the_window_needs_no_override() -> None:
    assert "--hf-overrides" not in flags("llama70b-fp8")


def test_scaled_positions_are_not_scaled_again() -> None:
    with pytest.raises(InputError, match="no method that extends it"):
        launches("llama70b-fp8", request={"ctx": 140_000})


def test_the_config_file_says_what_the_command_says() -> None:
    for name in ("llama70b-swap", "qwen32b-awq-yarn"):
        (launch,) = launches(name)
        config = yaml.safe_load(str(launch.config))
        assert config.pop("model") == launch.program[-1].replace("{models}", "models")
        for flag, value in launch.flags:
            expected = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
            assert config.pop(flag.removeprefix("--")) == expected
        assert not config


def test_a_config_file_has_no_rank_so_several_servers_get_none() -> None:
    (launch,) = launches("scout-1m-pp")
    assert (launch.nodes, launch.config) == (2, None)


def test_servers_without_an_api_get_none_of_its_flags() -> None:
    """vLLM refuses --api-server-count beside --headless, and ignores the others there."""
    (launch,) = launches("deepseek-v3-two-servers")
    first, worker = launch.arguments("."), launch.arguments(".", is_worker=True)
    left_out = {word for word in first if word.startswith("--")} - set(worker)
    front = {"--api-server-count", "--host", "--port", "--served-model-name", "--enable-prompt-tokens-details"}
    assert left_out == front | {"--max-num-queued-reqs"}
    assert worker[worker.index("--data-parallel-size") + 1] == "4"


def test_a_plan_at_theoretical_peak_is_not_deployed() -> None:
    with pytest.raises(InputError, match="theoretical peak"):
        launches("llama70b-fp8", request={"efficiency": "peak"})


def test_models_of_the_golden_plans_are_read_from_their_configs() -> None:
    scout = read_config(facts().get(Model, "llama-4-scout").config)
    assert "chunked" in scout.attention_kinds


def test_a_shared_prefix_is_held_once() -> None:
    # 80 layers, one KV head of 128 per rank, fp8: 20 KiB a token, 320 KiB a block of 16.
    needed = []
    for shared in (0, 16_000):
        deployment = read_deployment(document("llama70b-fp8", request={"shared_prefix_tokens": shared}), facts())
        held = reserve(deployment, deployment.pools[0], 4104)
        assert held is not None
        needed.append(held.planned_bytes)
    resident = flat_plan("llama70b-fp8")["decision"]["batch"]["resident_sessions"]
    assert needed[0] - needed[1] == (resident - 1) * 1000 * 320 * 1024


@pytest.mark.parametrize(("weights", "quantised"), [("bf16", None), ("fp8", "fp8"), ("awq4", "awq_marlin")])
def test_a_named_checkpoint_is_served_whatever_the_weights(weights: str, quantised: str | None) -> None:
    decision = {"weights": weights, "compression": {}}
    changed = {"gpus": "8xH100"}
    (launch,) = launches("llama70b-fp8", checkpoint="someone/fine-tune", decision=decision, request=changed)
    assert launch.arguments("/etc/plan")[:3] == ["vllm", "serve", "someone/fine-tune"]
    assert dict(launch.flags).get("--quantization") == quantised
    assert not launch.makes_checkpoint


@pytest.mark.parametrize(
    ("model", "weights", "parts"),
    [
        ("llama-3.1-70b", "awq4", ["recipe=[AWQModifier(), QuantizationModifier(", 'IGNORED = ["lm_head"]']),
        ("qwen3-30b-a3b", "int8_w8a8", ["recipe=[GPTQModifier(", '"re:.*gate$"', "W8A8"]),
        ("gemma-3-27b", "gptq4", ["AutoModelForImageTextToText", '"re:.*vision.*"', "AutoProcessor"]),
    ],
)
def test_the_program_that_makes_a_checkpoint_fits_the_model(model: str, weights: str, parts: list[str]) -> None:
    decision = {"weights": weights, "compression": {}}
    (launch,) = launches("llama70b-fp8", decision=decision, request={"model": model, "ctx": 30_000})
    program = launch.checkpoint_script or ""
    compile(program, "make_checkpoint.py", "exec")
    assert [part for part in parts if part not in program] == []
