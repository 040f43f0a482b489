"""Grids, rows and figures of a sweep, below the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from planner import InputError, Request, Service, evaluate
from planner.report.sweep import draw_sweep, print_sweep
from planner.service import Pool, Pools
from planner.whatif import sweep_rows
from planner.whatif.outcome import Outcome
from planner.whatif.sweep_check import unusable_points
from planner.whatif.sweep_grid import MOST_POINTS, make_grid, read_axes, read_points
from planner.whatif.sweep_rows import Row, check_output, columns_of, row_of, write_rows

SMALL: dict[str, Any] = {"model": "qwen3-0.6b", "gpus": "2xA100", "efficiency": "peak"}
FIELDS = ("ctx", "max_latency")


def test_a_grid_is_every_combination_with_the_first_list_slowest() -> None:
    grid = make_grid(read_axes({"ctx": "4K,8K", "gpus": "1xA100, 2xA100", "users": None}))
    assert [(r.ctx, r.gpus) for r in grid.requests] == [(c, g) for c in (4000, 8000) for g in ("1xA100", "2xA100")]
    assert (grid.fields, grid.repeated) == (("ctx", "gpus"), 0)


def test_every_field_may_vary_and_none_takes_a_limit_away() -> None:
    asked = {"ctx": "4K", "gpus": "1xA100", "techniques": "deployable;kv_fp8,h2o", "max_latency": "none,200ms"}
    grid = make_grid(read_axes({**asked, "max_quality_loss": "1%,5%", "objective": "throughput,cost"}))
    assert len(grid.requests) == 16
    assert set(grid.fields) == {"techniques", "max_latency", "max_quality_loss", "objective"}
    assert {(r.techniques, r.max_latency) for r in grid.requests} == {
        (techniques, limit) for techniques in ("deployable", "kv_fp8,h2o") for limit in (None, 0.2)
    }


def test_equal_points_are_one() -> None:
    grid = make_grid(read_axes({"ctx": "1M,1000K,4K", "gpus": "1xA100"}))
    assert ([r.ctx for r in grid.requests], grid.repeated) == ([1_000_000, 4000], 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "\ufeffctx,max-latency\r\n4K,\r\n8K,none\r\n"),
        ("a.jsonl", '{"ctx": 4000}\n\n{"ctx": "8K", "max_latency": null}\n'),
        ("a.yaml", "- {ctx: 4K}\n- {ctx: 8K, max_latency: none}\n"),
        ("-", "ctx: [4K, 8K]\n"),
    ],
)
def test_files_of_points_say_the_same_in_every_format(name: str, text: str) -> None:
    grid = make_grid({"gpus": ["1xA100"]}, read_points(text, name), name)
    assert [(r.ctx, r.max_latency, r.gpus) for r in grid.requests] == [(4000, None, "1xA100"), (8000, None, "1xA100")]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "ctx,gpus\n4K\n", "line 2: hasn't the 2 cells"),
        ("a.csv", "ctx\n", "holds no points"),
        ("a.csv", 'ctx\n"4K\n', "unexpected end of data"),
        ("a.jsonl", "[1]\n", "line 1: holds no 'field: value'"),
        ("a.yaml", "7", "holds neither a list"),
        ("a.yaml", "- {gpus: 1xA100, contxt: 4K}", "a.yaml: contxt: unknown field"),
        ("a.yaml", "- {gpus: 1xA100, ctx: true}", "a.yaml: point 1: ctx: 'true'"),
        (
            "a.yaml",
            f"rounds: [{','.join(map(str, range(1, 1000)))}]\nctx: [{','.join(map(str, range(1, 200)))}]",
            "most",
        ),
    ],
)
def test_files_that_hold_no_points_are_told(name: str, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_grid({}, read_points(text, name), name)


def test_a_grid_has_an_end() -> None:
    with pytest.raises(InputError, match=f"at most {MOST_POINTS} at once"):
        make_grid({"ctx": list(range(1, 1001)), "rounds": list(range(1, 1001)), "gpus": ["1xA100"]})


def test_points_that_name_nothing_are_told_before_the_run() -> None:
    from catalog.load import open_catalog

    asked = [Request(ctx=ctx, techniques=t, **SMALL) for ctx in (4000, 8000) for t in ("deployable", "zzz")]
    found = unusable_points(asked, open_catalog())
    assert {problem[:32]: points for problem, points in found.items()} == {"--techniques: unknown technique ": [1, 3]}
    with pytest.raises(InputError, match="unknown technique 'zzz'"):
        unusable_points(asked[1::2], open_catalog())


def test_a_length_that_no_engine_runs_takes_no_other_point_with_it() -> None:
    from catalog.load import open_catalog

    asked = [Request(ctx=ctx, model="qwen2.5-7b-1m", gpus="1xA100") for ctx in (1_000_000, 32_000)]
    (points,) = unusable_points(asked, open_catalog()).values()
    assert points == [0]


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """An aggregated plan, a disaggregated one, and none."""
    asked = [Request(ctx=ctx, max_latency=limit, **SMALL) for ctx, limit in ((4000, None), (8000, 0.2), (16_000, 0.2))]
    pools = Pools(prefill=Pool(), decode=Pool())
    pools = pools.model_validate({name: {"parallel": {"tp": 1}} for name in ("prefill", "decode")})
    apart = Service(serving="disaggregated", pools=pools, engine="vllm")
    documents = [evaluate(asked[0]), evaluate(asked[1], apart)]
    plans = [Outcome(i, asked[i], "optimal", document) for i, document in enumerate(documents)]
    return [*plans, Outcome(2, asked[2], "error", reason="nothing\n  at all")]


@pytest.fixture(scope="module")
def rows(outcomes: list[Outcome]) -> list[Row]:
    return [row_of(outcome, FIELDS) for outcome in outcomes]


def test_all_formats_hold_the_same_numbers(rows: list[Row], outcomes: list[Outcome], tmp_path: Path) -> None:
    columns = columns_of(rows, FIELDS)
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_rows(tmp_path / f"a{suffix}", rows, columns, force=False)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == lines
    kinds = {name: str(table.schema.field(name).type) for name in columns}
    assert (kinds["ctx"], kinds["max_latency"], kinds["metrics.concurrency"]) == ("int64", "double", "int64")
    assert kinds["objective.value"] == kinds["metrics.usd_per_hour"] == "double"
    assert kinds["decision.groups.0.batch.prefill_throttled"] == "bool"
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    metrics = outcomes[0].document.metrics if outcomes[0].document else None
    assert metrics is not None
    assert float(cells[0]["metrics.users"]) == lines[0]["metrics.users"] == metrics.users
    assert cells[1]["decision.groups.1.parallel.tp"] == "1"
    assert cells[0]["decision.groups.1.parallel.tp"] == cells[2]["metrics.users"] == ""
    assert lines[2]["reason"] == "nothing at all"
    assert not {"decision.groups", "intervals"} & set(columns)


def test_an_output_is_whole_or_not_there(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    out = tmp_path / "a.csv"
    monkeypatch.setattr(sweep_rows.os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write_rows(out, rows, columns_of(rows, FIELDS), force=False)
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine", encoding="utf-8")
    monkeypatch.undo()
    with pytest.raises(InputError, match="exists by now"):
        write_rows(out, rows, columns_of(rows, FIELDS), force=False)
    assert out.read_text(encoding="utf-8") == "mine"


def test_parquet_without_pyarrow_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_rows, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'plan-llm\[parquet\]'"):
        check_output(tmp_path / "a.parquet", force=False)


def test_the_terminal_and_the_figure_show_the_rows(
    rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_sweep(rows, FIELDS)
    shown = capsys.readouterr().out
    assert f"{rows[0]['metrics.interactions_per_hour']:,.0f}" in shown
    assert "tp1 x 1 prefill + tp1 x 1 decode" in shown
    assert "ctx=16K max_latency=200ms (error):\n  nothing at all" in shown
    draw_sweep(rows, FIELDS, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for part in ("interactions/h", "USD per interaction", "max_latency none", "max_latency 200ms", "no plan"):
        assert f"<!-- {part} -->" in drawn
    draw_sweep([rows[2]], (), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000
