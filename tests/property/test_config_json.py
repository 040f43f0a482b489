"""Mutilated configs: each becomes an architecture of finite sizes, or the one clear error. Nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.architecture import Architecture, UnknownArchitectureError, read_config
from catalog.architecture.read import read_config_file
from catalog.load import built_in_directory, entry_files

FILES = entry_files("models", built_in_directory())
NAMES = [path.stem for path in FILES]

# One model of each reader: the widest variety for the fewest examples.
FAMILIES = [
    "bloom",
    "command-r7b-12-2024",
    "deepseek-v2-lite",
    "deepseek-v3.2",
    "deepseek-v4-flash",
    "falcon-40b",
    "falcon-h1-7b",
    "gemma-3-27b",
    "gemma-4-26b-a4b",
    "glm-4-9b-1m",
    "glm-4.5",
    "glm-5.2",
    "gpt-j-6b",
    "gpt-neox-20b",
    "gpt-oss-20b",
    "granite-4.0-h-small",
    "internlm2.5-7b-1m",
    "jamba-1.5-mini",
    "kimi-k2.5",
    "kimi-k3",
    "lfm2-1.2b",
    "llama-3.1-8b",
    "llama-3.3-nemotron-super-49b-v1",
    "llama-4-scout",
    "mimo-v2-flash",
    "minimax-m2.7",
    "minimax-m3",
    "minimax-text-01",
    "mistral-small-3.1-24b-2503",
    "mixtral-8x7b",
    "nemotron-3-super-120b-a12b",
    "nemotron-h-56b",
    "opt-30b",
    "qwen1.5-moe-a2.7b",
    "qwen3-vl-30b-a3b",
    "qwen3.5-35b-a3b",
    "smollm3-3b",
    "starcoder2-7b",
    "step-3.7-flash",
]

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-3, max_value=70),
    st.sampled_from([-(10**40), 2**31, 10**18, 10**40, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=3), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=4), st.integers(-2, 9), max_size=3),
)


@cache
def source(name: str) -> str:
    path = next(path for path in FILES if path.stem == name)
    entry = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return json.dumps(json.loads((path.parents[1] / "configs" / entry["config_file"]).read_bytes()))


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(source(name))
    return config


def check(architecture: Architecture) -> None:
    sizes = [
        architecture.total_params,
        architecture.active_params,
        architecture.context_tokens,
        architecture.vocab_size,
        architecture.kv_bytes(1_000_000),
    ]
    assert all(math.isfinite(size) and size > 0 for size in sizes)
    assert architecture.active_params <= architecture.total_params
    assert math.isfinite(architecture.kv_bytes_per_token)
    assert architecture.kv_bytes_per_token >= 0
    assert architecture.kv_bytes(1000) <= architecture.kv_bytes(1_000_000)
    for layer in set(architecture.layers):
        assert min(layer.sharded_params, layer.kv_params, layer.replicated_params, layer.state_bytes) >= 0
        assert all(term.kv_heads >= 1 and term.stored_elements >= 0 for term in layer.cache)


def outcome(read: Callable[[], Architecture]) -> list[str]:
    """Problems of a config that was refused; none of one that was understood, after a look at its sizes."""
    try:
        architecture = read()
    except UnknownArchitectureError as refusal:
        return refusal.problems or ["refused without a reason"]
    check(architecture)
    return []


def paths_of(config: dict[str, Any]) -> list[tuple[str, ...]]:
    inside = [(key, *rest) for key, value in config.items() if isinstance(value, dict) for rest in paths_of(value)]
    return [*((key,) for key in config), *inside]


def mutate(config: dict[str, Any], draw: st.DrawFn) -> None:
    *outer, field = draw(st.sampled_from(paths_of(config)))
    place = config
    for key in outer:
        place = place[key]
    kind = draw(st.sampled_from(["drop", "replace", "inside"]))
    value = place[field]
    if kind == "drop":
        del place[field]
    elif kind == "inside" and isinstance(value, list) and value:
        where = draw(st.integers(0, len(value) - 1))
        place[field] = [*value[:where], draw(HOSTILE), *value[where + draw(st.integers(0, 1)) :]]
    else:
        place[field] = draw(HOSTILE)


@st.composite
def mutilated(draw: st.DrawFn) -> dict[str, Any]:
    config = config_of(draw(st.sampled_from(FAMILIES)))
    for _ in range(draw(st.integers(1, 3))):
        if config:
            mutate(config, draw)
    return config


@settings(max_examples=250)
@given(mutilated())
def test_a_mutilated_config_is_understood_or_refused(config: dict[str, Any]) -> None:
    before = copy.deepcopy(config)
    problems = outcome(lambda: read_config(config, where="some.json"))
    assert all(problem.startswith("some.json: ") and "\n" not in problem for problem in problems)
    assert all(len(problem) < 1500 for problem in problems)
    assert repr(config) == repr(before)


@settings(max_examples=100)
@given(st.recursive(HOSTILE, lambda inner: st.dictionaries(st.text(max_size=12), inner, max_size=4), max_leaves=12))
def test_any_value_at_all(value: Any) -> None:
    with pytest.raises(UnknownArchitectureError):
        read_config(value)


@settings(max_examples=60)
@given(name=st.sampled_from(FAMILIES), cut=st.floats(0.0, 1.0))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str, cut: float) -> None:
    text = source(name)
    path = tmp_path_factory.mktemp("cut") / "config.json"
    path.write_text(text[: int(cut * (len(text) - 1))])
    with pytest.raises(UnknownArchitectureError, match="isn't JSON"):
        read_config_file(path)


@settings(max_examples=60)
@given(name=st.sampled_from(NAMES), flip=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_understood_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, flip: int, bit: int
) -> None:
    raw = bytearray(source(name).encode())
    raw[flip % len(raw)] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "config.json"
    path.write_bytes(raw)
    problems = outcome(lambda: read_config_file(path))
    assert all(problem.startswith(str(path)) for problem in problems)


@given(name=st.sampled_from(FAMILIES), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_fields_means_nothing(name: str, shuffle: Any) -> None:
    config = config_of(name)
    items = list(config.items())
    shuffle.shuffle(items)
    assert read_config(dict(items)) == read_config(config)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_config_is_understood(name: str) -> None:
    check(read_config(config_of(name)))
