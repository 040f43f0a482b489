"""Several scenarios against one: each planned and proved on its own, and the difference told by its causes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.load import Catalog, open_catalog
from planner.errors import InputError
from planner.explain.gains import binding_gains
from planner.objectives import MEASURES
from planner.pipeline import OutOfTimeError, make_plan
from planner.plan import Document
from planner.problem import resolve
from planner.request import Request, read_request
from planner.search.solver import Settings
from planner.whatif.attribution import Pricer, State, attribute, broken, metric_of, metric_value, part_change
from planner.whatif.compared import Bounds, Cause, Comparison, Kept, Relaxed, Unchanged, Variant
from planner.whatif.parts import differing, with_part
from planner.whatif.scenario import Scenario, scenario
from planner.whatif.stale import freshness

Talk = Callable[[str], None]


def compare(
    base: Request | Document,
    variants: Mapping[str, Mapping[str, Any] | Request | Document],
    catalog: Catalog | None = None,
    settings: Settings | None = None,
    *,
    gains: bool = True,
) -> Comparison:
    """Plan a base and its variants, and tell each difference by its causes.

    Parameters
    ----------
    base
        A request, or a plan that is taken as it is.
    variants
        Name -> overrides of the base's request (as on the command line or SI numbers; None takes a
        limit away), a whole request, or a plan.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    settings
        How the solver runs, for each plan.
    gains
        Whether what a unit more of each binding limit would buy is asked too.

    Returns
    -------
    Comparison
        A variant that is infeasible or can't be understood is part of it, with its explanation.

    Raises
    ------
    InputError
        If the base's request can't be understood.

    Examples
    --------
    >>> from planner import Request, compare  # doctest: +SKIP
    >>> asked = Request(ctx="128K", gpus="8xA100")  # doctest: +SKIP
    >>> found = compare(asked, {"H100": {"gpus": "8xH100"}})  # doctest: +SKIP
    >>> found.variants[0].cause.ratio  # doctest: +SKIP
    2.1
    """
    values = _values(base)
    columns: list[Scenario | tuple[str, Document]] = []
    for name, given in variants.items():
        if isinstance(given, Document):
            columns.append((name, given))
        elif isinstance(given, Request):
            columns.append(Scenario(name, {}, given))
        else:
            columns.append(scenario(name, values, given))
    first: Scenario | tuple[str, Document]
    first = ("base", base) if isinstance(base, Document) else Scenario("base", {}, base)
    catalog, settings = catalog or open_catalog(), settings or Settings()
    return compare_scenarios(first, columns, catalog, settings, gains=gains)


def compare_scenarios(
    base: Scenario | tuple[str, Document],
    variants: Iterable[Scenario | tuple[str, Document]],
    catalog: Catalog,
    settings: Settings,
    talk: Talk = lambda text: None,
    *,
    gains: bool = True,
) -> Comparison:
    """As `compare`, of scenarios as they were read and of plan files with their names.

    Raises
    ------
    InputError
        If the base can't be understood.
    """

    def column(one: Scenario | tuple[str, Document]) -> _Column:
        found = _column(one, catalog, settings, talk)
        return replace(found, shown=_with_gains(found, catalog, settings) if gains else found.shown)

    first = column(base)
    if first.shown.status == "bad input":
        raise InputError(list(first.shown.problems))
    pricer = Pricer(catalog)
    metric = _metric(first.shown)
    columns = []
    for one in variants:
        try:
            columns.append(_with_cause(first, column(one), metric, pricer))
        except Exception as error:  # A fault of the program at one column must not cost the others.
            name, changes = (one.name, one.changes) if isinstance(one, Scenario) else (one[0], {})
            problems = (f"fault of the program, {type(error).__name__}: {error}",)
            columns.append(Variant(name=name, changes=changes, status="error", problems=problems))
    return Comparison(metric=metric, base=first.shown, variants=tuple(columns))


@dataclass(frozen=True)
class _Column:
    """A column, and whether its plan's numbers are what the catalog gives now."""

    shown: Variant
    holds: bool = True


def _values(base: Request | Document) -> dict[str, Any]:
    if isinstance(base, Document):
        return dict(base.request)
    return base.model_dump(mode="json", exclude_none=True)


