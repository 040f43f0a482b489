"""What the cost model says of each unit, as numbers that the CP-SAT model is made of.

Every time here comes from calling `planner.cost`; nothing is priced in a second way. Prefill depends
on compression through a few factors only, so it is tabulated per *class*: combinations that share
those factors. A decode step is the largest of a few functions that are linear in what compression
leaves to read and to attend to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import Setting
from planner.cost.compression import CompressionTable
from planner.cost.compute import Compressed
from planner.cost.phases import Prefills, prefills_of
from planner.cost.pool import Pool, compressed
from planner.solve.points import Search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Role = Literal["serve", "decode", "prefill"]
"""What a unit does: everything, or the part of one of two pools."""


@dataclass(frozen=True)
class Prefill:
    """Prefill of one unit in chunks of one size, ``(quantity, class)``.

    The quantities are GPU time, latency and decode steps given way to of the first prompt, the same of
    a later round's, and the largest chunk; once for caches that are kept or swapped between rounds,
    once for caches that are recomputed.
    """

    kept: Floats
    recomputed: Floats


@dataclass(frozen=True)
class Piece:
    """A decode step takes at least ``const + read R + narrow H + attend A`` [s].

    R and A are the tokens' worth of a growing cache that compression leaves to read and to attend
    to; H is the share that narrower elements leave of the bytes of windowed and top-k caches.
    """

    const_s: float
    read_s: float
    narrow_s: float
    attend_s: float


@dataclass(frozen=True)
class StageMemory:
    """Bytes of one session of n tokens on one GPU of a stage: ``const + fixed n + grow S + narrow H`` [bytes].

    S is the tokens' worth of a growing cache that compression leaves, H the share that narrower
    elements leave of windowed caches.
    """

    const: float
    fixed: float
    grow: float
    windows: tuple[tuple[float, int], ...]
    """(bytes per token, window) of windowed caches that narrower elements shrink."""
    free: float
    """For sessions and the shared prefix [bytes]."""

    def narrow(self, tokens: float) -> float:
        """Bytes of the windowed caches of a session of so many tokens [bytes]."""
        return sum(size * min(tokens, window) for size, window in self.windows)


class UnitTable:
    """One unit's numbers, made when first asked for."""

    def __init__(self, setting: Setting, index: int) -> None:
        work = setting.workload
        left = compressed(
            setting.compression, work.prompt_tokens, work.decode_tokens, setting.efficiency.technique_time
        )
        self.setting = setting
        self.index = index
        self.pool = Pool.of(setting, index, left)
        self.gpus = self.pool.gpus
        self.pp = self.pool.replica.shape.pp
        self._prefill: dict[tuple[int, str], Prefill] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}

    def prefill(self, chunk: int, role: Role = "serve") -> Prefill:
        """Prefill in chunks of one size; a decode pool has none, a prefill pool prefills answers too."""
        key = (chunk, role)
        if key not in self._prefill:
            rows = len(self.setting.compression)
            if role == "decode":
                self._prefill[key] = Prefill(np.zeros((7, rows)), np.zeros((7, rows)))
            else:
                chunks = np.full(rows, chunk, dtype=np.int64)
                found = prefills_of(self.setting.workload, self.pool, chunks, feeds=role == "prefill")
                self._prefill[key] = Prefill(*(self._rows(found, again) for again in (False, True)))
        return self._prefill[key]

    def _rows(self, found: Prefills, again: bool) -> Floats:
        prompt, later = found.prompt, found.again if again else found.question
        zero = np.zeros(len(self.setting.compression))
        largest = np.maximum(prompt.largest_s, later.largest_s)
        first = (prompt.busy_s, prompt.latency_s, prompt.steps)
        return np.stack([row + zero for row in (*first, later.busy_s, later.latency_s, later.steps, largest)])

    def pieces(self, micro: int) -> tuple[Piece, ...]:
        """The bytes' and the compute's part of a step, each linear; found by asking the cost model."""
        if micro not in self._pieces:
            self._pieces[micro] = self._make_pieces(micro)
        return self._pieces[micro]

    def _make_pieces(self, micro: int) -> tuple[Piece, ...]:
        rate = self.pool.rate
        bytes_only = replace(rate, attention_flops_per_s=math.inf)
        compute_only = rate
        if rate.overlap:
            bytes_only = replace(bytes_only, linear_flops_per_s=math.inf)
            compute_only = replace(rate, hbm_bytes_per_s=math.inf)
        found = []
        for stage in self.pool.replica.stages:
            one = replace(self.pool.replica, stages=(stage,))
            stateless = replace(self.pool.replica, stages=(replace(stage, state_bytes=0.0),))
            found.append(self._piece(replace(self.pool, replica=one, rate=bytes_only), micro))
            computed = self._piece(replace(self.pool, replica=stateless, rate=compute_only), micro)
            # Without overlap the slower of attending and reading counts: this piece is the one that attends.
            found.append(replace(computed, read_s=0.0, narrow_s=0.0))
        if self.pool.times is not None:
            found += self._measured_pieces(micro)
        return undominated(found)

    def _measured_pieces(self, micro: int) -> list[Piece]:
        """The parts of a measured step, each linear."""
        times, tokens = self.pool.times, self.setting.workload.decode_tokens
        assert times is not None  # noqa: S101
        parts = times.step_parts(np.full(4, float(micro * self.pp)), tokens, self._probes(self.pool))
        return [self._line(part) for part in parts]

    def _piece(self, pool: Pool, micro: int) -> Piece:
        tokens = self.setting.workload.decode_tokens
        bare = replace(pool, left=self._probes(pool), times=None)
        return self._line(bare.step_s(np.full(4, float(micro * self.pp)), tokens))

    def _line(self, step: Floats) -> Piece:
        """A linear function of what compression leaves, from its values at the probes."""
        tokens = self.setting.workload.decode_tokens
        slopes = (step[1:] - step[0]) / np.array([tokens, 1.0, tokens])
        return Piece(float(step[0]), float(slopes[0]), float(slopes[1]), float(slopes[2]))

    def _probes(self, pool: Pool) -> Compressed:
        """Nothing left; everything to read; full elements; everything to attend to."""
        tokens = self.setting.workload.decode_tokens
        zero, unit = np.zeros(4), np.ones(4)
        read, narrow, attend = zero.copy(), zero.copy(), zero.copy()
        read[1], narrow[2], attend[3] = tokens, 1.0, tokens
        if is_capped(pool):
            # A top-k cache is compressed in its elements only: reads follow their width.
            read[1], read[2], attend[:] = 0.0, tokens, tokens
        return Compressed(read, attend, narrow, unit, unit, unit, unit, unit)

    def memory(self) -> tuple[StageMemory, ...]:
        """What sessions take on each stage."""
        setting = self.setting
        limit = setting.model_bytes
        found = []
        for stage in self.pool.replica.stages:
            const, fixed, grow = stage.state_bytes, 0.0, 0.0
            windows = []
            for term in stage.terms:
                size = term.stored_bytes / term.stride_tokens
                if term.window_tokens is None:
                    grow, fixed = (grow + size, fixed) if term.compressible else (grow, fixed + size)
                elif term.compressible:
                    windows.append((size, term.window_tokens))
                else:
                    const += size * min(setting.workload.end_tokens, term.window_tokens)
            found.append(StageMemory(const, fixed, grow, tuple(windows), limit - stage.weight_bytes))
        return tuple(found)


