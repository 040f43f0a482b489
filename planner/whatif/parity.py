"""Cost parity: what an interaction costs over context length, uncompressed and with techniques.

The north star of the source paper is a context of 1M tokens as cheap as one of 4K. Every cost here is
that of a plan proved cheapest, and every claim about a bound comes with a plan without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from catalog.load import Catalog, open_catalog
from catalog.units import format_tokens, parse_tokens
from planner.errors import InputError
from planner.plan import Document
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.solver import Settings
from planner.whatif.crossings import next_context, with_crossings
from planner.whatif.movers import Change, changes
from planner.whatif.outcome import Outcome
from planner.whatif.parallel import run_parallel
from planner.whatif.parity_document import (
    Mover,
    Movers,
    ParityDocument,
    ParityPoint,
    Series,
    SeriesName,
)
from planner.whatif.time_shares import time_shares

CONTEXTS = (4_000, 32_000, 128_000, 256_000, 512_000, 1_000_000)
"""By default; and, for a model with a longer window, `MORE` up to it [tokens]."""
MORE = (2_000_000, 4_000_000, 10_000_000)
TECHNIQUES: dict[SeriesName, str] = {
    "uncompressed": "none",
    "deployable": "deployable",
    "published": "published",
}
"""Series -> ``--techniques``."""
ROUNDS = 5
"""Contexts that are planned for each crossing, at most."""
HELPS = 0.01
"""Relative: a change that saves less doesn't count."""

Told = Callable[[int, int, str], None]
"""Called with plans done, plans to do and what they are for."""


def read_contexts(text: str) -> tuple[int, ...]:
    """Read ``4K,32K,1M``, in any order.

    Raises
    ------
    InputError
        With every part that is no context.

    Examples
    --------
    >>> read_contexts("32K,4K")
    (4000, 32000)
    """
    found, problems = set(), []
    for part in text.split(","):
        try:
            tokens = parse_tokens(part.strip())
        except ValueError as error:
            problems.append(f"--contexts: {error}")
            continue
        if not 1 <= tokens <= 10**9:
            problems.append(f"--contexts: {part.strip()} is out of range; use 1 to 1000M tokens")
        found.add(tokens)
    if problems:
        raise InputError(problems)
    return tuple(sorted(found))


def parity(
    request: Request,
    contexts: Iterable[int] | None = None,
    catalog: Catalog | None = None,
    *,
    details: bool = True,
    jobs: int | None = None,
    told: Told | None = None,
) -> ParityDocument:
    """Price an interaction over context length: uncompressed, deployable and published, against 4K.

    Parameters
    ----------
    request
        The question. Its context isn't used; its objective and its techniques have to be the defaults.
    contexts
        Contexts to plan; None: `CONTEXTS`, and `MORE` up to the model's window [tokens].
    catalog
        Facts; None: the built-in ones under the user's overlay.
    details
        Also find where the ratio to 4K passes 1.1, 2 and 10, and what would move it.
    jobs
        Processes that plan; None: one per core.
    told
        Called after each plan.

    Returns
    -------
    ParityDocument
        With every plan in it.

    Raises
    ------
    InputError
        If the request can't be understood.
    """
    study = Study.of(request, contexts, catalog or open_catalog(), jobs, told)
    document = study.grid()
    return study.details(document) if details else document