def _column(one: Scenario | tuple[str, Document], catalog: Catalog, settings: Settings, talk: Talk) -> _Column:
    if not isinstance(one, Scenario):
        name, document = one
        fresh = freshness(document, catalog)
        shown = Variant(name=name, changes={}, status=document.status, notes=fresh.notes, plan=document)
        return _Column(shown, fresh.holds)
    if one.request is None:
        return _Column(Variant(name=one.name, changes=one.changes, status="bad input", problems=one.problems))
    talk(f"planning {one.name}")
    try:
        document = make_plan(one.request, catalog, settings=settings)
    except OutOfTimeError as error:
        return _Column(Variant(name=one.name, changes=one.changes, status="out of time", problems=(str(error),)))
    except InputError as error:
        return _Column(Variant(name=one.name, changes=one.changes, status="bad input", problems=tuple(error.problems)))
    return _Column(Variant(name=one.name, changes=one.changes, status=document.status, plan=document))


def _with_gains(column: _Column, catalog: Catalog, settings: Settings) -> Variant:
    plan = column.shown.plan
    if plan is None or plan.decision is None or plan.objective is None or not column.holds:
        return column.shown
    problem = resolve(read_request(plan.request), catalog)
    found = binding_gains(problem, plan, settings, published=False)
    rows = [
        Relaxed(name=row.constraint, change=row.change, gain=row.share, most=row.most, proved=row.proved)
        for row in found
    ]
    return column.shown.model_copy(update={"gains": tuple(rows)})


def _metric(base: Variant) -> str | None:
    if base.plan is None or base.plan.metrics is None:
        return None
    return metric_of(read_request(base.plan.request), base.plan.metrics)


def _with_cause(base: _Column, column: _Column, metric: str | None, pricer: Pricer) -> Variant:
    first, shown = base.shown, column.shown
    if shown.plan is None or shown.plan.decision is None:
        return shown
    if metric is None or first.plan is None or first.plan.decision is None:
        return shown.model_copy(update={"no_cause": f"{first.name} has no plan to compare with"})
    for each in (base, column):
        if not each.holds:
            return shown.model_copy(update={"no_cause": f"{each.shown.name}: {each.shown.notes[-1]}"})
    return shown.model_copy(update={"cause": _cause(first.plan, shown.plan, metric, pricer)})


def _cause(base: Document, other: Document, metric: str, pricer: Pricer) -> Cause:
    before, after = _state(base), _state(other)
    first = pricer.price(before)[0]
    last = pricer.price(after)[0]
    tokens = before.request.output_tokens
    if any(plan.metrics and MEASURES[metric].of(plan.metrics, tokens) is None for plan in (base, other)):
        metric = MEASURES[metric].instead or metric  # Nobody offers one of the GPUs.
    here = metric_value(metric, before.request, first.metrics) if first else None
    there = metric_value(metric, after.request, last.metrics) if last else None
    steps = attribute(before, after, metric, pricer) if first and last else []
    return Cause(
        metric=metric,
        before=here,
        after=there,
        ratio=there / here if here and there and here > 0 else None,
        difference=there - here if here is not None and there is not None else None,
        bounds_before=_bounds(base),
        bounds_after=_bounds(other),
        unchanged=_unchanged(before, after, metric, pricer),
        steps=tuple(steps),
        kept=tuple(_kept(part, before, after, metric, there, pricer) for part in _parts(before, after)),
    )


def _state(document: Document) -> State:
    if document.decision is None:
        raise ValueError("only a document with a decision has a state")
    return State(read_request(document.request), document.decision.services)


def _bounds(document: Document) -> Bounds:
    binding = tuple(row.name for row in document.constraints if row.binding)
    return Bounds(bounded_by=document.provenance.bounded_by, binding=binding)


def _unchanged(before: State, after: State, metric: str, pricer: Pricer) -> Unchanged:
    evaluation, why = pricer.price(State(after.request, before.services))
    if evaluation is None:
        return Unchanged(value=None, breaks=(), impossible=why)
    value = metric_value(metric, after.request, evaluation.metrics)
    return Unchanged(value=value, breaks=broken(evaluation), impossible=())


def _parts(before: State, after: State) -> tuple[str, ...]:
    return differing(before.services, after.services)


def _kept(part: str, before: State, after: State, metric: str, there: float | None, pricer: Pricer) -> Kept:
    """What the base's choice in one part would do in the other plan."""
    change = part_change(part, before.services, after.services)
    evaluation, why = pricer.price(State(after.request, with_part(after.services, before.services, part)))
    if evaluation is None:
        return Kept(change=change, value=None, ratio=None, breaks=(), impossible=why)
    value = metric_value(metric, after.request, evaluation.metrics)
    ratio = value / there if value is not None and there else None
    return Kept(change=change, value=value, ratio=ratio, breaks=broken(evaluation), impossible=())
