"""What the router and the instances let in: never less than what was promised."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.emit.deployment import Deployment
from planner.emit.emit import ENGINES, emit
from planner.emit.launch import Launch
from planner.emit.read_deployment import read_deployment
from planner.emit.router import idle_s, is_routed, ranks_routed, router_environment, router_flags
from tests.plans import flat_plan, plan_of

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
CATALOG = open_catalog()


def planned(name: str, metrics: Any = None, **decision: Any) -> tuple[Deployment, list[Launch]]:
    content = flat_plan(name)
    content["decision"] |= decision
    content["metrics"] |= metrics or {}
    deployment = read_deployment(plan_of(content), CATALOG)
    return deployment, ENGINES[deployment.engine.id](deployment, deployment.engine.version)


@given(
    users=st.floats(1, 1000),
    replicas=st.integers(1, 8),
    resident=st.integers(1, 30),
    decoding=st.integers(1, 20),
    swaps=st.booleans(),
)
def test_every_instance_takes_all_promised_users(
    users: float, replicas: int, resident: int, decoding: int, swaps: bool
) -> None:
    if not swaps:
        users = min(users, resident * replicas)  # the plan's own bound: they wait in HBM
    deployment, (launch,) = planned(
        "llama8b-int8",
        {"users": users, "concurrency": resident * replicas, "ddr_bytes": 2**30 if swaps else 0},
        parallel={"tp": 1, "replicas": replicas},
        batch={"decode_sequences": decoding, "resident_sessions": resident, "prefill_chunk_tokens": 2048},
        offload={"policy": "swap", "tier": "ddr"} if swaps else {"policy": "none"},
    )
    assert launch.admitted is not None
    assert launch.admitted >= math.ceil(users)
    assert launch.value("--max-num-queued-reqs") == launch.admitted
    assert is_routed(deployment) == (replicas > 1)


def test_the_router_holds_no_cap_of_its_own() -> None:
    """Its limit is a rate of starts: it would refuse promised users, and let others in."""
    for name in ("llama8b-int8", "llama8b-split", "sglang-split"):
        deployment, _ = planned(name)
        flags = dict(router_flags(deployment))
        assert not {"--max-concurrent-requests", "--queue-size"} & set(flags)
        assert flags["--disable-circuit-breaker"] is True


def test_ranks_of_one_instance_are_routed() -> None:
    parallel = {"tp": 2, "ep": 8, "replicas": 4}
    batch = {"decode_sequences": 16, "resident_sessions": 6, "prefill_chunk_tokens": 8192}
    deployment, (launch,) = planned("deepseek-v3-dcp", parallel=parallel, batch=batch)
    assert launch.pool.instances == 1
    assert is_routed(deployment)
    assert dict(router_flags(deployment))["--intra-node-data-parallel-size"] == ranks_routed(deployment) == 4
    script = emit(deployment.document, "vllm", CATALOG)["vllm/router.sh"]
    assert "--intra-node-data-parallel-size 4" in script
    assert "serve pool" not in script
    assert "decode pool" not in script


def test_a_long_turn_keeps_its_place_at_the_router() -> None:
    short, _ = planned("llama8b-int8")
    assert router_environment(short) == {}
    long, _ = planned("llama8b-int8", {"ttft_cold_s": 5000.0})
    (value,) = router_environment(long).values()
    assert int(value) == idle_s(long) > 5 * 5000
    pools, _ = planned("sglang-split", {"ttft_cold_s": 5000.0})
    assert dict(router_flags(pools))["--max-idle-secs"] == idle_s(pools)
    assert router_environment(pools) == {}


@pytest.mark.parametrize("name", ["llama8b-int8", "llama8b-split", "sglang-split"])
def test_the_page_says_how_a_client_names_its_session(name: str) -> None:
    deployment, _ = planned(name)
    page = emit(deployment.document, deployment.engine.id, CATALOG)["README.md"]
    header = "X-SMG-Routing-Key" if name.startswith("sglang") else "X-Session-ID"
    assert f"`{header}: <session>`" in page
    assert "or 503); let clients" not in page
    over = "`curl -X POST 'http://localhost:30000/finish_session?session_id=<session>'`"
    assert (over in page) != name.startswith("sglang")


def test_the_page_of_a_single_llama_cpp_server_promises_no_router() -> None:
    deployment, _ = planned("llamacpp-q8")
    page = emit(deployment.document, "llama.cpp", CATALOG)["README.md"]
    assert "llama.cpp refuses nothing: requests beyond the 6 slots wait" in page
    assert "router's cap" not in page
