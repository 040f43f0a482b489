"""The five decisions that docs/cost-model.md works out by hand are what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from catalog.architecture import read_config
from planner.cost.price import price
from planner.cost.replica import Shape
from planner.cost.session import BOUNDS, SWAP
from tests.cost_models import DEEPSEEK_LITE, GEMMA, LLAMA_8B, YI, candidates, setting

DOCS = Path(__file__).parents[2] / "docs" / "cost-model.md"

DECISIONS: dict[str, tuple[dict[str, Any], int, Shape, dict[str, Any], dict[str, Any]]] = {
    "TP": (YI, 50_000, Shape(tp=2), {"decode_sequences": 4}, {}),
    "PP": (YI, 100_000, Shape(pp=2), {"decode_sequences": 2, "prefill_chunk": 10_000}, {"rounds": 1}),
    "MLA": (DEEPSEEK_LITE, 128_000, Shape(tp=2), {"decode_sequences": 4}, {}),
    "Hybrid": (GEMMA, 100_000, Shape(tp=2), {"decode_sequences": 2, "prefill_chunk": 8192}, {}),
    "Offloaded": (
        LLAMA_8B,
        128_000,
        Shape(),
        {"decode_sequences": 2, "prefill_chunk": 2048, "throttled": True, "policy": SWAP},
        {},
    ),
}


def written() -> dict[str, dict[str, str]]:
    """Tables of the documented decisions: metric -> value, by the decision's name."""
    tables: dict[str, dict[str, str]] = {}
    text = DOCS.read_text(encoding="utf-8").split("# Five decisions by hand")[1]
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| (\w+) \| (\S+) \|$", part, flags=re.MULTILINE)
        tables[part.split(":")[0]] = {name: value for name, value in rows if name != "metric"}
    return tables


def test_every_decision_of_the_document_is_tested() -> None:
    assert written().keys() == DECISIONS.keys()
    assert all(len(table) >= 12 for table in written().values())


@pytest.mark.parametrize("name", DECISIONS)
def test_worked_decision(name: str) -> None:
    config, ctx, shape, decision, session = DECISIONS[name]
    priced = price(setting(read_config(config), ctx, shape, **session), candidates(**decision))
    assert priced.fits[0]
    for metric, value in written()[name].items():
        if metric == "bound":
            assert BOUNDS[priced.bound[0]] == value
        else:
            assert float(getattr(priced, metric)[0]) == pytest.approx(float(value), rel=1e-5), metric


@pytest.mark.parametrize(("ctx", "kv", "fit"), [(50_000, 12_288_000_000, 1), (100_000, 24_576_000_000, 0)])
def test_the_papers_running_example(ctx: int, kv: int, fit: int) -> None:
    yi = read_config(YI)
    priced = price(setting(yi, ctx), candidates())
    assert yi.kv_bytes(ctx) == kv
    assert priced.concurrency[0] == fit
    assert priced.switch_s[0] == pytest.approx(2 * kv / 20e9)
    if ctx == 50_000:
        assert priced.kv_bytes[0] == kv
        assert priced.prefill_s[0] == pytest.approx(17.8, rel=0.02)
        assert priced.decode_s[0] == pytest.approx(9.84, rel=0.02)
