"""Three lengths of a model: trained, declared, and reached by a method that its publisher gives."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.architecture import read_config
from catalog.load import open_catalog
from catalog.schema import Model
from catalog.window import NoWindowError, Window, rope_overrides, window_of
from planner.cost.quality import window_loss
from planner.problem import resolve
from planner.request import Request


@cache
def window(name: str) -> Window:
    entry = open_catalog([]).get(Model, name)
    return window_of(read_config(entry.config), entry.config, entry)


@pytest.mark.parametrize(
    ("name", "tokens", "kind", "factor"),
    [
        ("qwen3-8b", 40_000, "none", 1.0),
        ("qwen3-8b", 65_000, "rope", 2.0),
        ("qwen3-8b", 131_072, "rope", 4.0),
        ("qwen3.5-27b", 500_000, "rope", 2.0),
        ("qwen3.5-27b", 1_000_000, "rope", 4.0),
        ("nemotron-3-nano-30b-a3b", 1_000_000, "raise", 1.0),
        ("nemotron-3.5-lightning-30b-a3b", 1_000_000, "none", 1.0),
        ("kimi-linear-48b-a3b", 1_000_000, "none", 1.0),
        ("command-a-03-2025", 200_000, "raise", 1.0),
    ],
)
def test_what_a_length_needs(name: str, tokens: int, kind: str, factor: float) -> None:
    change = window(name).change(tokens)
    assert (change.kind, change.factor) == (kind, factor)


@pytest.mark.parametrize(
    ("name", "tokens"), [("llama-3.1-8b", 140_000), ("qwen3-30b-a3b-2507", 300_000), ("qwen3-8b", 140_000)]
)
def test_a_length_that_nothing_reaches_is_refused(name: str, tokens: int) -> None:
    with pytest.raises(NoWindowError, match="no method"):
        window(name).change(tokens)


def test_dual_chunk_attention_reaches_no_further_than_the_training() -> None:
    assert window("qwen2.5-14b-1m").reach_tokens == window("qwen2.5-7b-1m").reach_tokens == 262_144


def test_a_nested_model_is_changed_below_its_own_key_and_keeps_what_it_has() -> None:
    config = open_catalog([]).get(Model, "qwen3.5-27b").config
    changed = rope_overrides(config, window("qwen3.5-27b").change(1_000_000))["text_config"]
    assert changed["max_position_embeddings"] == 1_010_000
    assert changed["rope_parameters"]["original_max_position_embeddings"] == 262_144
    kept = config["text_config"]["rope_parameters"]
    assert changed["rope_parameters"] == {
        **kept,
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 262_144,
    }


def test_a_config_of_the_users_own_has_only_what_it_declares() -> None:
    llama: dict[str, Any] = dict(open_catalog([]).get(Model, "llama-3.1-8b").config)
    own = window_of(read_config(llama), llama, None)
    assert own.reach_tokens == own.declared_tokens == 131_072
    with pytest.raises(NoWindowError):
        own.change(131_073)
    nemotron: dict[str, Any] = dict(open_catalog([]).get(Model, "nemotron-h-56b").config)
    assert window_of(read_config(nemotron), nemotron, None).change(9_000).kind == "raise"


def test_a_fine_tune_is_extended_as_its_model_is(tmp_path: Path) -> None:
    config = {**open_catalog([]).get(Model, "qwen3-8b").config, "vocab_size": 151_940, "torch_dtype": "float16"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    problem = resolve(Request(ctx=100_000, gpus="8xA100", model=str(path)), open_catalog([]))
    assert problem.lengths.change(110_000).factor == 4.0
    path.write_text(json.dumps({**config, "rope_theta": 5_000_000}))
    problem = resolve(Request(ctx=100_000, gpus="8xA100", model=str(path)), open_catalog([]))
    assert problem.window_tokens == 40_960


def test_a_file_with_dual_chunk_attention_reaches_its_training(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(open_catalog([]).get(Model, "qwen2.5-14b-1m").config))
    problem = resolve(Request(ctx=1_000_000, gpus="8xA100", model=str(path)), open_catalog([]))
    assert problem.window_tokens == 262_144
    assert problem.window.loss_mean > 0.5
    assert "dual chunk attention" in problem.warnings[0]


def test_no_override_scales_positions_that_a_model_has_not() -> None:
    for entry in open_catalog([]).all(Model):
        found = window_of(read_config(entry.config), entry.config, entry)
        if not found.positions:
            assert not rope_overrides(entry.config, found.change(found.reach_tokens)), entry.id


@given(
    name=st.sampled_from([entry.id for entry in open_catalog([]).all(Model)]),
    share=st.floats(0.001, 4.0),
)
def test_whatever_the_length_it_is_held_or_refused_and_never_free_beyond_the_training(name: str, share: float) -> None:
    found = window(name)
    tokens = max(1, int(share * found.reach_tokens))
    loss = window_loss(tokens, found.trained_tokens, found.reach_tokens)
    assert (loss.mean > 0) == (tokens > found.trained_tokens)
    try:
        change = found.change(tokens)
    except NoWindowError:
        assert tokens > found.reach_tokens
        return
    assert change.max_tokens >= tokens
    if change.kind == "rope":
        assert change.factor in [step.factor for step in found.extension.steps]
        assert found.positions
