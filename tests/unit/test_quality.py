"""Stacked losses by hand, and one sum in all the places that add them up."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from catalog.load import open_catalog
from catalog.schema import Prior
from planner.candidates.combinations import filtered, loss_of, with_weights, within_budget
from planner.cost.quality import (
    STD_GROWTH_PER_DOUBLING,
    LogLoss,
    from_fractions,
    log_budget,
    prior_loss,
    stack,
    window_loss,
    z_score,
)
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.service import DIMENSIONS, Choice, Compression, Parallel, Service
from planner.space import Space, open_space


def prior(mean: float, std: float, tokens: int | None = None, **by_task: tuple[float, float]) -> Prior:
    tasks = {name: Prior.model_construct(mean_pct=m, std_pct=s) for name, (m, s) in by_task.items()}
    return Prior.model_construct(mean_pct=mean, std_pct=std, context_tokens=tokens, by_task=tasks)


def test_retentions_multiply() -> None:
    both = from_fractions(0.1, 0.0) + from_fractions(0.2, 0.0)
    assert both.loss_mean == pytest.approx(1 - 0.9 * 0.8)


def test_independent_spreads_add_as_squares() -> None:
    both = stack([from_fractions(0.0, 0.03), from_fractions(0.0, 0.04)])
    assert math.sqrt(both.variance) == pytest.approx(0.05)


def test_the_spread_grows_with_what_is_lost_already() -> None:
    assert math.sqrt(from_fractions(0.5, 0.01).variance) == pytest.approx(0.02)


def test_a_gain_is_no_credit() -> None:
    assert from_fractions(-0.02, 0.01).mean == 0.0


def test_confidence_one_half_is_the_mean() -> None:
    assert from_fractions(0.03, 0.5).loss_at(0.5) == pytest.approx(0.03)


def test_loss_at_confidence_by_hand() -> None:
    loss = from_fractions(0.02, 0.01)
    assert loss.loss_at(0.8) == pytest.approx(1 - 0.98 * math.exp(-0.8416212 * 0.01 / 0.98))


def test_the_task_has_its_own_prior() -> None:
    assert prior_loss(prior(1, 1, qa=(4, 0)), "qa", 1, 1000).loss_mean == pytest.approx(0.04)


def test_several_rounds_count_the_worse_of_both_priors() -> None:
    query_aware = prior(1, 0, multiturn=(30, 0))
    assert prior_loss(query_aware, "mixed", 1, 1000).loss_mean == pytest.approx(0.01)
    assert prior_loss(query_aware, "mixed", 2, 1000).loss_mean == pytest.approx(0.30)
    assert prior_loss(prior(5, 0, multiturn=(1, 0)), "mixed", 2, 1000).loss_mean == pytest.approx(0.05)


def test_beyond_its_measured_context_a_prior_is_less_sure() -> None:
    known = prior(0, 2, tokens=1000)
    assert prior_loss(known, "mixed", 1, 1000) == prior_loss(known, "mixed", 1, 500)
    wider = math.sqrt(prior_loss(known, "mixed", 1, 4000).variance)
    assert wider == pytest.approx(0.02 * (1 + 2 * STD_GROWTH_PER_DOUBLING))


def test_a_longer_context_than_trained_for_is_never_free() -> None:
    assert window_loss(1000, 1000) == LogLoss()
    assert 0 < window_loss(1001, 1000).mean < window_loss(2000, 1000).mean < window_loss(4000, 1000).mean


def test_a_method_that_extends_the_window_loses_less_but_never_nothing() -> None:
    assert 0 < window_loss(2000, 1000, 4000).mean < window_loss(2000, 1000).mean
    assert window_loss(8000, 1000, 4000).mean > window_loss(4000, 1000, 4000).mean + window_loss(2000, 1000, 2000).mean
    assert window_loss(4000, 1000, 4000).loss_mean == pytest.approx(1 - 0.92**2)


# ----------------------------------------------------------------- one sum, wherever it is taken


@pytest.fixture(scope="module")
def opened() -> tuple[Problem, Space]:
    request = Request(ctx="128K", gpus="8xA100", model="llama-3.1-70b", techniques="published", max_quality_loss="20%")
    problem = resolve(request, open_catalog())
    return problem, open_space(problem)


def surcharged(space: Space) -> list[tuple[tuple[int, ...], int]]:
    """For each surcharge one combination and weights that pay it: an option of each side, in two dimensions."""
    place = {x.id: (d, o) for d, name in enumerate(DIMENSIONS) for o, x in enumerate(space.options[name]) if x.point}
    place |= {x.point.id: (len(DIMENSIONS), w) for w, x in enumerate(space.weights) if x.point}
    found = []
    for extra in space.compatibility.surcharges:
        for a, b in itertools.product(sorted(extra.a), sorted(extra.b)):
            pair = frozenset((a, b))
            if pair <= place.keys() and place[a][0] != place[b][0] and pair not in space.compatibility.pairs:
                chosen = [0] * (len(DIMENSIONS) + 1)
                for d, o in (place[a], place[b]):
                    chosen[d] = o
                found.append((tuple(chosen[:-1]), chosen[-1]))
                break
    return found


def test_surcharges_are_summed_alike(opened: tuple[Problem, Space]) -> None:
    """The bounds' arrays, the single sum, and the evaluation of a decision."""
    problem, space = opened
    cases = surcharged(space)
    assert len(cases) >= 3
    for column, w in cases:
        options = tuple(space.options[name][o] for name, o in zip(DIMENSIONS, column, strict=True))
        loss = loss_of(space, options, space.weights[w])
        plain = stack([space.weights[w].loss, *(o.loss for o in options)])
        assert loss.mean > plain.mean
        found = with_weights(problem, space, filtered(problem, space, np.array(column)[:, None]), space.weights[w])
        if within_budget(problem, np.array([loss.mean]), np.array([loss.variance]))[0] and len(found):
            assert found.loss_mean[0] == pytest.approx(loss.mean)
            assert found.loss_variance[0] == pytest.approx(loss.variance)
        choices = {o.dimension: Choice(technique=o.technique.id, point=o.id) for o in options if o.technique}
        compression = Compression(**choices)
        decision = Service(engine="any", weights=space.weights[w].id, compression=compression, parallel=Parallel(tp=8))
        metrics = evaluate(problem, decision).metrics
        assert metrics.quality_loss_mean == pytest.approx(loss.loss_mean)
        assert metrics.quality_loss_at_confidence == pytest.approx(loss.loss_at(problem.request.confidence))


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_the_budget_holds_at_the_mean_and_at_the_confidence(opened: tuple[Problem, Space], confidence: float) -> None:
    problem = resolve(opened[0].request.model_copy(update={"confidence": confidence}), opened[0].catalog)
    budget, z = log_budget(0.2), z_score(confidence)
    spread = 0.01
    just = np.array([budget - z * spread])
    assert within_budget(problem, just, np.array([spread**2]))[0]
    assert not within_budget(problem, just + 1e-6, np.array([spread**2]))[0]
