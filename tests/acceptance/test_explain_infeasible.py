"""No plan: every reported clash clashes, every repair repairs, and a little less of it doesn't.

The judge below reads only the words of the answer, as a user would, and asks the solver again.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from catalog.load import Catalog, open_catalog
from planner import limits
from planner.explain import explain_infeasible
from planner.plan import Infeasible
from planner.problem import resolve
from planner.request import Request, read_request
from planner.search.solver import Settings, solve
from planner.space import open_space

SEEDS = (20, 21)
MORE_SEEDS = tuple(seed for seed in range(1, 50) if seed not in SEEDS)
LIMITS = {*(limit.field for limit in limits.LIMITS), "engine", "weights", "gpus"}
PLENTY = 128
"""GPUs that count as no limit."""
LIFTED: dict[str, Any] = {"max_quality_loss": "99.9%", "engine": "any", "weights": "any", "techniques": "published"}
"""What lifting a limit means; the others are left out."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def drawn(seed: int) -> dict[str, Any]:
    """A request with tight limits on few GPUs, most of them impossible."""
    draw = random.Random(seed)
    wanted: dict[str, Any] = {
        "ctx": draw.choice(("8K", "32K", "50K", "128K")),
        "model": draw.choice(("llama-3.1-8b", "llama-3.1-8b", "yi-34b-200k", "qwen2.5-14b-1m", "llama-3.1-70b")),
        "gpus": draw.choice(("1xA100", "2xA100", "A100-40GB", "1xH100", "2x2xH100")),
        "efficiency": "peak",
        "rounds": draw.choice((1, 5)),
    }
    choices = {
        "max_latency": ("2ms", "5ms", "12ms", "40ms"),
        "max_ttft": ("500ms", "2.5s", "8s"),
        "max_warm_ttft": ("20ms", "100ms", "600ms"),
        "max_switch": ("30ms", "200ms"),
        "max_quality_loss": ("0%", "0.5%", "2%"),
        "weights": ("bf16", "bf16", "any"),
        "engine": ("vllm", "sglang"),
        "users": (3, 40),
    }
    names = draw.sample(sorted(choices), 3)
    return {**wanted, **{name: draw.choice(choices[name]) for name in names}}


def feasible(asked: dict[str, Any], catalog: Catalog) -> bool:
    """Whether a request has a plan, decided within the time."""
    problem = resolve(read_request(asked), catalog)
    found = solve(problem, open_space(problem), None, Settings(20.0, first=True))
    assert found.status != "unknown", asked
    return found.status != "infeasible"


def explained(asked: dict[str, Any], catalog: Catalog) -> Infeasible:
    problem = resolve(read_request(asked), catalog)
    return explain_infeasible(problem, open_space(problem), Settings(30.0))


