"""Measure what is missing, keep every finished point, and stop where nothing can be believed."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.calibrate.device import Backend, Sample, Unmeasurable
from planner.calibrate.rules import MOST_SPREAD, refusal
from planner.calibrate.state import Done, State
from planner.calibrate.sweeps import Point, estimate_s, sweep
from planner.errors import InputError
from planner.measured.operations import Peak

SECONDS = {True: 0.1, False: 0.4}
"""Quick or not -> time to spend on a point [s]."""
LONGEST_S = {True: 0.5, False: 5.0}
"""Quick or not -> longest execution of a point [s]."""
TRIES = 3
"""Measurements of a point whose repetitions spread, each longer."""
CHECK_EVERY_S = 5.0
"""Time between two looks at the device's health [s]."""
PAUSES = 6
PAUSE_S = 10.0
"""Waits for a device that is busy or throttled, before the run stops [s]."""
OVERHEAD_S = 0.1
"""Time to allocate a point's inputs and to begin [s]."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure."""

    operations: tuple[str, ...]
    quick: bool = False
    force: bool = False
    """Measure in spite of complaints, and use unstable times."""


@dataclass
class Watch:
    """What a run tells while it goes on."""

    begin: Callable[[str, int, float], None] = lambda operation, points, seconds: None
    """An operation, its points that are missing, and roughly how long they take [s]."""
    advance: Callable[[Point, Done], None] = lambda point, done: None
    say: Callable[[str], None] = lambda text: None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    checked_at: float = field(default=0.0, init=False)


def points_of(operation: str, state: State, *, quick: bool) -> list[Point]:
    """The points of an operation on the device of a state: the same in every run."""
    device = state.device
    return sweep(
        operation,
        quick=quick,
        gpus=device.count,
        rates=state.rates,
        free_bytes=min(device.free_bytes, device.host_memory_bytes / 4 if operation == "copies" else float("inf")),
        longest_s=LONGEST_S[quick],
    )


def refuse_unhealthy(backend: Backend, *, force: bool) -> tuple[str, ...]:
    """Check a device before anything is measured; return what was forced.

    Raises
    ------
    InputError
        If it is busy or throttled, with advice.
    """
    complaints = backend.complaints(running=False)
    if complaints and not force:
        raise InputError([*complaints, "nothing was measured; add --force to measure all the same"])
    return tuple(complaints)


def measure(backend: Backend, state: State, options: Options, peak: Peak | None, watch: Watch) -> list[str]:
    """Measure the points that a state lacks; return why operations were left out.

    Raises
    ------
    InputError
        If the device stays busy or throttled; what was measured until then is kept.
    """
    despite = refuse_unhealthy(backend, force=options.force)
    watch.checked_at = watch.clock()
    missing_of = {operation: _missing(operation, state, options) for operation in options.operations}
    everything = [at for missing in missing_of.values() for at in missing]
    if everything:
        kept = f"; {len(state.done)} are there already" if state.done else ""
        minutes = _costs_s(everything, state, options) / 60.0
        watch.say(f"{len(everything)} points to measure, about {max(minutes, 1.0):.0f} min{kept}")
    problems: list[str] = []
    for operation, missing in missing_of.items():
        if not missing:
            continue
        wrong, doubts = backend.check(operation), backend.doubts(operation)
        if wrong or (doubts and not options.force):
            problems += [f"{operation}: {text}" for text in wrong]
            problems += [f"{operation}: {text}; or add --force" for text in doubts]
            continue
        watch.begin(operation, len(missing), _costs_s(missing, state, options))
        for at in missing:
            despite = _healthy(backend, state, options, watch, despite)
            done = _one(backend, state, at, options, peak, (*despite, *doubts))
            state.record(done)
            watch.advance(at, done)
    return problems


def _missing(operation: str, state: State, options: Options) -> list[Point]:
    """Points that aren't there, and those that were refused for their spread, which may have met a bad moment."""
    points = points_of(operation, state, quick=options.quick)
    missing = [at for at in points if at.key not in state.done]
    if options.force:
        return missing
    return missing + [at for at in points if at.key in state.done and _unstable(state.done[at.key])]


def _unstable(done: Done) -> bool:
    return done.refused is not None and done.refused.startswith("unstable")


def _costs_s(points: Sequence[Point], state: State, options: Options) -> float:
    least = SECONDS[options.quick]
    return sum(OVERHEAD_S + max(least, 5.0 * estimate_s(at, state.rates)) for at in points)


def _one(
    backend: Backend, state: State, at: Point, options: Options, peak: Peak | None, despite: Sequence[str]
) -> Done:
    best: Sample | None = None
    today = dt.date.today().isoformat()
    for attempt in range(TRIES):
        try:
            sample = backend.measure(at, SECONDS[options.quick] * 2.0**attempt)
        except Unmeasurable as error:
            if best is None:
                return Done(at, 0.0, 0.0, f"not measurable: {error}", tuple(despite), today)
            break
        if best is None or sample.spread < best.spread:
            best = sample
        if best.spread <= MOST_SPREAD:
            break
    assert best is not None  # noqa: S101 - the first attempt gave a sample or returned
    reason = refusal(at, best, peak, state.device.cache_bytes)
    if reason is not None and options.force and reason.startswith("unstable"):
        return Done(at, best.time_s, best.spread, None, (*despite, reason), today)
    return Done(at, best.time_s, best.spread, reason, tuple(despite), today)


def _healthy(
    backend: Backend, state: State, options: Options, watch: Watch, despite: tuple[str, ...]
) -> tuple[str, ...]:
    """Wait for a healthy device; what spoke against it, where the user forces the run."""
    if watch.clock() - watch.checked_at < CHECK_EVERY_S:
        return despite
    complaints: list[str] = []
    for pause in range(PAUSES + 1):
        complaints = backend.complaints(running=pause == 0)
        watch.checked_at = watch.clock()
        if not complaints or options.force:
            return tuple(complaints)
        if pause < PAUSES:
            watch.say(f"waiting {PAUSE_S:.0f} s: {complaints[0]}")
            watch.sleep(PAUSE_S)
    raise InputError(
        [
            *complaints,
            f"stopped after {len(state.done)} points, which are kept; run the same command again to go on, "
            "or add --force to measure all the same",
        ]
    )
