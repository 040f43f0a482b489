"""The cost at 4K is kept between runs, and a cache that is broken or can't be written only costs time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner import short_end
from planner.problem import Problem, resolve
from planner.request import Request

ASKED: dict[str, Any] = {"ctx": 50_000, "gpus": "1xA100", "model": "llama-3.1-8b", "efficiency": "peak"}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAN_CACHE", str(tmp_path))
    return tmp_path / "parity.json"


def problem(**fields: Any) -> Problem:
    return resolve(Request.model_validate({**ASKED, **fields}), open_catalog())


def test_the_second_time_nothing_is_solved(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = short_end.parity_usd_per_interaction(problem())
    assert first is not None
    monkeypatch.setattr("planner.search.frontier.frontier", None)
    assert short_end.parity_usd_per_interaction(problem(ctx=128_000)) == first
    with pytest.raises(TypeError):
        short_end.parity_usd_per_interaction(problem(max_latency=0.01))


def test_a_price_scales_what_is_kept(kept: Path) -> None:
    cheap, dear = (short_end.parity_usd_per_interaction(problem(usd_per_gpu_hour=usd)) for usd in (1.0, 3.0))
    assert cheap is not None
    assert dear == pytest.approx(3.0 * cheap)
    assert len(json.loads(kept.read_text())) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": "y"}', '{"x": NaN}'])
def test_a_broken_cache_is_ignored(kept: Path, content: str) -> None:
    kept.write_text(content)
    assert short_end.parity_usd_per_interaction(problem()) is not None


def test_a_cache_that_cant_be_written_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLAN_CACHE", str(tmp_path / "file" / "below"))
    assert short_end.parity_usd_per_interaction(problem()) is not None
