"""The real routers, with the emitted flags, before engines that refuse as real ones do: nobody promised is refused.

Slow (half a minute), and it needs an environment with the routers: docs/deploy.md says how to make it.

    PLAN_OPERATOR=/path/to/environment pytest -m slow tests/acceptance/test_emit_router.py
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner.emit.deployment import Deployment
from planner.emit.emit import ENGINES
from planner.emit.launch import Launch
from planner.emit.read_deployment import read_deployment
from planner.emit.router import router_environment, router_of, router_words
from tests.acceptance.stub_engine import StubEngine
from tests.plans import flat_plan, plan_of

ENVIRONMENT = os.environ.get("PLAN_OPERATOR")
PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
ROUNDS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_OPERATOR names no environment (docs/deploy.md)"),
]


def planned(name: str, **decision: Any) -> tuple[Deployment, list[Launch]]:
    content = flat_plan(name)
    content["decision"] |= decision
    deployment = read_deployment(plan_of(content), open_catalog())
    return deployment, ENGINES[deployment.engine.id](deployment, deployment.engine.version)


@pytest.mark.parametrize("name", ["llama8b-int8", "llama8b-split", "sglang-split"])
def test_the_promised_users_are_never_refused(name: str) -> None:
    deployment, launches = planned(name)
    users = math.ceil(deployment.metrics.users)
    with routed(deployment, launches) as (address, engines):
        answers = converse(address, router_of(deployment).session_header, users, sessions=2)
    assert answers == Counter({200: users * 2 * ROUNDS})
    assert not any(engine.refused for found in engines.values() for engine in found)


def test_a_session_stays_where_it_is_and_new_ones_go_to_the_least_loaded() -> None:
    deployment, launches = planned("llama8b-int8")
    users = math.ceil(deployment.metrics.users)
    with routed(deployment, launches) as (address, engines):
        converse(address, "X-Session-ID", users, sessions=1)
    found = engines["serve"]
    assert sum(len(engine.sessions) for engine in found) == users  # nobody was at two of them
    counts = [len(engine.sessions) for engine in found]
    assert max(counts) - min(counts) <= 1


def test_sessions_that_never_overlap_are_spread_too() -> None:
    deployment, launches = planned("llama8b-int8")
    with routed(deployment, launches) as (address, engines):
        for session in range(16):
            assert ask(address, "X-Session-ID", f"s{session}") == 200
    assert [len(engine.sessions) for engine in engines["serve"]] == [2] * 8


def test_sglangs_sessions_stay_at_their_instances() -> None:
    deployment, launches = planned("sglang-split")
    with routed(deployment, launches) as (address, engines):
        converse(address, "X-SMG-Routing-Key", 12, sessions=1)
    for found in engines.values():
        assert sum(len(engine.sessions) for engine in found) == 12


def test_a_rank_keeps_its_sessions() -> None:
    """One instance of four data-parallel ranks, each with a cache of its own."""
    parallel = {"tp": 2, "dcp": 1, "ep": 8, "replicas": 4}
    batch = {"decode_sequences": 16, "resident_sessions": 6, "prefill_chunk_tokens": 8192}
    deployment, launches = planned("deepseek-v3-dcp", parallel=parallel, batch=batch)
    with routed(deployment, launches) as (address, engines):
        converse(address, "X-Session-ID", 8, sessions=1)
    (engine,) = engines["serve"]
    assert all(len(set(ranks)) == 1 for ranks in engine.sessions.values())
    assert Counter(ranks[0] for ranks in engine.sessions.values()) == dict.fromkeys("0123", 2)


def test_chance_and_caps_of_one_instance_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was emitted before: the harness sees it."""
    deployment, launches = planned("llama8b-int8")
    users = math.ceil(deployment.metrics.users)
    share = users // deployment.pools[0].replicas
    with routed(deployment, launches, cap=share, policy="consistent_hash") as (address, engines):
        converse(address, "X-Session-ID", users, sessions=2)
    assert any(engine.refused for engine in engines["serve"])


@contextmanager
def routed(
    deployment: Deployment, launches: list[Launch], cap: int | None = None, policy: str | None = None
) -> Iterator[tuple[str, dict[Any, list[StubEngine]]]]:
    """Run the emitted router before as many engines as are planned; yield its address and the engines by role."""
    engines = {
        launch.pool.role: [StubEngine(cap or launch.admitted, seconds=0.05) for _ in range(launch.pool.instances)]
        for launch in launches
    }
    addresses = {role: [one.address for one in found] for role, found in engines.items()}
    try:
        with router_before(deployment, addresses, free_port(), policy) as address:
            yield address, engines
    finally:
        for found in engines.values():
            for engine in found:
                engine.close()


@contextmanager
def router_before(
    deployment: Deployment, addresses: dict[Any, list[str]], port: int, policy: str | None = None
) -> Iterator[str]:
    """Run the emitted router before engines at known addresses; yield its own."""
    words = router_words(deployment, addresses)
    words[words.index("--host") + 1], words[words.index("--port") + 1] = "127.0.0.1", str(port)
    if policy is not None:
        words[words.index("--policy") + 1] = policy
    words += ["--prometheus-port", str(free_port())]
    words[0] = f"{ENVIRONMENT}/bin/{words[0]}"
    process = subprocess.Popen(
        words,
        env={**os.environ, **router_environment(deployment), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the router didn't start")


def converse(address: str, header: str, users: int, sessions: int) -> Counter[int]:
    """Let all users hold their sessions at once; return how often which status came back."""

    def user(number: int) -> list[int]:
        names = [f"u{number}-{session}" for session in range(sessions)]
        return [ask(address, header, name) for name in names for _ in range(ROUNDS)]

    with ThreadPoolExecutor(users) as pool:
        return Counter(status for found in pool.map(user, range(users)) for status in found)


def ask(address: str, header: str, session: str) -> int:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": session * 10}]}).encode()
    request = urllib.request.Request(f"{address}/v1/chat/completions", body)
    request.add_header("Content-Type", "application/json")
    request.add_header(header, session)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
