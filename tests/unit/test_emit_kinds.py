"""Names, places and servers of several kinds of replicas, and which targets take them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.decision import WEIGHING_ROUTER, Decision
from planner.emit import emit
from planner.emit.capacity import reserve
from planner.emit.deployment import Deployment
from planner.emit.emit import launches_of
from planner.emit.launch import places as where
from planner.emit.read_deployment import read_deployment
from planner.emit.router import HAPROXY, idle_s, is_routed, router_of
from planner.emit.weighing import MOST_PLACES, config_of, places
from planner.errors import InputError
from planner.pipeline import evaluate
from planner.plan import Document
from planner.problem import resolve
from planner.request import read_request
from planner.space.emission import emission_of
from planner.targets import ENGINES, PLATFORMS
from tests.manifests import check_manifest, documents, read_yaml

CATALOG = open_catalog()
LARGE: dict[str, Any] = {"id": "a", "engine": "vllm", "parallel": {"tp": 4}, "batch": {"decode_sequences": 16}}
SMALL: dict[str, Any] = {"id": "b", "engine": "vllm", "parallel": {"tp": 1}, "batch": {"decode_sequences": 4}}


def document(*groups: dict[str, Any], model: str = "llama-3.1-8b", gpus: str = "8xH100") -> Document:
    request = read_request({"model": model, "ctx": "32K", "gpus": gpus})
    return evaluate(request, Decision.model_validate({"groups": list(groups)}), CATALOG)


def deployment(*groups: dict[str, Any], gpus: str = "8xH100") -> Deployment:
    return read_deployment(document(*groups, gpus=gpus), CATALOG)


def test_a_kind_is_deployed_with_the_memory_and_users_of_its_own() -> None:
    """As if it stood alone, but for what the whole service may send it."""
    both = deployment(LARGE, SMALL | {"replicas": 2})
    for kind, group in zip(both.services, (LARGE, SMALL | {"replicas": 2}), strict=True):
        alone = deployment(group)
        (pool,), (own,) = kind.pools, alone.pools
        assert kind.metrics.users == alone.metrics.users
        assert pool.resident_sessions == own.resident_sessions
        assert kind.metrics.hbm_bytes_per_gpu == alone.metrics.hbm_bytes_per_gpu
        assert reserve(kind, pool, kind.batched_tokens(pool)) == reserve(alone, own, alone.batched_tokens(own))
    at_most = {kind.requests_at_most for kind in both.services}
    assert at_most == {sum(deployment(group).requests_at_most or 0 for group in (LARGE, SMALL | {"replicas": 2}))}
    assert both.metrics.users == sum(kind.metrics.users for kind in both.services)
    assert both.gpus == 6


def test_one_router_stands_before_all_kinds() -> None:
    both = deployment(LARGE, SMALL)
    assert is_routed(both)
    assert router_of(both) is HAPROXY
    assert HAPROXY.name == WEIGHING_ROUTER
    assert idle_s(both) == max(idle_s(kind) for kind in both.services)


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (("a", "b"), ["serve-a", "serve-b"]),
        (("big", "small"), ["serve-big", "serve-small"]),
        (("Big one", "b"), ["serve-a", "serve-b"]),
        (("rank1", "b"), ["serve-a", "serve-b"]),
        (("a" * 9, "b"), ["serve-a", "serve-b"]),
    ],
)
def test_names_are_the_groups_ids_where_kubernetes_takes_them(ids: tuple[str, str], names: list[str]) -> None:
    one, other = (group | {"id": name} for group, name in zip((LARGE, SMALL), ids, strict=True))
    assert [pool.name for pool in deployment(one, other).pools] == names


def test_larger_replicas_come_first_on_a_server() -> None:
    """So that the GPUs of one lie beside each other, as the servers' links do."""
    both = deployment(SMALL | {"replicas": 3}, LARGE)
    found = where(launches_of(both, None), 8)
    assert [spot.first_gpu for spot in found["serve-b"].spots] == [4, 5, 6]
    assert [spot.first_gpu for spot in found["serve-a"].spots] == [0]
    ports = [spot.port for place in found.values() for spot in place.spots]
    assert len(set(ports)) == 4


def test_the_plans_servers_are_kept() -> None:
    told = document(LARGE, SMALL, gpus="2x8xH100").model_dump(mode="json", by_alias=True)
    told["decision"]["groups"][1]["servers"] = [{"server": 1, "replicas": 1}]
    both = read_deployment(Document.model_validate(told), CATALOG)
    assert [pool.servers for pool in both.pools] == [(0,), (1,)]