@dataclass
class Study:
    """The plans of one cost parity."""

    problem: Problem
    """At the shortest context."""
    unit_price: bool
    """Whether nobody prices the GPU, so that a price of 1 USD/h stands for GPU-hours."""
    contexts: tuple[int, ...]
    jobs: int | None
    told: Told | None
    outcomes: dict[tuple[SeriesName, int], Outcome] = field(default_factory=dict)

    @staticmethod
    def of(
        request: Request, contexts: Iterable[int] | None, catalog: Catalog, jobs: int | None, told: Told | None
    ) -> Study:
        """Look the request up.

        Raises
        ------
        InputError
            If it can't be understood, or asks for what a series decides.
        """
        given = None if contexts is None else tuple(sorted(set(contexts)))
        problems = []
        if request.techniques != "deployable":
            problems.append("--techniques: plan parity has its own series; leave it out")
        if request.objective != "throughput":
            problems.append("--objective: plan parity minimises cost; leave it out")
        if given is not None and not given:
            problems.append("--contexts: name at least one, for example 4K,128K,1M")
        if problems:
            raise InputError(problems)
        longest = request.model_copy(update={"ctx": given[-1] if given else CONTEXTS[-1]})
        model = request.model or resolve(longest, catalog).model_id
        shortest = given[0] if given else CONTEXTS[0]
        asked = request.model_copy(update={"ctx": shortest, "model": model, "objective": "cost"})
        problem = resolve(asked, catalog)
        unit_price = problem.usd_per_gpu_hour is None
        if unit_price:
            problem = resolve(asked.model_copy(update={"usd_per_gpu_hour": 1.0}), catalog)
        found = given or (*CONTEXTS, *(tokens for tokens in MORE if tokens <= problem.window_tokens))
        return Study(problem, unit_price, found, jobs, told)

    # ------------------------------------------------------------- planning

    def _asked(self, series: SeriesName, ctx: int) -> Request:
        return self.problem.request.model_copy(update={"ctx": ctx, "techniques": TECHNIQUES[series]})

    def _run(self, requests: Sequence[Request], what: str) -> Iterable[Outcome]:
        if not requests:
            return
        # The longest contexts take longest: they begin, so that no process waits for the other.
        order = sorted(range(len(requests)), key=lambda i: -requests[i].ctx)
        ordered = [requests[i] for i in order]
        catalog = self.problem.catalog
        for done, outcome in enumerate(
            run_parallel(ordered, self.jobs, catalog=catalog, settings=Settings(workers=1), explained=False), 1
        ):
            if self.told is not None:
                self.told(done, len(requests), what)
            yield replace(outcome, index=order[outcome.index])

    def grid(self) -> ParityDocument:
        """Plan every series at every context.

        Raises
        ------
        InputError
            If nothing can be planned because the request makes no sense at any context.
        """
        keys = [(series, ctx) for ctx in self.contexts for series in TECHNIQUES]
        for outcome in self._run([self._asked(*key) for key in keys], "contexts"):
            self.outcomes[keys[outcome.index]] = outcome
        errors = {outcome.reason or "" for outcome in self.outcomes.values() if outcome.status == "error"}
        if errors and all(outcome.status == "error" for outcome in self.outcomes.values()):
            raise InputError(sorted(errors))
        return self._document()

    def details(self, document: ParityDocument) -> ParityDocument:
        """Find where each series passes each threshold, and what would move the cost at the longest context."""
        target = max((c for c in self.contexts if c <= self.problem.window_tokens), default=self.contexts[-1])
        wanted = changes(self.problem, self._asked("deployable", target), own_price=not self.unit_price)
        moved = self._round(document, [change.request for change in wanted])
        for _ in range(ROUNDS - 1):
            document = self._document()
            if not any(True for one in document.series for _ in next_context(one)):
                break
            self._round(document, [])
        document = self._document()
        series = tuple(with_crossings(one) for one in document.series)
        published = Change("published techniques (--techniques published)", self._asked("published", target))
        rows = [self._mover(published, self.outcomes["published", target])]
        rows += [self._mover(change, moved.get(index)) for index, change in enumerate(wanted)]
        return document.model_copy(update={"series": series, "movers": self._movers(target, rows)})

    def _round(self, document: ParityDocument, more: Sequence[Request]) -> dict[int, Outcome]:
        """Plan the next context of each crossing, and some more requests, all at once; returns those."""
        keys = [(one.name, ctx) for one in document.series for ctx in next_context(one)]
        keys = list(dict.fromkeys(keys))
        found = {}
        for outcome in self._run([*more, *(self._asked(*key) for key in keys)], "crossings and changes"):
            if outcome.index < len(more):
                found[outcome.index] = outcome
            else:
                self.outcomes[keys[outcome.index - len(more)]] = outcome
        return found

    # ------------------------------------------------------------- telling

    def _document(self) -> ParityDocument:
        series = tuple(
            Series(
                name=name,
                techniques=techniques,
                points=tuple(
                    self._point(ctx, outcome)
                    for (of, ctx), outcome in sorted(self.outcomes.items(), key=lambda item: item[0][1])
                    if of == name
                ),
            )
            for name, techniques in TECHNIQUES.items()
        )
        request = self.problem.request.model_dump(mode="json", exclude_none=True, exclude={"ctx", "techniques"})
        return ParityDocument(
            request=request,
            model=self.problem.model_name,
            window_tokens=self.problem.window_tokens,
            unit="GPU-hours" if self.unit_price else "USD",
            base_cost=_base(series),
            contexts=self.contexts,
            series=series,
            notes=self._notes(),
        )

    def _point(self, ctx: int, outcome: Outcome) -> ParityPoint:
        plan = outcome.document if outcome.planned else None
        return ParityPoint(
            ctx=ctx,
            beyond_window=ctx > self.problem.window_tokens,
            cost=cost_of(plan),
            ratio=ratio_of(plan),
            reason=None if plan else reason(outcome),
            shares=time_shares(plan) if plan else None,
            plan=plan,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = list(self.problem.assumptions)
        if self.unit_price:
            name = self.problem.cluster.hardware.name
            notes.append(f"nobody in the catalog prices {name}: costs are GPU-hours; give --usd-per-gpu-hour for USD")
        if any(outcome.status == "feasible" for outcome in self.outcomes.values()):
            notes.append("some plans aren't proved cheapest: time ran out for them")
        if any(ctx > self.problem.window_tokens for ctx in self.contexts):
            window = format_tokens(self.problem.window_tokens)
            notes.append(f"* beyond the {window} tokens that {self.problem.model_name} holds")
        return tuple(notes)

    def _movers(self, target: int, rows: Sequence[Mover]) -> Movers:
        now = self.outcomes["deployable", target].document
        plan = now if self.outcomes["deployable", target].planned else None
        return Movers(series="deployable", ctx=target, cost=cost_of(plan), ratio=ratio_of(plan), rows=tuple(rows))

    def _mover(self, change: Change, outcome: Outcome | None) -> Mover:
        ctx = change.request.ctx
        now = self.outcomes["deployable", ctx].document
        plan = outcome.document if outcome is not None and outcome.planned else None
        before, after = cost_of(now), cost_of(plan)
        cheaper = after is not None and (before is None or after < before * (1.0 - HELPS))
        return Mover(
            change=change.words,
            cost=after,
            ratio=ratio_of(plan),
            helps=cheaper,
            reason=None if plan else reason(outcome) if outcome else None,
            plan=plan,
        )


def _base(series: Sequence[Series]) -> float | None:
    """The cost that ratios are to, as any plan says it."""
    for one in series:
        for point in one.points:
            if point.cost is not None and point.ratio:
                return point.cost / point.ratio
    return None


def cost_of(plan: Document | None) -> float | None:
    """What an interaction of a plan costs."""
    return None if plan is None or plan.metrics is None else plan.metrics.usd_per_interaction


def ratio_of(plan: Document | None) -> float | None:
    """How many times an interaction at 4K that is."""
    return None if plan is None or plan.metrics is None else plan.metrics.cost_ratio_vs_4k


def reason(outcome: Outcome) -> str:
    """Why there is no plan, in a few words."""
    if outcome.status == "infeasible":
        return "nothing fits, or keeps the limits; plan --ctx with the same options says why"
    if outcome.status == "out of time":
        return "no plan in time"
    return outcome.reason or outcome.status


def as_given(values: dict[str, Any]) -> dict[str, Any]:
    """The options of a request with a context for those that have to have one.

    Raises
    ------
    InputError
        If a context was given.
    """
    if values.get("ctx") is not None:
        raise InputError("--ctx: plan parity goes over many contexts; name them with --contexts 4K,128K,1M")
    return {**values, "ctx": str(CONTEXTS[0])}
