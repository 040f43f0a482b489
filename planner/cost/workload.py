"""The session that is priced: a document, then rounds of question, answer and reading."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """One user session, and the lengths at which its parts are priced.

    Parameters
    ----------
    ctx_tokens
        The document that opens the session [tokens].
    rounds
        Questions per session.
    question_tokens, output_tokens
        Of each round [tokens].
    think_s
        Reading time between an answer and the next question [s].
    shared_prefix_tokens
        Leading tokens that all sessions have in common, stored and prefilled once [tokens].
    growth
        Whether the cache grows by each question and answer; without, every length is ``ctx_tokens``.
    """

    ctx_tokens: int
    rounds: int = 5
    question_tokens: int = 100
    output_tokens: int = 250
    think_s: float = 60.0
    shared_prefix_tokens: int = 0
    growth: bool = False

    @property
    def _round_tokens(self) -> int:
        return self.question_tokens + self.output_tokens if self.growth else 0

    @property
    def prompt_tokens(self) -> int:
        """Length of the first prompt: the document and, with growth, the first question."""
        return self.ctx_tokens + (self.question_tokens if self.growth else 0)

    @property
    def end_tokens(self) -> int:
        """Length at the session's end, which capacity must hold."""
        return self.ctx_tokens + self.rounds * self._round_tokens

    @property
    def decode_tokens(self) -> float:
        """Mean length over all decode steps of a session."""
        if not self.growth:
            return float(self.ctx_tokens)
        before = (self.rounds - 1) / 2 * self._round_tokens
        return self.ctx_tokens + before + self.question_tokens + self.output_tokens / 2

    @property
    def warm_tokens(self) -> float:
        """Mean length that a later question finds in the cache (rounds 2 to R)."""
        return self.ctx_tokens + self.rounds / 2 * self._round_tokens

    @property
    def later_prompt_tokens(self) -> float:
        """Mean length of a later question's whole prompt (rounds 2 to R)."""
        return self.warm_tokens + (self.question_tokens if self.growth else 0)

    @property
    def last_warm_tokens(self) -> float:
        """Length that the last question finds in the cache."""
        return self.ctx_tokens + (self.rounds - 1) * self._round_tokens
