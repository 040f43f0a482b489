"""`--techniques none`: the cache as the model makes it, whatever the weights are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Plan = Callable[..., Any]

ASKED = ("--model", "llama-3.1-70b", "--ctx", "32K", "--gpus", "8xH100", "--engine", "vllm")


def test_no_dimension_has_a_technique_and_weights_are_free(plan: Plan, tmp_path: Path) -> None:
    document = plan(*ASKED, "--techniques", "none", "--format", "json").json
    assert document["request"]["techniques"] == "none"
    assert {choice["technique"] for choice in document["decision"]["groups"][0]["compression"].values()} == {"none"}
    assert document["metrics"]["kv_ratio"] == 1.0
    assert document["decision"]["groups"][0]["weights"] != "bf16"
    bf16 = plan(*ASKED, "--techniques", "none", "--weights", "bf16", "--format", "json").json
    assert bf16["decision"]["groups"][0]["weights"] == "bf16"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert plan("verify", path).code == 0
    named = plan(*ASKED, "--techniques", "head_none,token_none,layer_none,off_none,kv_bf16", "--format", "json").json
    assert named["decision"] == document["decision"]


def test_a_file_of_scenarios_says_it_too(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "scenarios.yaml"
    base = "base: {model: llama-3.1-8b, ctx: 32K, gpus: 1xA100, engine: vllm, techniques: none}\n"
    path.write_text(base + "scenarios: {compressed: {techniques: deployable}, plain: {techniques: none}}\n")
    compared = plan("compare", "--scenarios", path, "--format", "json").json
    first, compressed, plain = (column["plan"] for column in (compared["base"], *compared["variants"]))
    assert first["decision"]["groups"][0]["compression"]["hidden"]["technique"] == "none"
    assert compressed["decision"]["groups"][0]["compression"]["hidden"]["technique"] != "none"
    assert plain["decision"] == first["decision"]


def test_a_technique_is_refused_by_verify(plan: Plan, tmp_path: Path) -> None:
    document = plan(*ASKED, "--format", "json").json
    assert document["decision"]["groups"][0]["compression"]["hidden"]["technique"] != "none"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**document, "request": {**document["request"], "techniques": "none"}}))
    answer = plan("verify", path)
    assert answer.code != 0
    assert "--techniques none asks for no compression" in " ".join((answer.stdout + answer.stderr).split())
