"""Plans next to each other, as ``plan compare --format json`` prints them (``planner/schema/compare.json``)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.plan import Document

COMPARE_SCHEMA_VERSION = 2


class Part(BaseModel):
    """Part of a document: nothing unknown in it, and nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Change(Part):
    """One field of a request or part of a decision, before and after."""

    of: Literal["request", "decision"]
    name: str
    from_: Any = Field(alias="from")
    to: Any

    @staticmethod
    def of_what(of: Literal["request", "decision"], name: str, before: Any, after: Any) -> Change:
        """A change by its two values."""
        return Change.model_validate({"of": of, "name": name, "from": before, "to": after})


class Step(Part):
    """A step from the base to a variant: what changed, and what that alone did."""

    changes: tuple[Change, ...]
    """More than one where the first can't run without the others."""
    before: float | None
    after: float | None
    ratio: float | None
    """``after / before``; the product over all steps is the whole ratio."""
    difference: float | None
    """``after - before``; the sum over all steps is the whole difference."""
    share: float | None
    """Of the logarithm of the whole ratio; 1 over all steps. None where the whole ratio is 1."""
    breaks: tuple[str, ...]
    """Limits that the state after this step breaks: it is priced, but isn't a plan."""
    together_because: tuple[str, ...]
    """Why the first change can't run alone."""


class Bounds(Part):
    """What holds a plan back."""

    bounded_by: str | None
    """The bound that throughput meets first."""
    binding: tuple[str, ...]
    """Names of the constraints without slack."""


class Kept(Part):
    """What one of the base's choices would do in the variant's plan, all else as planned."""

    change: Change
    value: float | None
    """Of the compared metric; None where it can't run."""
    ratio: float | None
    """That over the variant's value."""
    breaks: tuple[str, ...]
    impossible: tuple[str, ...]
    """Why it can't run there."""


class Unchanged(Part):
    """The base's whole decision under the variant's request."""

    value: float | None
    breaks: tuple[str, ...]
    impossible: tuple[str, ...]


class Cause(Part):
    """Why a variant differs from the base."""

    metric: str
    """The comparison's; GPU hours instead of USD where one of the GPUs has no price."""
    before: float | None
    after: float | None
    ratio: float | None
    difference: float | None
    bounds_before: Bounds
    bounds_after: Bounds
    unchanged: Unchanged
    steps: tuple[Step, ...]
    kept: tuple[Kept, ...]


class Relaxed(Part):
    """One unit more of a limit that binds, with the best plan under it."""

    name: str
    """Of the constraint."""
    change: str
    gain: float
    """Share by which the variant's own objective gets better."""
    most: float | None = None
    """By which it gets better at most; None where nothing is known."""
    proved: bool
    """False: at least ``gain`` and at most ``most``."""


class Variant(Part):
    """One column of a comparison."""

    name: str
    changes: dict[str, Any]
    """Overrides as they were written; None takes a limit away. Empty for a plan file."""
    status: Literal["optimal", "feasible", "infeasible", "evaluated", "out of time", "bad input", "error"]
    problems: tuple[str, ...] = ()
    """Why there is no plan, where the request couldn't be understood, time ran out, or the program failed (error)."""
    notes: tuple[str, ...] = ()
    """What a reader must know of a plan from a file: planned with other facts, numbers that no longer hold."""
    plan: Document | None = None
    gains: tuple[Relaxed, ...] = ()
    """What a unit more of each binding limit would buy; those that time allowed."""
    cause: Cause | None = None
    no_cause: str | None = None
    """Why no cause is told, where both have a plan."""


class Comparison(Part):
    """The base and its variants."""

    schema_version: int = COMPARE_SCHEMA_VERSION
    metric: str | None
    """What is attributed: the base's objective. None where the base has no plan."""
    base: Variant
    variants: tuple[Variant, ...]
