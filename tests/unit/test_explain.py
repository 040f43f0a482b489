"""Explanations: how limits and clusters are worded, how the smallest change is found, and what units buy."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.load import Catalog, open_catalog
from planner.ask import Asker, Question, smallest
from planner.clusters import sizes_of
from planner.explain import binding_gains, gains
from planner.explain.limits import changes_without, deployable, stated
from planner.pipeline import make_plan
from planner.plan import UNDECIDED, Document, Relaxation
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.solver import Settings


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def problem_of(catalog: Catalog, gpus: str) -> Problem:
    return resolve(Request(ctx="8K", model="llama-3.1-8b", gpus=gpus, efficiency="peak"), catalog)


@pytest.mark.parametrize(
    ("gpus", "more"),
    [
        ("8xA100", "9xA100"),
        ("A100", "2xA100"),
        ("11 x a100-40gb", "12xa100-40gb"),
        ("2x8xH100", "3x8xH100"),
        ("p4d.24xlarge", "2xp4d.24xlarge"),
        ("2xp4d.24xlarge", "3xp4d.24xlarge"),
    ],
)
def test_one_more_is_worded_as_the_user_counts(gpus: str, more: str, catalog: Catalog) -> None:
    problem = problem_of(catalog, gpus)
    sizes = sizes_of(problem)
    assert sizes is not None
    assert sizes.text(sizes.count + 1) == more
    larger = problem_of(catalog, more).cluster
    assert larger.gpus == problem.cluster.gpus + sizes.gpus_each


def test_a_cluster_file_is_for_its_owner_to_edit(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("hardware: a100-sxm-80gb\nnodes: 2\n", encoding="utf-8")
    assert sizes_of(problem_of(catalog, str(path))) is None


def test_limits_are_those_that_a_user_would_recognise() -> None:
    request = Request(ctx="8K", gpus="1xA100", max_latency="200ms", max_ttft="1.5s", users=7, engine="vllm")
    assert [limit.text for limit in stated(request)] == [
        "--max-quality-loss 5%",
        "--engine vllm",
        "--max-ttft 1.5s",
        "--max-latency 200ms",
        "--users 7",
    ]
    free = request.model_copy(update=changes_without(stated(request)))
    assert (free.max_latency, free.max_ttft, free.users, free.engine) == (None, None, None, "any")
    assert [limit.field for limit in stated(free)] == ["max_quality_loss"]


def test_a_list_of_techniques_is_a_limit_and_what_is_deployable_is_not() -> None:
    chosen = Request(ctx="8K", gpus="1xA100", techniques="kv_fp8")
    assert "--techniques kv_fp8" in [limit.text for limit in stated(chosen)]
    assert deployable(chosen) is None
    default = Request(ctx="8K", gpus="1xA100")
    assert [limit.text for limit in stated(default)] == ["--max-quality-loss 5%"]
    assert deployable(default) is not None


def test_what_is_undecided_is_no_answer() -> None:
    assert smallest(lambda k: None if k < 40 else True, 1, 100, guess=38) == (40, False)
    assert smallest(lambda k: None, 1, 100, guess=5) == (None, False)


def test_an_answer_is_asked_for_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = Asker(problem_of(catalog, "1xA100"), Settings(10.0))
    first = asker.ask(Question(), first=True)
    assert first is not None
    assert first.kinds
    monkeypatch.setattr(asker, "solve", lambda *_, **__: pytest.fail("asked again"))
    assert asker.ask(Question(), first=True) is first
    assert asker.is_answered(Question({"gpus": "2xA100"})), "a plan that is known keeps the limits there, too"
    assert not asker.is_answered(Question({"max_latency": 1e-9}))


@pytest.fixture(scope="module")
def limited(catalog: Catalog) -> Document:
    """A plan whose latency limit binds."""
    free = make_plan(Request(ctx="32K", model="llama-3.1-8b", gpus="1xA100", efficiency="peak"), catalog)
    assert free.metrics is not None
    tight = Request(
        ctx="32K",
        model="llama-3.1-8b",
        gpus="1xA100",
        efficiency="peak",
        max_latency=(free.metrics.latency.itl_s.full or 0.0) / 2.0,
    )
    return make_plan(tight, catalog)


def test_a_gain_is_what_a_new_plan_reaches(limited: Document, catalog: Catalog) -> None:
    problem = resolve(Request.model_validate(limited.request), catalog)
    rows = binding_gains(problem, limited, Settings(30.0))
    (more,) = [row for row in rows if row.constraint == "gpus"]
    assert more.change == "--gpus 2xA100"
    again = make_plan(Request.model_validate({**limited.request, "gpus": "2xA100"}), catalog)
    assert limited.objective is not None
    assert again.objective is not None
    assert more.share == pytest.approx(again.objective.best / limited.objective.best - 1.0, abs=1e-3)
    assert more.share > 0.5
    assert {row.constraint for row in rows} <= {"techniques", *(row.name for row in limited.constraints if row.binding)}


def test_gains_are_told_in_the_time_that_there_is(limited: Document, catalog: Catalog) -> None:
    assert gains(limited, catalog, Settings(0.0)) == []
    lines = gains(limited, catalog, Settings(10.0))
    assert all(line.startswith(("With --", "With 10 %")) for line in lines)


def test_what_was_only_evaluated_has_no_gains(limited: Document, catalog: Catalog) -> None:
    assert gains(limited.model_copy(update={"objective": None}), catalog, Settings()) == []


@pytest.mark.parametrize(
    ("to", "note", "words"),
    [
        ("231ms", None, "231ms"),
        ("24xA100", f"fewer may do: {UNDECIDED}", f"24xA100 (fewer may do: {UNDECIDED})"),
        (None, "1024 GPUs aren't enough", "nothing is enough (1024 GPUs aren't enough)"),
        (None, UNDECIDED, UNDECIDED),
    ],
)
def test_what_was_not_decided_is_not_called_impossible(to: str | None, note: str | None, words: str) -> None:
    assert Relaxation(limit="--gpus", **{"from": "8xA100"}, to=to, note=note).needed == words