def test_ranks_have_places_of_their_own() -> None:
    ranks = {"engine": "vllm", "parallel": {"tp": 1, "ep": 4}, "replicas": 4, "batch": {"decode_sequences": 4}}
    whole = {"engine": "vllm", "parallel": {"tp": 2}, "batch": {"decode_sequences": 4}}
    plan = document(ranks | {"id": "a"}, whole | {"id": "b"}, model="qwen3-30b-a3b-2507")
    both = read_deployment(plan, CATALOG)
    text = config_of(
        both,
        launches_of(both, None),
        {"serve-a": ["h:1"], "serve-b": ["h:2"]},
        bind="h:3",
        metrics="h:4",
        platform="shell",
    )
    servers = [line.split() for line in text.splitlines() if line.startswith("    server ")]
    assert [words[1] for words in servers] == [*(f"serve-a-rank{rank}-0" for rank in range(4)), "serve-b-0"]
    users = [service.users for service in plan.metrics.services] if plan.metrics else []
    assert int(servers[4][-1]) / int(servers[0][-1]) == pytest.approx(users[1] / (users[0] / 4), rel=0.05)


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(1, 9)), min_size=1, max_size=5))
def test_places_are_in_proportion(kinds: list[tuple[float, int]]) -> None:
    shares = {str(row): share for row, (share, _) in enumerate(kinds)}
    replicas = {str(row): count for row, (_, count) in enumerate(kinds)}
    found = places(shares, replicas)
    each = {name: shares[name] / replicas[name] for name in shares}
    largest = max(each, key=lambda name: each[name])
    assert all(1 <= count <= MOST_PLACES for count in found.values())
    for name, count in found.items():
        assert abs(count - max(1.0, found[largest] * each[name] / each[largest])) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("target", "mixed"),
    [("vllm", True), ("vllm,kubernetes,compose,shell", True), ("kubernetes,kserve", False), ("ray", False)],
)
def test_targets_say_whether_they_take_several_kinds(target: str, mixed: bool) -> None:
    problem = resolve(
        read_request({"model": "llama-3.1-8b", "ctx": "32K", "gpus": "8xH100", "target": target}), CATALOG
    )
    emission = emission_of(problem)
    assert emission is not None
    assert emission.mixed is mixed


def test_an_engine_that_is_no_server_stands_beside_nothing() -> None:
    assert [name for name, files in ENGINES.items() if not files.is_server] == ["transformers-kvpress"]
    assert {name for name, platform in PLATFORMS.items() if platform.mixed} == {
        *("shell", "systemd", "compose", "kubernetes")
    }
    with pytest.raises(InputError, match="no server"):
        launches_of(deployment(LARGE, SMALL | {"engine": "transformers-kvpress"}), None)


def test_each_kind_makes_its_own_checkpoint_before_it_starts() -> None:
    """Nobody publishes this model in either precision."""
    plan = document(LARGE | {"weights": "gptq8"}, SMALL | {"weights": "gptq4"}, model="falcon-h1-7b")
    files = emit(plan, "vllm,compose,kubernetes", CATALOG)
    services = read_yaml(files["compose/compose.yaml"])["services"]
    assert {name: list(service["depends_on"]) for name, service in services.items() if name.startswith("serve")} == {
        "serve-a-0": ["make-checkpoint-a"],
        "serve-b-0": ["make-checkpoint-b"],
    }
    for kind in ("a", "b"):
        mounted = [volume["source"] for volume in services[f"make-checkpoint-{kind}"]["volumes"]]
        assert f"./serve-{kind}-make_checkpoint.py" in mounted
        assert f"serve-{kind}-make_checkpoint.py" in files[f"vllm/serve-{kind}.sh"]
        assert f"compose/serve-{kind}-make_checkpoint.py" in files
    programs = [files[f"vllm/serve-{kind}-make_checkpoint.py"] for kind in ("a", "b")]
    assert programs[0] != programs[1]
    jobs = [m for m in documents(files["kubernetes/make-checkpoint.yaml"], "Job") if check_manifest(m)]
    slug = jobs[0]["metadata"]["labels"]["app.kubernetes.io/name"]
    assert [job["metadata"]["name"] for job in jobs] == [f"{slug}-make-a", f"{slug}-make-b"]
    assert f"job/{slug}-make-a job/{slug}-make-b" in files["README.md"]


def test_one_checkpoint_of_two_kinds_is_made_once() -> None:
    plan = document(LARGE | {"weights": "gptq8"}, SMALL | {"weights": "gptq8"}, model="falcon-h1-7b")
    files = emit(plan, "compose,kubernetes", CATALOG)
    services = read_yaml(files["compose/compose.yaml"])["services"]
    assert [name for name in services if name.startswith("make")] == ["make-checkpoint-a"]
    assert list(services["serve-b-0"]["depends_on"]) == ["make-checkpoint-a"]
    assert len(documents(files["kubernetes/make-checkpoint.yaml"], "Job")) == 1
