"""Which published checkpoint is taken, on which engine and GPU, and that ready weights go before equal ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.load import open_catalog
from catalog.ready import best_ready, format_on
from catalog.schema import Checkpoint, Engine
from planner.problem import resolve
from planner.request import Request
from planner.search.ties import formats_of
from planner.space import open_space
from planner.space.ready import has_to_be_made, made_at_load

FACTS = open_catalog([])
INSTRUCT = "meta-llama/Llama-3.1-8B-Instruct"


def test_weights_that_must_be_made_count_as_more_than_ready_ones() -> None:
    """The fewer of such techniques the better, where plans are equal."""
    problem = resolve(Request(ctx=16_000, gpus="1xA100", model=INSTRUCT, engine="vllm"), FACTS)
    space = open_space(problem)
    index = next(i for i, option in enumerate(space.weights) if option.id == "int8_w8a8")
    assert not space.weights[index].made_for
    options = [
        replace(option, made_for=option.engines) if i == index else option for i, option in enumerate(space.weights)
    ]
    ready, made = formats_of(space), formats_of(replace(space, weights=tuple(options)))
    others = [i for i, option in enumerate(space.weights) if option.point is not None and i != index]
    assert all(made[index] > made[other] for other in others if not space.weights[other].made_for)
    assert made[index] > ready[index]


@pytest.mark.parametrize(
    ("model", "point", "made"),
    [
        (INSTRUCT, "w_int8_w8a8", False),
        ("mistralai/Mistral-7B-Instruct-v0.3", "w_int8_w8a8", True),
        ("mistralai/Mistral-7B-Instruct-v0.3", "w_fp8", False),  # vLLM makes it while it loads
        ("Qwen/Qwen3-8B", "w_awq4", False),
    ],
)
def test_what_has_to_be_made(model: str, point: str, made: bool) -> None:
    problem = resolve(Request(ctx=16_000, gpus="1xA100", model=model), FACTS)
    vllm = FACTS.get(Engine, "vllm")
    assert has_to_be_made(problem, vllm, point) is made
    assert made_at_load(problem, vllm, point) is (point == "w_fp8")


def test_an_engine_takes_only_methods_that_it_is_known_to_load_on_the_gpu() -> None:
    nvidia = Checkpoint(
        hub_id="nvidia/x-FP8", base="o/x", quant_method="modelopt", algorithm="FP8", point="w_fp8",
        provenance="found", source="here",
    )  # fmt: skip
    vllm, sglang = FACTS.get(Engine, "vllm"), FACTS.get(Engine, "sglang")
    on_a100 = format_on(vllm, nvidia, "8.0")
    assert on_a100 is not None
    assert on_a100.weight_only
    assert format_on(sglang, nvidia, "8.0") is None
    on_h100 = format_on(sglang, nvidia, "9.0")
    assert on_h100 is not None
    assert not on_h100.weight_only
    assert format_on(vllm, nvidia.model_copy(update={"quant_method": None}), "9.0") is None
    assert format_on(vllm, nvidia.model_copy(update={"quant_method": "quark"}), "9.0") is None


def test_the_owners_own_checkpoint_is_taken_first() -> None:
    found = best_ready(FACTS, "qwen3-8b", "Qwen/Qwen3-8B", "w_fp8", FACTS.get(Engine, "vllm"), "9.0")
    assert found is not None
    assert found.hub_id == "Qwen/Qwen3-8B-FP8"


def test_no_default_rests_on_what_is_recalled() -> None:
    from catalog.schema import Checkpoints

    entries = FACTS.all(Checkpoints)
    assert len(entries) > 70
    assert all(ready.provenance in ("found", "derived") and ready.source for e in entries for ready in e.checkpoints)


@pytest.mark.parametrize(("model", "runs"), [("qwen3-30b-a3b-2507", False), ("qwen3-32b", True)])
@pytest.mark.parametrize("weights", ["int8_w8a8", "fp8"])
def test_experts_are_not_planned_in_what_the_engine_has_for_dense_layers(model: str, runs: bool, weights: str) -> None:
    """SGLang 0.5.23 on Ampere: experts in int8 raise NotImplementedError, in fp8 Triton has no such type."""
    problem = resolve(Request(ctx=16_000, gpus="8xA100", model=model, weights=weights), FACTS)
    option = next(o for o in open_space(problem).weights if o.id == weights)
    assert ("sglang" in option.engines) is runs
    assert "vllm" in option.engines


@pytest.mark.parametrize(
    ("model", "weights", "planned"),
    [
        ("qwen3-30b-a3b-2507", "int8_w8a8", False),  # a mixture that nobody publishes in int8
        ("nemotron-3-nano-30b-a3b", "int8_w8a8", False),
        ("qwen3-30b-a3b-2507", "fp8", True),  # ready
        ("qwen3-32b", "int8_w8a8", True),  # dense: the program that makes it has run with such models
    ],
)
def test_what_nobody_publishes_or_has_made_is_planned_when_it_is_named(model: str, weights: str, planned: bool) -> None:
    def options(wanted: str) -> set[str]:
        problem = resolve(Request(ctx=16_000, gpus="8xA100", model=model, engine="vllm", weights=wanted), FACTS)
        return {option.id for option in open_space(problem).weights}

    assert (weights in options("any")) is planned
    assert options(weights) == {weights}
