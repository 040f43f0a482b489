"""Plan many requests: in parallel, resumable, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from catalog.load import Catalog, open_catalog
from planner.errors import InputError
from planner.request import Request
from planner.search.solver import Settings
from planner.whatif.outcome import Outcome, Task
from planner.whatif.parallel import run_parallel
from planner.whatif.sweep_journal import Journal


class Runner(Protocol):
    """Where points are planned: `run_parallel` on this machine, or a distributed engine."""

    def __call__(
        self,
        requests: Sequence[Request],
        jobs: int | None = None,
        *,
        catalog: Catalog | None = None,
        settings: Settings | None = None,
    ) -> Iterator[Outcome]:
        """Yield one outcome per request, ``index`` being its place in ``requests``."""
        ...


def sweep(
    requests: Iterable[Request],
    catalog: Catalog | None = None,
    *,
    jobs: int | None = None,
    settings: Settings | None = None,
    journal: Path | None = None,
    run: Runner = run_parallel,
) -> Iterator[Outcome]:
    """Plan many requests and yield each outcome as it is finished.

    Parameters
    ----------
    requests
        The points.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    jobs
        Processes; None: one per core.
    settings
        Of the solver at each point; None: one solver worker and 60 s.
    journal
        A file that keeps every finished point. If it exists and belongs to this sweep, its points are
        yielded first, and only the others are planned. None: nothing is kept. Nobody deletes it but you.
    run
        Where the points are planned.

    Yields
    ------
    Outcome
        Exactly once per point, in the order in which they are finished; ``index`` is its place in
        ``requests``. A point that can't be planned is an outcome too: look at ``status``.

    Raises
    ------
    InputError
        If the journal belongs to another sweep, or ``jobs`` is less than 1.

    Examples
    --------
    >>> from planner import Request, sweep
    >>> asked = [Request(ctx=c, gpus="1xA100", model="qwen3-0.6b", efficiency="peak") for c in ("4K", "8K")]
    >>> for outcome in sweep(asked, jobs=2):  # doctest: +SKIP
    ...     print(outcome.request.ctx, outcome.status, outcome.document.metrics.users)
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    points = tuple(requests)
    facts = catalog or open_catalog()
    kept = None if journal is None else Journal(journal, points, Task.of(facts, settings))
    return _sweep(points, kept, lambda rest: run(rest, jobs, catalog=facts, settings=settings))


def _sweep(
    points: Sequence[Request], journal: Journal | None, run: Callable[[Sequence[Request]], Iterator[Outcome]]
) -> Iterator[Outcome]:
    try:
        if journal is not None:
            yield from journal.restored()
        finished = journal.finished if journal else set()
        missing = [index for index in range(len(points)) if index not in finished]
        for outcome in run([points[index] for index in missing]) if missing else ():
            placed = replace(outcome, index=missing[outcome.index])
            if journal is not None:
                journal.add(placed)
            yield placed
    finally:
        if journal is not None:
            journal.close()
