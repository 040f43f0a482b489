"""Which architectures engines have: lists made from their packages."""

from __future__ import annotations

import pytest

from catalog.engine_models import models_of, versions_of
from catalog.load import Catalog, built_in_directory
from catalog.schema import Engine
from planner.problem import resolve
from planner.request import read_request
from planner.space import open_space

ENGINES = Catalog([built_in_directory()]).all(Engine)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.id)
def test_every_engine_of_the_catalog_has_a_list_at_its_version(engine: Engine) -> None:
    assert engine.version in versions_of(engine.id)
    found = models_of(engine.id, engine.version)
    assert found is not None
    assert "LlamaForCausalLM" in found.native
    assert not found.native & found.transformers


@pytest.mark.parametrize(
    ("engine", "name", "how"),
    [
        ("vllm", "MiniMaxText01ForCausalLM", None),
        ("vllm", "SeedOssForCausalLM", "transformers"),
        ("vllm", "NemotronHForCausalLM", "native"),
        ("sglang", "MiniMaxText01ForCausalLM", None),
        ("sglang", "JambaForCausalLM", None),
        ("sglang", "FalconForCausalLM", None),
        ("sglang", "Olmo3ForCausalLM", "transformers"),
        ("lmdeploy", "MistralForCausalLM", None),
        ("lmdeploy", "GptOssForCausalLM", "native"),
        ("llama.cpp", "MiniMaxText01ForCausalLM", "native"),
        ("tensorrt-llm", "KimiLinearForCausalLM", None),
        ("tensorrt-llm", "Qwen3_5ForConditionalGeneration", "native"),
    ],
)
def test_engines_have_what_their_registries_say(engine: str, name: str, how: str | None) -> None:
    version = {entry.id: entry.version for entry in ENGINES}[engine]
    found = models_of(engine, version)
    assert found is not None
    assert found.implementation((name,)) == how


def test_a_removed_model_says_who_had_it_last() -> None:
    found = models_of("vllm", "0.33.0")
    assert found is not None
    assert found.removed["MiniMaxText01ForCausalLM"] == "0.23.0"
    assert len(found.removed) == 50


def test_a_version_without_a_list_takes_the_newest_and_an_engine_without_one_none() -> None:
    found = models_of("vllm", "99.0.0")
    assert found is not None
    assert found.version == versions_of("vllm")[-1]
    assert models_of("somebody", "1.0") is None


def test_only_the_first_name_decides_whether_transformers_runs_it() -> None:
    """As vLLM's resolver asks: any name that is its own, else the first one of Transformers."""
    found = models_of("vllm", "0.33.0")
    assert found is not None
    assert found.implementation(("Unknown", "LlamaForCausalLM")) == "native"
    assert found.implementation(("Unknown", "SeedOssForCausalLM")) is None
    assert found.implementation(()) is None


def test_sglang_leaves_it_to_a_model_whether_it_has_stages() -> None:
    known = models_of("sglang", "0.5.23")
    assert known is not None
    assert not known.has_stages(("Qwen3NextForCausalLM",))  # its constructor wants the first and the last rank
    assert not known.has_stages(("Gemma3ForConditionalGeneration",))  # its forward takes nothing from a stage before
    assert known.has_stages(("LlamaForCausalLM",))
    assert known.no_pipeline <= known.native


@pytest.mark.parametrize(("model", "is_split"), [("qwen3-next-80b-a3b", False), ("llama-3.1-70b", True)])
def test_stages_are_planned_only_for_models_that_have_them(model: str, is_split: bool) -> None:
    request = read_request({"ctx": "100K", "gpus": "2x8xH100", "model": model, "engine": "sglang"})
    space = open_space(resolve(request, Catalog([built_in_directory()])))
    assert any(split.pp > 1 for split in space.splits) == is_split


@pytest.mark.parametrize(("model", "is_loaded"), [("qwen3-30b-a3b-2507", False), ("llama-3.1-70b", True)])
def test_weights_without_experts_are_not_planned_for_models_that_have_some(model: str, is_loaded: bool) -> None:
    request = read_request({"ctx": "100K", "gpus": "8xA100", "model": model, "engine": "sglang"})
    space = open_space(resolve(request, Catalog([built_in_directory()])))
    assert any(weights.id == "int8_w8a8" for weights in space.weights) == is_loaded
