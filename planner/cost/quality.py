"""Quality: what techniques are expected to lose, stacked, and what of it a budget allows.

A technique keeps ``1 - loss`` of a score, so retentions multiply and ``-ln(1 - loss)`` adds up. With
independent priors the stack has mean ``sum(mu')`` and variance ``sum(sigma'^2)``; a budget B at
confidence c allows it if ``sum(mu') + z(c) sqrt(sum(sigma'^2)) <= -ln(1 - B)``.

All losses are relative to the same checkpoint in bf16 without techniques at the same context.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

from catalog.schema import Loss, Prior

STD_GROWTH_PER_DOUBLING = 0.5
"""Beyond the longest context behind a prior, each doubling adds half of its standard deviation (judgement)."""

WINDOW_LOSS_PER_DOUBLING = 0.08
"""Mean relative loss for each doubling of the context beyond the window of the training, by a method that extends it.

Derived from RULER averages (Qwen3 with YaRN from 32K to 128K loses 10 to 15 % per doubling, Llama 3.1
within its window 3 to 8 %): the excess is about 8 %.
"""
WINDOW_STD_PER_DOUBLING = 0.06
UNEXTENDED_LOSS_PER_DOUBLING = 0.39
"""The same without such a method.

Derived from RULER of gpt-oss-120b, trained for 128K: 52.3, 46.7 and 22.3 at 256K, 512K and 1M (NVIDIA's model card
of Nemotron 3 Super); with 100 at its window that is 48, 32 and 39 % per doubling.
"""
UNEXTENDED_STD_PER_DOUBLING = 0.15


@dataclass(frozen=True, slots=True)
class LogLoss:
    """A loss on the scale where stacking adds: mean ``-ln(1 - mu)`` and its variance."""

    mean: float = 0.0
    variance: float = 0.0

    def __add__(self, other: LogLoss) -> LogLoss:
        return LogLoss(self.mean + other.mean, self.variance + other.variance)

    @property
    def loss_mean(self) -> float:
        """Relative loss at the mean, a fraction."""
        return 1.0 - math.exp(-self.mean)

    def loss_at(self, confidence: float) -> float:
        """Relative loss that isn't exceeded with this confidence, a fraction."""
        return 1.0 - math.exp(-(self.mean + z_score(confidence) * math.sqrt(self.variance)))


def z_score(confidence: float) -> float:
    """Quantile of the standard normal; 0 at 0.5.

    >>> round(z_score(0.8), 4)
    0.8416
    """
    return NormalDist().inv_cdf(confidence)


def log_budget(loss: float) -> float:
    """A budget on the scale where losses add.

    >>> round(log_budget(0.05), 5)
    0.05129
    """
    return -math.log1p(-loss)


def from_fractions(mean: float, std: float) -> LogLoss:
    """Put a relative loss and its standard deviation on the adding scale.

    A negative mean (a technique that looked better than none) counts as no loss: noise in one
    benchmark must not pay for another technique's loss.
    """
    mean = min(max(mean, 0.0), 0.99)
    spread = std / (1.0 - mean)
    return LogLoss(-math.log1p(-mean), spread * spread)


def prior_loss(prior: Prior, task: str, rounds: int, tokens: int) -> LogLoss:
    """The loss of one technique for a task at a context.

    Parameters
    ----------
    prior
        Of the technique at its strength.
    task
        ``mixed`` or a task of its own.
    rounds
        With more than one, the cache is reused for other questions: where the technique has a
        multi-turn prior, the worse of the two counts.
    tokens
        Context that is asked for; beyond the longest one behind the prior the spread grows [tokens].
    """
    by_task: dict[str, Loss] = {str(name): loss for name, loss in prior.by_task.items()}
    chosen = by_task.get(task, prior)
    several = by_task.get("multiturn")
    if rounds > 1 and several is not None and several.mean_pct > chosen.mean_pct:
        chosen = several
    std = chosen.std_pct / 100.0
    measured = getattr(prior, "context_tokens", None)
    if measured is not None and tokens > measured:
        std *= 1.0 + STD_GROWTH_PER_DOUBLING * math.log2(tokens / measured)
    return from_fractions(chosen.mean_pct / 100.0, std)


def window_loss(tokens: int, trained_tokens: int, reach_tokens: int | None = None) -> LogLoss:
    """What running beyond the trained window is expected to cost; nothing inside it.

    Parameters
    ----------
    tokens
        Context [tokens].
    trained_tokens
        Window of the training [tokens].
    reach_tokens
        Longest context by a method that extends it; None: no method [tokens].
    """
    if tokens <= trained_tokens:
        return LogLoss()
    reach = max(trained_tokens, reach_tokens or 0)
    by_method = math.log2(min(tokens, reach) / trained_tokens)
    without = math.log2(max(tokens, reach) / reach)
    kept = (1.0 - WINDOW_LOSS_PER_DOUBLING) ** by_method * (1.0 - UNEXTENDED_LOSS_PER_DOUBLING) ** without
    std = WINDOW_STD_PER_DOUBLING * by_method + UNEXTENDED_STD_PER_DOUBLING * without
    return from_fractions(1.0 - kept, max(std, WINDOW_STD_PER_DOUBLING))


def stack(losses: Iterable[LogLoss]) -> LogLoss:
    """Losses of techniques, and of their interactions, on top of each other."""
    return sum(losses, LogLoss())
