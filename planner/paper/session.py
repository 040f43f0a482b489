"""The paper's session-based throughput, as a closed form.

The paper defines it in words (rounds of interaction per period); the formulas are derived. They
count one context switch per round where users outnumber the caches that fit. The cost model's
steady state counts one fewer, since the first round finds its cache in place, and lets sessions
decode together; `planner.cost.session` has it.
"""

from __future__ import annotations


def busy_s(prefill_s: float, decode_s: float, switch_s: float, rounds: int) -> float:
    """GPU time of a session served on its own: one prefill, then an answer and a switch per round [s].

    >>> busy_s(14.1, 9.8, 1.1, 1)
    25.0
    """
    return prefill_s + rounds * (decode_s + switch_s)


def rounds_per_hour(prefill_s: float, decode_s: float, switch_s: float, rounds: int) -> float:
    """Rounds that a GPU completes if it is never idle [1/h]."""
    return 3600.0 * rounds / busy_s(prefill_s, decode_s, switch_s, rounds)


def interleaved_users(decode_s: float, switch_s: float, reading_s: float) -> float:
    """Users that one GPU serves in turns, each while the others read."""
    return 1.0 + reading_s / (decode_s + switch_s)