def field_of(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def changed(asked: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A request with one field another; lifting `gpus` is having plenty of them."""
    return {**asked, field: value}


def lifted(asked: dict[str, Any], field: str) -> dict[str, Any]:
    if field == "gpus":
        counts = re.findall(r"([0-9]+)x", asked["gpus"])
        each = int(counts[1]) if len(counts) == 2 else 1
        name = asked["gpus"].rpartition("x")[2]
        return changed(asked, "gpus", f"{PLENTY // each}x{each}x{name}" if each > 1 else f"{PLENTY}x{name}")
    return changed(asked, field, LIFTED.get(field))


def judge(asked: dict[str, Any], answer: Infeasible, catalog: Catalog) -> None:
    """Read an explanation as a user and try every word of it."""
    for clash in answer.conflicts:
        members = [field_of(text.split()[0]) for text in clash]
        alone = asked
        for field in LIMITS - {*members}:
            alone = lifted(alone, field)
        assert not feasible(alone, catalog), clash
        for field in members:
            assert feasible(lifted(alone, field), catalog), (clash, field)
    for row in answer.relaxations:
        field = field_of(row.limit)
        if row.to is None:
            assert row.note, row
            if "not decided" not in row.note:
                assert not feasible(lifted(asked, field), catalog), row
            continue
        assert feasible(changed(asked, field, row.to), catalog), row
        less = one_unit_less(field, row.to)
        if less is not None and not (row.note and "may do" in row.note):
            assert not feasible(changed(asked, field, less), catalog), (row, less)


def one_unit_less(field: str, text: str) -> str | None:
    """One millisecond, one tenth of a percent, one GPU or server less, or one user more."""
    number = re.match(r"[0-9.]+", text)
    if field in ("techniques", "engine", "weights") or number is None:
        return None
    value, rest = float(number.group()), text[number.end() :]
    if field == "users":
        return str(int(value) + 1)
    if field == "gpus":
        return f"{int(value) - 1}{rest}"
    less = value - {"%": 0.1, "ms": 1.0, "s": 0.001}[rest]
    return f"{less:.6f}{rest}" if less > 1e-9 or field == "max_quality_loss" else None


def one_seed(seed: int, catalog: Catalog) -> None:
    asked = drawn(seed)
    if feasible(asked, catalog):
        pytest.skip("this one has a plan")
    answer = explained(asked, catalog)
    assert answer.conflicts
    judge(asked, answer, catalog)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_word_of_an_explanation_is_true(seed: int, catalog: Catalog) -> None:
    one_seed(seed, catalog)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE_SEEDS)
def test_every_word_of_more_explanations_is_true(seed: int, catalog: Catalog) -> None:
    one_seed(seed, catalog)


def test_a_model_too_large_for_its_gpus_needs_more_of_them(catalog: Catalog) -> None:
    asked = {"ctx": "8K", "model": "llama-3.1-70b", "gpus": "1xRTX-4090", "efficiency": "peak"}
    answer = explained(asked, catalog)
    assert answer.conflicts == (("--gpus 1xRTX-4090",),)
    more = {row.limit: row.to for row in answer.relaxations}
    assert more["--gpus"] is not None
    assert {to for limit, to in more.items() if limit != "--gpus"} == {None}
    judge(asked, answer, catalog)


def test_weights_that_do_not_fit_are_named_with_the_gpus(catalog: Catalog) -> None:
    asked = {"ctx": "50K", "model": "llama-3.1-70b", "gpus": "1xA100", "weights": "bf16", "efficiency": "peak"}
    answer = explained(asked, catalog)
    assert answer.conflicts == (("--weights bf16", "--gpus 1xA100"),)
    assert [row.to for row in answer.relaxations if row.limit == "--weights"] == ["any"]


def test_what_no_cluster_does_is_a_clash_of_its_own(catalog: Catalog) -> None:
    asked = {"ctx": "8K", "model": "llama-3.1-8b", "gpus": "1xA100", "max_latency": "1us", "efficiency": "peak"}
    answer = explained(asked, catalog)
    assert [clash[0].split()[0] for clash in answer.conflicts] == ["--max-latency"]
    (gpus,) = [row for row in answer.relaxations if row.limit == "--gpus"]
    assert gpus.to is None
    assert gpus.note is not None
    assert "--max-latency" in gpus.note


def test_an_explanation_without_time_claims_nothing(catalog: Catalog) -> None:
    problem = resolve(Request(ctx="50K", gpus="1xA100", max_latency="2ms", efficiency="peak"), catalog)
    answer = explain_infeasible(problem, open_space(problem), Settings(1e-9))
    # The request has no plan, which whoever asks knows; which of its limits are needed for that isn't told.
    assert [set(clash) for clash in answer.conflicts] == [
        {"--max-quality-loss 5%", "--max-latency 2ms", "--gpus 1xA100"}
    ]
    assert {row.to for row in answer.relaxations} == {None}
    assert all("decided" in (row.note or "") for row in answer.relaxations)
