"""Pins: the search finds what the oracle finds, and neither a plan nor a reading of pins breaks them."""

from __future__ import annotations

import pytest

from catalog.load import open_catalog
from planner.pins import FIELDS, pins_text, read_pins
from planner.problem import resolve
from planner.request import Request, read_request
from planner.space import open_space
from planner.space.pins import Pins
from tests.oracle import compare

CATALOG = open_catalog()
ASKED = {
    "model": "llama-3.1-8b",
    "ctx": "32K",
    "gpus": "3xA100",
    "engine": "vllm",
    "techniques": "kv_fp8",
    "weights": "bf16",
    "efficiency": "peak",
}
EACH = (
    *("tp=2", "pp=2,roles=serve", "roles=prefill+decode,prefill.replicas=2", "decode_sequences=5,tp=1"),
    *("serve.resident_sessions=9", "resident_sessions=1", "replicas=1,tp=1", "prefill.tp=2,decode.tp=1,serve.tp=2"),
    *("prefill_chunk_tokens=4096,policy=swap", "decode.decode_sequences=3,serve.decode_sequences=8", "tp=1,replicas=1"),
)


def asked(pins: str, objective: str = "throughput") -> Request:
    return read_request({**ASKED, "pin": pins, "objective": objective})


@pytest.mark.parametrize("pins", EACH)
@pytest.mark.parametrize("objective", ["throughput", "cost"])
def test_the_search_finds_what_the_oracle_finds(pins: str, objective: str) -> None:
    problem = resolve(asked(pins, objective), CATALOG)
    assert compare(problem, open_space(problem)).problems == ()


@pytest.mark.parametrize("pins", EACH)
def test_pins_read_back_as_they_are_written(pins: str) -> None:
    read = read_pins(pins)
    assert pins_text(read) == pins == asked(pins).pin
    assert read_pins(asked(pins.replace(",", " ; ")).pin) == read


@pytest.mark.parametrize("name", FIELDS)
def test_every_example_can_be_read(name: str) -> None:
    (pin,) = read_pins(f"{name}={FIELDS[name].example}")
    assert Pins((pin,)).wanted(name, FIELDS[name].roles[0]) == pin.value


def test_no_pins_are_no_request_field() -> None:
    assert asked("none").pin is None
    assert Pins.of(None).roles == ("serve", "prefill", "decode")
