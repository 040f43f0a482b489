"""What a request holds a plan to, in the user's words: its limits, and the choices that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.limits import LEAST_PERSONAL_FIRST, Limit
from planner.plan import Relaxation
from planner.request import Request

FREE: dict[str, Any] = {"techniques": "published", "engine": "any", "weights": "any", "pin": None, "spare": 0}
"""Restriction -> the request's field without it."""


@dataclass(frozen=True)
class Stated:
    """A limit or a restriction as the user wrote it, and what the request is without it."""

    field: str
    option: str
    shown: str
    lifted: dict[str, Any]
    limit: Limit | None = None
    """None for a restriction, and for the GPUs."""

    @property
    def text(self) -> str:
        """Option and amount: ``--max-latency 200ms``."""
        return f"{self.option} {self.shown}"

    def row(self, to: str | None, note: str | None = None) -> Relaxation:
        """What this would have to be; None: it can't repair the request alone."""
        return Relaxation.model_validate({"limit": self.option, "from": self.shown, "to": to, "note": note})


def stated(request: Request) -> list[Stated]:
    """The limits and restrictions that a request states, the least personal first.

    ``--techniques deployable`` isn't among them: what no engine ships can't be deployed. A list of
    techniques is.
    """
    amounts = [(limit, amount) for limit in LEAST_PERSONAL_FIRST if (amount := limit.amount(request)) is not None]
    limits = [
        Stated(limit.field, limit.option, limit.unit.text(amount), {limit.field: limit.lifted}, limit)
        for limit, amount in amounts
    ]
    choices = [
        _choice(field, str(shown))
        for field in FREE
        if (shown := getattr(request, field)) not in (None, "any", "deployable", "published", 0)
    ]
    options = [one for one in limits if one.limit is not None and one.limit.of_options]
    return [*options, *choices, *(one for one in limits if one not in options)]


def _choice(field: str, shown: str) -> Stated:
    return Stated(field, f"--{field}", shown, {field: FREE[field]})


def deployable(request: Request) -> Stated | None:
    """The default choice of techniques, which published ones could repair; None where another is asked for."""
    return _choice("techniques", "deployable") if request.techniques == "deployable" else None


def changes_without(limits: Sequence[Stated]) -> dict[str, Any]:
    """A request's changes that lift some limits."""
    changes: dict[str, Any] = {}
    for limit in limits:
        changes.update(limit.lifted)
    return changes
