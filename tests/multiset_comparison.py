"""The search against every multiset of columns, on one request.

Run as a module, it compares random requests: ``python -m tests.multiset_comparison 0 400``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from catalog.load import open_catalog
from planner.errors import PlannerError
from planner.price import evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.services import services_of
from planner.search.solution import Settings, Solution
from planner.search.solver import solve
from planner.space import Space
from planner.verify import verify
from tests.multisets import Best, Key, Oracle
from tests.requests import CLUSTERS, any_request, count_decisions, opened, typed


def narrowed(seed: int) -> Request:
    """The request of a seed of those with every field, on few GPUs, with few techniques and mostly one engine."""
    request, draw = any_request(seed), random.Random(f"narrowed {seed}")
    name = request.gpus.rpartition("x")[2]
    counts = ("1x", "2x", "3x", "4x", "5x", "6x", "6x", "2x2x", "2x3x", "3x2x")
    gpus = f"{draw.choice(counts)}{name}" if not name.endswith(".yaml") else str(draw.choice(CLUSTERS))
    techniques = ("none", "kv_fp8", "kv_fp8,kv_int8_pth", "kv_int4_pth,snapkv_4096", "kv_fp8,w_awq4")
    changes = {
        "gpus": gpus,
        "tolerance": 0.0,
        "spare": 0,
        "engine": draw.choice(("vllm", "vllm", "sglang", "any")),
        "techniques": draw.choice(techniques),
        "weights": draw.choice(("bf16", "native", "fp8", "any", "any")),
        "model": request.model or draw.choice(("llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite")),
    }
    return Request.model_validate({**request.model_dump(), **changes})


@dataclass(frozen=True)
class Comparison:
    """What the search and the oracle said."""

    solved: Solution
    expected: Best
    search_s: float
    oracle_s: float
    problems: tuple[str, ...]


def compare(problem: Problem, space: Space) -> Comparison:
    """Solve a space in both ways; the cluster that the search takes is verified and priced again."""
    start = time.process_time()
    solved = solve(problem, space, settings=Settings(time_limit_s=300.0))
    middle = time.process_time()
    oracle = Oracle(problem, space)
    expected = oracle.best()
    problems = []
    if solved.status not in ("optimal", "infeasible"):
        problems.append(f"status: {solved.status}")
    if solved.fault:
        problems.append(f"fault: {solved.fault}")
    if (solved.value is None) != (expected.value is None):
        problems.append(f"verdict: the search has {solved.value}, the oracle {expected.value}")
    elif solved.value is not None and expected.value is not None:
        for name, value in (("value", solved.value), ("best", solved.best), ("as priced", oracle.value_of(solved))):
            if value is None or abs(value - expected.value) > 2.5e-9 * abs(expected.value) + 1e-15:
                problems.append(f"{name}: the search has {value!r}, the oracle {expected.value!r}")
        if not problems:
            problems += _untidy(oracle.key_of(solved), expected)
        try:
            verify(problem, space, evaluate(problem, services_of(solved)), solved.value)
        except PlannerError as error:
            problems.append(f"unverified: {error}")
    return Comparison(solved, expected, middle - start, time.process_time() - middle, tuple(problems))


def _untidy(key: Key, expected: Best) -> list[str]:
    """What is wrong with how a tie was broken."""
    simplest = [f"{name} {', '.join(f'{part:.9g}' for part in one)}" for name, one in _named(key, expected)]
    low = expected.least is not None and _before(key, expected.least)
    high = expected.most is not None and _before(expected.most, key)
    return [f"tie: {'; '.join(simplest)}"] if low or high else []


def _named(key: Key, expected: Best) -> Iterator[tuple[str, Key]]:
    yield "the search has", key
    if expected.most is not None:
        yield "the oracle", expected.most
    if expected.least is not None and expected.least != expected.most:
        yield "or with more slack", expected.least


def _before(one: Key, other: Key) -> bool:
    """Whether a key is less, in more than the ninth digit."""
    for mine, theirs in zip(one, other, strict=True):
        if abs(mine - theirs) > 3e-9 * max(abs(mine), abs(theirs)):
            return mine < theirs
    return False


def main() -> None:
    """Compare the narrowed requests of a range of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--most", type=int, default=200_000, help="decisions")
    arguments = parser.parse_args()
    catalog, compared, feasible, mixed, wrong, undecided = open_catalog(), 0, 0, 0, 0, 0
    for seed in range(arguments.first, arguments.last):
        request = narrowed(seed)
        found = opened(request, catalog)
        if found is None or count_decisions(*found) > arguments.most:
            continue
        try:
            one = compare(*found)
        except Exception as error:
            wrong += 1
            print(f"{seed} CRASH {type(error).__name__}: {error}: {typed(request)}", flush=True)
            continue
        compared += 1
        feasible += one.solved.value is not None
        mixed += len(one.solved.kinds) > 1
        undecided += one.expected.value is not None and one.expected.most is None
        wrong += bool(one.problems)
        if one.problems or one.search_s + one.oracle_s > 20.0:
            times = f"{one.search_s:.1f}s, oracle {one.oracle_s:.1f}s"
            print(f"{seed} {times}: {'; '.join(one.problems)}: {typed(request)}", flush=True)
    kinds = f"{feasible} feasible, {mixed} of several kinds"
    print(f"{compared} compared, {kinds}, {undecided} ties not sought, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