def undominated(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Pieces that may be the largest: without those that another one is nowhere below.

    >>> undominated([Piece(1, 1, 0, 0), Piece(2, 1, 0, 0), Piece(0, 0, 0, 1)])
    (Piece(const_s=2, read_s=1, narrow_s=0, attend_s=0), Piece(const_s=0, read_s=0, narrow_s=0, attend_s=1))
    """
    kept: list[Piece] = []
    for piece in dict.fromkeys(pieces):
        if not any(_covers(other, piece) for other in pieces if other != piece):
            kept.append(piece)
    return tuple(kept)


def _covers(piece: Piece, other: Piece) -> bool:
    return (
        piece.const_s >= other.const_s
        and piece.read_s >= other.read_s
        and piece.narrow_s >= other.narrow_s
        and piece.attend_s >= other.attend_s
    )


def is_capped(pool: Pool) -> bool:
    """Whether the model itself limits how many entries a query reads."""
    return any(term.cap_entries is not None for stage in pool.replica.stages for term in stage.terms)


class Tables:
    """Tables of a search's units for the classes of a space."""

    def __init__(self, search: Search, classes: CompressionTable) -> None:
        self._settings = [search.setting(f, classes) for f in range(len(search.views))]
        self._search = search
        self._units: dict[int, UnitTable] = {}

    def unit(self, index: int) -> UnitTable:
        """The table of one unit."""
        if index not in self._units:
            setting = self._settings[self._search.units[index].view]
            self._units[index] = UnitTable(setting, index)
        return self._units[index]
