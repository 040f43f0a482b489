"""Which pools hand caches over, by the engines' own connectors."""

from __future__ import annotations

import pytest

from catalog.load import open_catalog
from catalog.schema import Engine
from planner.space import Split
from planner.space.pools import handover_problem

CATALOG = open_catalog()


@pytest.mark.parametrize(
    ("engine", "prefill", "decode", "latent", "why"),
    [
        ("vllm", Split(tp=2), Split(tp=8), False, None),
        ("vllm", Split(tp=8), Split(tp=2), False, None),
        ("vllm", Split(tp=3), Split(tp=2), False, "one must divide the other"),
        ("vllm", Split(pp=2), Split(tp=4), False, "prefill pool can't be a pipeline"),
        ("vllm", Split(tp=4), Split(pp=2), False, "decode pool can't be a pipeline"),
        ("vllm", Split(tp=8), Split(tp=8, dcp=2), False, "tokens over ranks"),
        ("vllm", Split(tp=8), Split(tp=8, dcp=2), True, "dcp 8 or 1"),
        ("vllm", Split(tp=8), Split(tp=8, dcp=8), True, None),
        ("vllm", Split(tp=8, pcp=2), Split(tp=8, dcp=8), True, "pcp"),
        ("sglang", Split(pp=4), Split(tp=4), False, None),
        ("sglang", Split(pp=4), Split(pp=4), False, None),
        ("sglang", Split(pp=4), Split(pp=2), False, "of 4 stages as its prefill pool"),
        ("sglang", Split(tp=4), Split(tp=4, dcp=2), False, None),
    ],
)
def test_pools_pair(engine: str, prefill: Split, decode: Split, latent: bool, why: str | None) -> None:
    said = handover_problem(CATALOG.get(Engine, engine), prefill, decode, latent)
    assert (said is None) if why is None else (said is not None and why in said)
