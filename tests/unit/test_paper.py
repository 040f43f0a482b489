"""The source paper's analysis: golden cases, printed values, tables and the figure."""

from __future__ import annotations

import json
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from catalog.load import Catalog, built_in_directory
from catalog.schema import Model
from planner.errors import InputError
from planner.paper.analysis import Analysis, analyse, curves
from planner.paper.cases import CASES, Study
from planner.paper.comparison import prints_as
from planner.paper.facts import Origin, Printed, compared_models, conventions, printed_values
from planner.paper.levers import levers
from planner.paper.session import busy_s, rounds_per_hour
from planner.paper.tables import Table, session_throughput
from planner.paper.view import View, kept, kv_bytes, metrics, paper_view, rounded, stage_of
from planner.report.canvas import check_target
from planner.report.figure import draw
from planner.report.paper import PaperReport

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "paper.json").read_text("utf-8"))
EXACT = 1e-12
"""Binary arithmetic in another order."""
WHOLE_TOKEN = 2e-5
"""Crossovers are whole tokens here and fractions in the golden file."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog([built_in_directory()])


@pytest.fixture(scope="module")
def study(catalog: Catalog) -> Study:
    return Study(catalog)


@pytest.fixture(scope="module")
def analysis(catalog: Catalog) -> Analysis:
    return analyse(catalog)


def column(table: Table, key: str) -> dict[Any, Any]:
    """Values of one column by the first cell of their row."""
    index = [column.key for column in table.columns].index(key)
    return {row[0]: row[index] for row in table.rows}


def table_of(analysis: Analysis, name: str) -> Table:
    return next(table for table in analysis.tables if table.id == name)


# --------------------------------------------------------------------------- golden cases


def test_the_golden_file_has_all_56_cases() -> None:
    assert len({case["id"] for case in GOLDEN}) == 56


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda case: case["id"])
def test_golden_case(golden: dict[str, Any], study: Study) -> None:
    value = CASES[golden["id"]].compute(study)
    assert value == pytest.approx(golden["expected"], rel=max(golden["tol"], EXACT))
    assert value == pytest.approx(golden["value"], rel=WHOLE_TOKEN if golden["id"] in ("XO-1", "XO-2") else EXACT)


@pytest.mark.parametrize("golden", [case for case in GOLDEN if case["paper"]], ids=lambda case: case["id"])
def test_no_printed_value_claims_more_than_its_golden_provenance(golden: dict[str, Any]) -> None:
    origins = {row.source.provenance for row in printed_values() if golden["id"] in row.cases[:1]}
    if golden["status"].startswith("RECALLED"):
        assert origins <= {"recalled"}
    elif "2nd-hand" in golden["status"]:
        assert origins <= {"secondary"}


# --------------------------------------------------------------------------- printed values


def test_only_the_abstract_was_found() -> None:
    assert {row.id for row in printed_values() if row.source.provenance == "found"} == {"goal"}


def test_printed_values_are_compared_with_cases_that_exist() -> None:
    for row in printed_values():
        assert row.cases or row.beside, row.id
        assert {*row.cases, *row.beside} <= CASES.keys(), row.id
        assert not row.cases or row.value is not None, row.id


def test_a_note_says_where_the_arithmetic_does_not_close_and_nowhere_else(analysis: Analysis) -> None:
    for row in analysis.comparisons:
        told = (row.printed.note or "").startswith("doesn't close")
        assert told == (row.closes is False), row.printed.id


def test_what_does_not_close(analysis: Analysis) -> None:
    open_ids = {row.printed.id for row in analysis.comparisons if row.closes is False}
    assert open_ids == {
        "users-2-100k",
        "prefill-50k",
        "prefill-flop",
        "decode-4k",
        "decode-50k",
        "tp-linear",
        "combined",
    }


@pytest.mark.parametrize(
    ("text", "printed", "computed", "same"),
    [
        ("22.8 GB", 22.8, 22.888, True),  # cut
        ("0.89 s", 0.89, 0.8939, True),  # rounded
        ("9.8 s", 9.8, 9.844, True),
        ("9.8 s", 9.8, 9.701, False),
        ("14.1 s", 14.1, 14.3436, False),
        ("5", 5.0, 4.0, False),
        ("~20", 20.0, 18.0, True),
        ("~20", 20.0, 17.9, False),
        ("about 1000x", 1000.0, 120.0, False),
        ("linearly", 2.0, 2.001, True),
        ("linearly", 2.0, 5.8, False),
        ("20/1024", 51.2, 51.2, True),
        ("93.3 % less", 0.933, 0.9334, True),
        ("93.3 % less", 0.933, 0.95, False),
    ],
)
def test_prints_as(text: str, printed: float, computed: float, same: bool) -> None:
    row = Printed(id="x", what="x", text=text, value=printed, source=Origin(provenance="recalled", ref="x"))
    assert prints_as(computed, row) is same


# --------------------------------------------------------------------------- the view


def test_the_rounded_model_has_the_rounded_size(catalog: Catalog) -> None:
    for model in compared_models().values():
        architecture = rounded(catalog, model, 1.0)
        if model.params is not None:
            assert architecture.total_params == round(model.params), model.id
        if model.shape is not None and model.shape.active_params is not None:
            assert architecture.active_params == pytest.approx(model.shape.active_params, rel=1e-6), model.id


def test_the_variants_differ_from_the_catalogs_model_in_kv_heads_only(study: Study) -> None:
    per_token = {name: study.per_token(name) for name in ("yi-34b-mha", "yi-34b-200k", "yi-34b-mqa")}
    assert per_token == {"yi-34b-mha": 56 * 30_720, "yi-34b-200k": 8 * 30_720, "yi-34b-mqa": 30_720}
    flops = {sum(term.decode_flops for term in stage_of(study.model(name)).terms) for name in per_token}
    assert len(flops) == 1


def test_a_shape_is_no_better_known_than_its_weakest_source(catalog: Catalog, analysis: Analysis) -> None:
    told = column(table_of(analysis, "models"), "provenance")
    for model in compared_models().values():
        if model.catalog is not None:
            known = {source.provenance for source in catalog.get(Model, model.catalog).sources}
            assert told[model.name] in known, model.id
    assert told["Yi-34B if MHA"] == "derived"


def test_the_paper_view_is_the_catalogs_a100_but_for_the_conventions(study: Study) -> None:
    gpu, told = study.base.hardware, conventions()
    assert gpu.hbm_bandwidth == told.hbm_bandwidth == 2e12
    assert gpu.pcie.effective == told.pcie == 20 * 2**30
    original = study.gpu(told.hardware).hardware
    assert gpu.model_copy(update={"hbm_bandwidth": original.hbm_bandwidth, "pcie": original.pcie}) == original


@settings(max_examples=30)
@given(tokens=st.integers(1_000, 2_000_000), factor=st.integers(2, 8), gpus=st.sampled_from([1, 2, 4, 8]))
def test_longer_contexts_worsen_every_metric(tokens: int, factor: int, gpus: int) -> None:
    view = _view()
    short, long = metrics(view, tokens, gpus), metrics(view, tokens * factor, gpus)
    assert long.users == pytest.approx(short.users / factor)
    assert long.prefill_s >= factor * short.prefill_s * (1 - 1e-12)
    assert short.decode_s < long.decode_s < factor * short.decode_s
    assert long.switch_s == pytest.approx(factor * short.switch_s)
    assert short.concurrency == max(0, int(short.users + 1e-9))


@settings(max_examples=30)
@given(share=st.floats(0.001, 1.0), dimension=st.sampled_from(["layer", "head", "token", "hidden"]))
def test_a_kept_share_of_any_dimension_is_that_share_of_the_cache(share: float, dimension: str) -> None:
    view = _view()
    assert kv_bytes(view, 50_000, kept(**{dimension: share})) == pytest.approx(share * kv_bytes(view, 50_000))


@cache
def _view() -> View:
    return paper_view(Catalog([built_in_directory()]))


# --------------------------------------------------------------------------- tables


def test_every_row_has_a_cell_per_column(analysis: Analysis) -> None:
    for table in analysis.tables:
        assert table.rows, table.id
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.id


def test_what_changes_move_is_what_the_paper_says(study: Study) -> None:
    table = levers(study)
    assert column(table, "moves") == column(table, "paper")
    assert set(column(table, "provenance").values()) == {"recalled", "secondary"}


def test_only_cutting_layers_helps_prefill(study: Study) -> None:
    factors = column(levers(study), "prefill_factor")
    cuts = {name: factor for name, factor in factors.items() if ":" in name}
    assert [name.split(":")[0] for name, factor in cuts.items() if factor < 1] == ["layer"]


def test_tensor_parallelism_divides_times_and_multiplies_users(analysis: Analysis) -> None:
    table = table_of(analysis, "tensor_parallelism")
    for key in ("prefill_s", "decode_s", "switch_s"):
        times = column(table, key)
        assert all(times[1] / times[gpus] == pytest.approx(gpus) for gpus in times)
    assert column(table, "users") == {1: 1, 2: 8, 4: 22, 8: 50}
    assert column(table, "users_100k") == {1: 0, 2: 4, 4: 11, 8: 25}


def test_mqa_on_eight_gpus_holds_no_more_than_gqa(analysis: Analysis) -> None:
    users = column(table_of(analysis, "attention_kinds"), "users_8")
    assert users == {"MHA": 7, "GQA": 50, "MQA": 50}


def test_parity_needs_a_250th_and_leaves_prefill(analysis: Analysis) -> None:
    table = table_of(analysis, "parity")
    reduction, reached = column(table, "reduction"), column(table, "parity")
    assert all((reached[name] == "yes") == (reduction[name] >= 250) for name in reduction)
    assert any("1786 times" in note for note in table.notes)


def test_a_gpu_that_the_weights_do_not_fit_says_so(analysis: Analysis) -> None:
    assert column(table_of(analysis, "hardware"), "users")["NVIDIA GeForce RTX 4090"] == "don't fit"


def test_the_cost_model_agrees_with_the_closed_form_but_for_one_switch(study: Study) -> None:
    parts = [metrics(study.base, tokens) for tokens in (4_000, 50_000)]
    rows = session_throughput(study).rows
    assert rows[0][-1] == pytest.approx(rounds_per_hour(parts[0].prefill_s, parts[0].decode_s, 0.0, 5))
    saved = busy_s(parts[1].prefill_s, parts[1].decode_s, parts[1].switch_s, 5) - parts[1].switch_s
    assert rows[1][-1] == pytest.approx(5 * 3600 / saved)
    assert rows[2][-1] == "cache doesn't fit"


# --------------------------------------------------------------------------- report


@pytest.mark.parametrize("width", [60, 80, 170])
def test_a_narrow_terminal_cuts_nothing_off(analysis: Analysis, width: int) -> None:
    console = Console(width=width, record=True, file=StringIO())
    console.print(PaperReport(analysis))
    text = console.export_text()
    assert "…" not in text
    assert "prefill [s]" in text or width < 170


# --------------------------------------------------------------------------- figure


def test_the_figure_shows_four_labelled_panels(catalog: Catalog, analysis: Analysis, tmp_path: Path) -> None:
    target = tmp_path / "paper.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(curves(catalog), analysis, target)
    text = target.read_text("utf-8")
    for label in ("Concurrency", "Prefill", "Decode", "Context switch", "1x A100 80 GB", "8x A100 80 GB", "[s]"):
        assert label in text
    assert "printed, 1x A100 (recalled)" in text


def test_the_figure_is_the_same_every_time(catalog: Catalog, analysis: Analysis, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(curves(catalog, most=10_000), analysis, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_curves_span_the_contexts(catalog: Catalog) -> None:
    one, eight = curves(catalog)
    assert (one.gpus, eight.gpus) == (1, 8)
    assert (one.tokens[0], one.tokens[-1]) == (1_000, 1_000_000)


def test_all_problems_of_a_figure_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_target(tmp_path / "nowhere" / "paper.gif", force=False)
    assert len(caught.value.problems) == 2


def test_an_existing_figure_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "paper.png"
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        check_target(target, force=False)
    check_target(target, force=True)
