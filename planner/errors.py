"""The exceptions of the planner.

    PlannerError            base of everything that is told to the user without a traceback
      InputError            bad usage or bad input: exit 2; all problems together

An infeasible request is an answer (exit 3), not an exception.
"""

from __future__ import annotations

from collections.abc import Sequence


class PlannerError(Exception):
    """Base of the errors that a user can do something about."""


class InputError(PlannerError):
    """The request, a file or an option can't be used; says what is wrong, where, and what to do."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
