"""`--pin`: fields of a plan that the request fixes hold in it, and what can't be is said with the pin's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plans import service_in

Plan = Callable[..., Any]

ASKED = ("--ctx", "32K", "--model", "llama-3.1-8b", "--gpus", "4xA100", "--engine", "vllm")


def planned(plan: Plan, pins: str, *options: str) -> Any:
    answer = plan(*ASKED, "--pin", pins, *options, "--format", "json")
    assert answer.code == 0, answer.stderr
    return answer.json


@pytest.mark.parametrize(
    ("pins", "where"),
    [
        ("tp=4", {"parallel": {"tp": 4}}),
        ("tp=2,pp=2", {"parallel": {"tp": 2, "pp": 2}}),
        ("pp=3", {"parallel": {"pp": 3}}),
        ("replicas=2,tp=1,roles=serve", {"parallel": {"tp": 1, "replicas": 2}}),
        ("decode_sequences=13,roles=serve", {"batch": {"decode_sequences": 13}}),
        ("resident_sessions=1", {"batch": {"resident_sessions": 1, "decode_sequences": 1}}),
        ("prefill_chunk_tokens=3K,roles=serve", {"batch": {"prefill_chunk_tokens": 3000}}),
        ("policy=swap,tier=ddr", {"offload": {"policy": "swap", "tier": "ddr"}}),
        ("policy=recompute", {"offload": {"policy": "recompute", "tier": None}}),
        ("hidden=none", {"compression": {"hidden": {"technique": "none", "strength": None, "point": None}}}),
        ("weights=bf16", {"weights": "bf16"}),
    ],
)
def test_a_pin_holds_in_the_plan(plan: Plan, pins: str, where: dict[str, Any]) -> None:
    document = planned(plan, pins)
    assert document["status"] == "optimal"
    for part, fields in where.items():
        has = service_in(document["decision"])[part]
        assert has == fields if isinstance(fields, str) else {name: has[name] for name in fields} == fields
    free = planned(plan, "none")["objective"]["value"]
    assert document["objective"]["value"] <= free * (1 + 1e-9)


def test_a_throttle_that_is_pinned_holds_for_one_session_at_a_time(plan: Plan) -> None:
    asked = ("--ctx", "200K", "--model", "llama-3.1-8b", "--gpus", "1xA100", "--max-latency", "20ms")
    answer = plan(*asked, "--pin", "prefill_throttled=true", "--format", "json")
    assert answer.code == 0, answer.stderr
    batch = service_in(answer.json["decision"])["batch"]
    assert (batch["resident_sessions"], batch["prefill_throttled"]) == (1, True)


def test_roles_and_pins_of_one_role(plan: Plan) -> None:
    fixed = "roles=prefill+decode,prefill.tp=2,prefill.replicas=1,decode.tp=1,decode.replicas=2"
    pools = planned(plan, f"{fixed},prefill.prefill_chunk_tokens=8K,decode.decode_sequences=7")["decision"]
    pools = service_in(pools)["pools"]
    prefill, decode = pools["prefill"], pools["decode"]
    assert (prefill["parallel"]["tp"], prefill["parallel"]["replicas"]) == (2, 1)
    assert (decode["parallel"]["tp"], decode["parallel"]["replicas"]) == (1, 2)
    assert (prefill["batch"]["prefill_chunk_tokens"], decode["batch"]["decode_sequences"]) == (8000, 7)
    assert {group["role"] for group in planned(plan, "roles=serve")["decision"]["groups"]} == {"serve"}


def test_what_a_plan_has_can_be_pinned_without_loss(plan: Plan) -> None:
    free = planned(plan, "none")
    has = service_in(free["decision"])
    split, batch = has["parallel"], has["batch"]
    pins = [f"{name}={split[name]}" for name in ("tp", "pp", "dcp", "pcp", "ep", "replicas")]
    pins += [f"{name}={batch[name]}" for name in ("decode_sequences", "prefill_chunk_tokens")]
    pins += [f"{name}={choice['point'] or 'none'}" for name, choice in has["compression"].items()]
    pins += ["engine=vllm", f"weights={has['weights']}", "roles=serve", "prefill_throttled=true"]
    assert planned(plan, ",".join(pins))["decision"] == free["decision"]


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        ("tp=3", ["--pin tp=3: no split of llama-3.1-8b here is so; there is tp 1, 2, 4"]),
        ("tp=4,replicas=2", ["--pin tp=4,replicas=2: no split of"]),
        ("engine=sglang", ["--pin engine=sglang: not available here; use one of vllm"]),
        ("weights=fp7,hidden=zzz", ["--pin weights=fp7: not available here; use one of", "--pin hidden=zzz: unknown"]),
        ("hidden=h2o", ["--pin hidden=h2o: h2o works on the token dimension"]),
        ("token=h2o", ["--pin token=h2o"]),
        ("decode_sequences=13,pp=2", ["--pin decode_sequences=13: isn't a multiple of pp, which is 2 here"]),
        ("prefill_throttled=false", ["--pin prefill_throttled=false: no engine here has that"]),
        ("tpp=4", ["--pin: tpp: unknown field; did you mean tp?"]),
        ("pool.tp=4", ["--pin: pool.tp: no group is called 'pool'; use serve, prefill, decode"]),
        ("tp=0,pp=x", ["--pin: tp=0: must be a whole number from 1 on", "--pin: pp=x: must be"]),
        ("prefill.engine=vllm", ["--pin: prefill.engine: all groups have the same; write engine=vllm"]),
        ("prefill.decode_sequences=2", ["a prefill group has none; it is a field of serve and decode"]),
        ("tp=4,prefill.tp=2", ["--pin: prefill.tp=2: contradicts tp=4; keep one"]),
        ("roles=serve,decode.tp=2", ["--pin: decode.tp=2: roles=serve has no decode group"]),
        ("roles=decode", ["--pin: roles=decode: must be serve or prefill+decode"]),
        ("policy=none,tier=ddr", ["tier=ddr: only policy=swap has a tier"]),
        ("tp", ["--pin: 'tp': no 'field=value'"]),
    ],
)
def test_what_cannot_be_is_said_with_the_pin(plan: Plan, pins: str, told: list[str]) -> None:
    answer = plan(*ASKED, "--pin", pins)
    assert (answer.code, answer.stdout) == (2, "")
    for part in told:
        assert part in answer.stderr


def test_separate_pools_on_one_gpu_are_refused(plan: Plan) -> None:
    answer = plan(*ASKED[:-4], "--gpus", "1xA100", "--engine", "vllm", "--pin", "roles=prefill+decode")
    assert answer.code == 2
    assert "--pin roles=prefill+decode: no engine here serves with separate pools on these GPUs" in answer.stderr


def test_a_pin_in_the_way_of_a_limit_is_a_relaxation(plan: Plan) -> None:
    answer = plan(*ASKED, "--pin", "pp=4", "--max-latency", "12ms", "--format", "json")
    assert answer.code == 3
    rows = {row["limit"]: row for row in answer.json["infeasible"]["relaxations"]}
    assert (rows["--pin"]["from"], rows["--pin"]["to"]) == ("pp=4", "none")
    assert rows["--pin"]["note"].startswith("for example with ")
    (conflict,) = answer.json["infeasible"]["conflicts"]
    assert {"--pin pp=4", "--max-latency 12ms"} <= {*conflict}


def test_verify_says_which_pin_a_plan_breaks(plan: Plan, tmp_path: Path) -> None:
    document = planned(plan, "tp=1,roles=serve")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document))
    assert plan("verify", path).code == 0
    document["request"]["pin"] = "tp=2,roles=prefill+decode"
    path.write_text(json.dumps(document))
    answer = plan("verify", path)
    assert answer.code != 0
    text = " ".join((answer.stdout + answer.stderr).split())
    assert "serve.tp: 1, but --pin tp=2" in text
    assert "roles: serve, but --pin roles=prefill+decode" in text


def test_scenarios_and_files_pin_too(plan: Plan, tmp_path: Path) -> None:
    compared = plan("compare", *ASKED, "--set", "pin=tp=4,roles=serve,ctx=16K", "--format", "json").json
    (variant,) = compared["variants"]
    assert variant["plan"]["request"]["pin"] == "tp=4,roles=serve"
    assert variant["plan"]["decision"]["groups"][0]["parallel"]["tp"] == 4
    path = tmp_path / "scenarios.yaml"
    path.write_text(
        "base: {ctx: 16K, model: llama-3.1-8b, gpus: 4xA100, engine: vllm}\n"
        "scenarios:\n  a: {pin: {tp: 4, roles: serve}}\n  b: {pin: [tp=4, roles=serve]}\n"
    )
    rows = plan("compare", "--scenarios", path, "--format", "json").json["variants"]
    assert [row["plan"]["request"]["pin"] for row in rows] == ["tp=4,roles=serve"] * 2


def test_a_tolerance_and_a_spare_are_carried(plan: Plan) -> None:
    asked = plan(*ASKED, "--tolerance", "0%", "--format", "json").json["request"]
    assert (asked["tolerance"], asked["spare"]) == (0.0, 0)
    default = plan(*ASKED, "--format", "json").json["request"]
    assert (default["tolerance"], default["spare"]) == (0.01, 0)
    answer = plan(*ASKED, "--tolerance", "1", "--spare", "2")
    assert answer.code == 2
    assert "--tolerance: '1' has no unit; write for example '5%' (%)" in answer.stderr
    assert "--spare: input should be less than or equal to 1, not '2'; write for example 1" in answer.stderr
