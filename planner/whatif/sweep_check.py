"""What can be told about a sweep before anything is solved: points that name what isn't to be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog.load import Catalog
from planner.errors import InputError
from planner.problem import resolve
from planner.request import Request
from planner.space import open_space


def unusable_points(requests: Sequence[Request], catalog: Catalog) -> dict[str, list[int]]:
    """Points that can't be planned whatever the solver does, by what is wrong with them.

    Parameters
    ----------
    requests
        The points.
    catalog
        Facts that they are looked up in.

    Returns
    -------
    dict
        Problem, told as `plan` tells it -> places of its points.

    Raises
    ------
    InputError
        If there is no usable point at all: then the sweep makes no sense.
    """
    found: dict[str, list[int]] = {}
    spaces: dict[Any, list[str]] = {}
    bad: set[int] = set()
    for index, request in enumerate(requests):
        problems = _problems(request, catalog, spaces)
        for problem in problems:
            found.setdefault(problem, []).append(index)
        if problems:
            bad.add(index)
    if len(bad) == len(requests):
        raise InputError(list(found))
    return found


def _problems(request: Request, catalog: Catalog, spaces: dict[Any, list[str]]) -> list[str]:
    """Everything that is wrong with one request; a space is opened once for all limits."""
    try:
        problem = resolve(request, catalog)
    except InputError as error:
        return error.problems
    named = (request.gpus, problem.model_id, request.engine, request.techniques, request.weights, request.task)
    key = (*named, request.ctx, request.rounds)  # what engines run depends on them
    if key not in spaces:
        try:
            open_space(problem)
            spaces[key] = []
        except InputError as error:
            spaces[key] = error.problems
    return spaces[key]
