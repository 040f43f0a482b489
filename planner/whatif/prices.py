"""What every limit of a plan costs: its sensitivity curve until it stops helping, and what binds then.

All by solving again. A limit is first lifted: where that gains nothing, it costs nothing. Where it gains,
the smallest relaxation with the whole gain is sought between the limit now and what the unlimited plan
takes of it; every question on the way is a point of the curve. There, each of the other limits is
relaxed as well, and the first that gains is what binds next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from planner.plan import Metrics
from planner.whatif.asking import Answer, Solver
from planner.whatif.explained import CurvePoint, LimitPrice, Next
from planner.whatif.levers import Lever

HELPS = 1e-3
"""Relative: smaller gains are none."""
CLOSE = 1.1
"""The end of a curve is sought until both sides are this close."""
MOST_POINTS = 7


@dataclass(frozen=True)
class Lifted:
    """A limit and the best plan without it."""

    lever: Lever
    answer: Answer


def lifted(solver: Solver, found: Iterable[Lever]) -> list[Lifted]:
    """Lift each limit alone."""
    return [Lifted(lever, solver.ask(lever.lifted, f"the best plan with {lever.lifted_text}")) for lever in found]


def price_of(solver: Solver, mine: Lifted, everything: list[Lifted], now: Answer) -> LimitPrice:
    """The price of one limit, as far as time allows.

    Parameters
    ----------
    solver
        With time left.
    mine
        The limit.
    everything
        All limits, for what binds next.
    now
        The best plan with every limit as it is.
    """
    lever, answer = mine.lever, mine.answer
    gain = solver.gain(now.value or 0.0, answer.value)
    helps = gain is not None and gain > HELPS
    price = LimitPrice(
        name=lever.name,
        now=lever.now,
        amount=lever.amount,
        lifted=lever.lifted_text,
        status="helps" if helps else "nothing" if answer.proved or gain is not None else "undecided",
        gain=gain,
        proved=answer.proved,
        curve=(),
        until=None,
        until_text=None,
        not_yet=None,
        followed=True,
        next=None,
        next_decided=True,
    )
    if not helps and not answer.proved:
        return price.model_copy(update={"status": "undecided"})
    if not helps or lever.at is None or lever.amount is None:
        return price
    curve = _Curve(solver, lever, now, answer)
    curve.follow()
    until = curve.until
    update: dict[str, object] = {"curve": curve.points(), "not_yet": curve.not_yet, "followed": curve.followed}
    if until is not None:
        found, decided = _next(solver, mine, everything)
        update |= {"until": until, "until_text": lever.text(until), "next": found, "next_decided": decided}
    return price.model_copy(update=update)


class _Curve:
    """Points of one limit's curve, and the search for its end."""

    def __init__(self, solver: Solver, lever: Lever, now: Answer, lifted: Answer) -> None:
        self.solver, self.lever, self.now, self.lifted = solver, lever, now, lifted
        self.answers: dict[float, Answer] = {}
        self.until: float | None = None
        self.not_yet: float | None = None
        self.followed = True

    def follow(self) -> None:
        """Ask at some amounts, the end of the gain last."""
        if self.lever.taken is None:
            self._steps()
        else:
            self._search(self.lever.taken)

    def points(self) -> tuple[CurvePoint, ...]:
        """The plan and what was asked, the most relaxed last."""
        amount = self.lever.amount or 0.0
        rows = [self._point(amount, self.now)]
        rows += [self._point(a, answer) for a, answer in self.answers.items() if answer.value is not None]
        rows.sort(key=lambda row: row.limit, reverse=self.lever.less)
        # A plan that isn't proved and is worse than one at a tighter value tells nothing.
        kept: list[CurvePoint] = []
        for row in rows:
            if row.proved or not kept or not self._worse(row.value, kept[-1].value):
                kept.append(row)
        return tuple(kept)

    def _worse(self, value: float, than: float) -> bool:
        return value < than if self.solver.higher else value > than

    def _point(self, amount: float, answer: Answer) -> CurvePoint:
        taken = self.lever.taken
        metrics = answer.evaluation.metrics if answer.evaluation is not None else None
        return CurvePoint(
            limit=amount,
            text=self.lever.text(amount),
            value=answer.value or 0.0,
            taken=taken(metrics) if taken is not None and metrics is not None else self._hardware_taken(answer, amount),
            proved=answer.proved,
        )

    def _hardware_taken(self, answer: Answer, amount: float) -> float:
        """What a plan uses of the GPUs or the memory."""
        rows = answer.evaluation.constraints if answer.evaluation is not None else ()
        return next((row.value for row in rows if row.name == self.lever.name), amount)

    def _ask(self, amount: float) -> Answer:
        at = self.lever.at
        if at is None:
            raise ValueError("a restriction has no amount")
        if amount not in self.answers:
            told = f"the best plan with {self.lever.text(amount)} instead of {self.lever.now}"
            self.answers[amount] = self.solver.ask(at(amount), told)
        return self.answers[amount]

    def _whole_gain(self, answer: Answer) -> bool | None:
        """Whether a plan is as good as the unlimited one; None where that isn't decided."""
        if answer.value is None or self.lifted.value is None:
            return None
        missing = self.solver.loss(self.lifted.value, answer.value)
        if missing is not None and missing <= HELPS:
            return True
        return False if answer.proved else None

    def _steps(self) -> None:
        """Hardware: a few multiples; the end is where later ones gain nothing."""
        steps = self.lever.steps
        self.answers[steps[-1]] = self.lifted
        for amount in steps[:-1]:
            decided = self._whole_gain(self._ask(amount))
            if decided and self.until is None:
                self.until = amount
            elif decided is False:
                self.not_yet = amount
            self.followed = self.followed and decided is not None

    def _search(self, taken: Callable[[Metrics], float]) -> None:
        """The smallest relaxation with the whole gain, between the limit now and what the unlimited plan takes."""
        if self.lifted.evaluation is None or self.lever.amount is None or not self.lifted.proved:
            self.followed = False
            return
        fails, holds = float(self.lever.amount), self._typed(taken(self.lifted.evaluation.metrics))
        if (holds <= fails) != self.lever.less:
            return
        guess = self.lever.next_unit
        for _ in range(MOST_POINTS):
            if guess is None or not _between(fails, guess, holds):
                guess = self._middle(fails, holds)
            if self._close(fails, holds) or not _between(fails, guess, holds):
                break
            answer = self._ask(guess)
            decided = self._whole_gain(answer)
            if decided is None:
                break
            if decided and answer.evaluation is not None:
                # That plan takes less than was allowed; it is possible there, too.
                reached = self._typed(taken(answer.evaluation.metrics))
                holds = reached if _between(fails, reached, guess) else guess
            else:
                fails = guess
            guess = None
        self.followed = bool(self._whole_gain(self._ask(holds)))
        if self.followed:
            self.until, self.not_yet = holds, fails

    def _typed(self, amount: float) -> float:
        """An amount as one would type it, on the relaxed side: four digits, or a whole number."""
        if self.lever.whole:
            return float(math.floor(amount) if self.lever.less else math.ceil(amount))
        if amount <= 0:
            return amount
        unit = 10.0 ** (math.floor(math.log10(amount)) - 3)
        return float(f"{math.ceil(amount / unit * (1.0 - 1e-9)) * unit:.4g}")

    def _middle(self, fails: float, holds: float) -> float:
        return self._typed(math.sqrt(max(fails, 1e-6) * max(holds, 1e-6)))

    def _close(self, fails: float, holds: float) -> bool:
        if self.lever.whole:
            return abs(fails - holds) <= 1
        low, high = sorted((fails, holds))
        return high <= max(low, 1e-9) * CLOSE


def _between(one: float, amount: float, other: float) -> bool:
    low, high = sorted((one, other))
    return low < amount < high


def _next(solver: Solver, mine: Lifted, everything: list[Lifted]) -> tuple[Next | None, bool]:
    """The first other limit that gains where this one is lifted, and whether that is decided.

    Those that bind there are asked first, GPUs and restrictions last.
    """
    value, evaluation = mine.answer.value, mine.answer.evaluation
    if value is None or evaluation is None:
        return None, False
    binding = {row.name for row in evaluation.constraints if row.binding}
    others = [other.lever for other in everything if other.lever.name != mine.lever.name]
    others.sort(key=lambda lever: (lever.amount is None, lever.name == "gpus", lever.name not in binding))
    decided = True
    for lever in others:
        told = f"what binds after {mine.lever.now}: {lever.lifted_text}"
        answer = solver.ask(mine.lever.lifted.also(lever.lifted), told)
        gain = solver.gain(value, answer.value)
        if gain is not None and gain > HELPS:
            return Next(name=lever.name, change=lever.lifted_text, gain=gain, proved=answer.proved), decided
        decided = decided and answer.proved
    return None, decided
