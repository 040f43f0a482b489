"""Attention-data-parallel ranks are engines of their own: which numbers are of one, and which of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from planner.emit import emit
from planner.emit.capacity import kv_tokens
from planner.emit.deployment import Deployment
from planner.emit.emit import ENGINES
from planner.emit.launch import Launch
from planner.emit.read_deployment import read_deployment
from planner.importing import import_text
from tests.plans import flat_plan, plan_of, shipped_catalog

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
SESSION = 65_750
RESIDENT = 23
PARALLEL = {"tp": 2, "dcp": 2, "ep": 8, "replicas": 4}
BATCH = {"decode_sequences": 16, "resident_sessions": RESIDENT, "prefill_chunk_tokens": 4096}


def deployed(engine: str, **metrics: Any) -> Deployment:
    """DeepSeek-V3 on eight H200, experts over four replicas of two GPUs, sessions swapped to host memory."""
    content = flat_plan("deepseek-v3-dcp")
    content["request"] |= {"ctx": 64_000, "gpus": "8xH200", "engine": engine}
    content["decision"] |= {
        "engine": engine,
        "parallel": PARALLEL,
        "batch": BATCH,
        "offload": {"policy": "swap", "tier": "ddr"},
    }
    content["metrics"] |= {"ddr_bytes": 800 * 2**30, "users": 84.0, "concurrency": 4 * RESIDENT, **metrics}
    deployment = read_deployment(plan_of(content), shipped_catalog())
    assert deployment.max_model_len == SESSION
    return deployment


def launch(engine: str, **metrics: Any) -> Launch:
    deployment = deployed(engine, **metrics)
    (one,) = ENGINES[engine](deployment, deployment.engine.version)
    return one


def test_sglang_counts_requests_over_ranks_and_everything_else_per_rank() -> None:
    one = launch("sglang")
    flags = dict(one.flags)
    tokens = kv_tokens(deployed("sglang"), one.pool)
    assert tokens is not None
    assert (flags["--tp-size"], flags["--attn-dp-size"], flags["--ep-size"], flags["--dcp-size"]) == (8, 4, 8, 2)
    assert flags["--max-running-requests"] == 4 * (16 + 1)  # divided by the ranks (model_runner, per dp worker)
    assert flags["--chunked-prefill-size"] == 4 * 4096  # divided by the ranks (_handle_data_parallelism)
    assert flags["--max-queued-requests"] == 4 * RESIDENT  # of each rank's own scheduler, which may get them all
    assert flags["--max-total-tokens"] == -(-tokens // 2)  # rows of a rank; dcp spreads the tokens over two
    assert tokens >= RESIDENT * SESSION


def test_vllm_gives_every_rank_its_part_of_the_tier_and_counts_requests_over_them() -> None:
    flags = dict(launch("vllm").flags)
    assert (flags["--data-parallel-size"], flags["--tensor-parallel-size"]) == (4, 2)
    assert flags["--kv-offloading-size"] == 200.0
    assert flags["--max-num-seqs"] == 17
    assert flags["--max-num-queued-reqs"] == 4 * RESIDENT


def test_planned_users_are_let_in_where_sessions_wait_below_hbm() -> None:
    flags = dict(launch("vllm", users=200.0).flags)
    assert flags["--max-num-queued-reqs"] == 200


def test_windowed_models_swap_to_disk_through_vllms_own_tier() -> None:
    content = flat_plan("llama70b-swap-nvme")
    content["request"] |= {"model": "gpt-oss-120b", "ctx": 100_000}
    content["decision"] |= {"weights": "native", "compression": {}}
    document = plan_of(content)
    deployment = read_deployment(document, shipped_catalog())
    (one,) = ENGINES["vllm"](deployment, deployment.engine.version)
    config = json.loads(str(dict(one.flags)["--kv-transfer-config"]))
    extra = config["kv_connector_extra_config"]
    assert (config["kv_connector"], extra["spec_name"]) == ("OffloadingConnector", "TieringOffloadingSpec")
    assert extra["secondary_tiers"] == [{"type": "fs", "root_dir": "/var/lib/plan-kv"}]
    assert not extra["offload_prompt_only"]
    files = emit(document, "kubernetes", shipped_catalog())
    assert any("has no size of its own" in note for note in json.loads(files["provenance.json"])["notes"])
    assert "sizeLimit" not in files["kubernetes/kubernetes.yaml"].partition("name: kv\n")[2].partition("name:")[0]
    found = import_text(files["kubernetes/kubernetes.yaml"], "8xA100", shipped_catalog())
    assert (found.decision.offload.policy, found.decision.offload.tier) == ("swap", "nvme")
