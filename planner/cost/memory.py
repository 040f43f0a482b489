"""HBM: what weights and sessions take on the fullest GPU, and how many sessions fit.

``N = floor((limit - weights - workspace - overhead - shared prefix) / KV of one session)``, on the
stage where it is smallest. Arrays are ``(combination,)``; bytes are per GPU unless a name says total.
"""

from __future__ import annotations

import numpy as np

from planner.cost.compression import CompressionTable, Floats
from planner.cost.replica import Replica, Stage

_MOST_SESSIONS = 1e9


def session_bytes(stage: Stage, table: CompressionTable, prompt: float, tokens: float, shared: float = 0.0) -> Floats:
    """KV and state bytes of one session of ``tokens`` tokens on one GPU of a stage ``(combination,)`` [bytes].

    Parameters
    ----------
    prompt
        Tokens of the first prompt, which token eviction may drop [tokens].
    tokens
        Length of the session [tokens].
    shared
        Leading tokens that live in the shared prefix and aren't stored again [tokens].
    """
    own = table.stored_tokens(prompt, tokens) - shared_tokens(table, prompt, shared)
    total: Floats = np.full(len(table), stage.state_bytes)
    for term in stage.terms:
        if term.window_tokens is not None:
            kept = min(tokens, float(term.window_tokens)) * (table.element_share() if term.compressible else 1.0)
        else:
            kept = own if term.compressible else tokens - shared
        total = total + term.stored_bytes * kept / term.stride_tokens
    return total


def shared_tokens(table: CompressionTable, prompt: float, shared: float) -> Floats:
    """Part of a prompt's stored tokens that the shared prefix holds ``(combination,)`` [tokens]."""
    if shared <= 0:
        return np.zeros(len(table))
    return table.stored_tokens(prompt, prompt) * min(1.0, shared / prompt)


def shared_bytes(stage: Stage, table: CompressionTable, prompt: float, shared: float) -> Floats:
    """Bytes of the shared prefix on one GPU of a stage ``(combination,)`` [bytes]."""
    tokens = shared_tokens(table, prompt, shared)
    total: Floats = np.zeros(len(table))
    for term in stage.terms:
        if term.full:
            total = total + term.stored_bytes * (tokens if term.compressible else shared) / term.stride_tokens
    return total


def sessions_that_fit(
    replica: Replica, table: CompressionTable, limit_bytes: float, prompt: float, tokens: float, shared: float
) -> Floats:
    """Sessions of ``tokens`` tokens that fit beside the weights in one replica ``(combination,)``; 0 if none."""
    fits: Floats = np.full(len(table), _MOST_SESSIONS)
    for stage in replica.stages:
        free = limit_bytes - stage.weight_bytes - shared_bytes(stage, table, prompt, shared)
        each = np.maximum(session_bytes(stage, table, prompt, tokens, shared), 1e-9)
        fits = np.minimum(fits, np.floor(free / each))
    return np.maximum(fits, 0.0)


def largest_session_bytes(
    replica: Replica, table: CompressionTable, prompt: float, tokens: float, shared: float = 0.0
) -> Floats:
    """Bytes of one session on the GPU that holds most of it ``(combination,)`` [bytes]."""
    sizes = [session_bytes(stage, table, prompt, tokens, shared) for stage in replica.stages]
    return np.asarray(np.maximum.reduce(sizes))
