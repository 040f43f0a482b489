"""Which times are nonsense, and what to do about each."""

from __future__ import annotations

from planner.calibrate.device import Sample
from planner.calibrate.sweeps import Point, work
from planner.measured.operations import Peak

MOST_SPREAD = 0.15
"""Distance between the quartiles over the median beyond which a time says nothing."""
BEYOND_PEAK = 1.03
"""Clocks may exceed those of a data sheet by this factor."""
LEAST_OF_PEAK = 0.25
"""A GPU that doesn't reach this share of its peaks with its best point is another GPU, or throttled."""
MOST_REFUSED = 0.4
"""Share of an operation's points that may be refused before nothing is fitted."""


def refusal(at: Point, sample: Sample, peak: Peak | None, cache_bytes: float) -> str | None:
    """Why a point's time can't be believed; None if it can.

    Parameters
    ----------
    at, sample
        The point and its times.
    peak
        Of the GPU that this is said to be; None: not known.
    cache_bytes
        Of the last-level cache: arrays that it holds may well be read faster than memory allows [bytes].
    """
    if not 0.0 < sample.time_s < float("inf"):
        return "no positive time; the device's timer doesn't work"
    if sample.spread > MOST_SPREAD:
        return f"unstable: repeated times spread by {sample.spread:.0%}; stop other work on this machine"
    if peak is None or at.operation in ("copies", "all_reduce"):
        return None
    needed = work(at)
    flops = needed.flops / sample.time_s / peak.flops_per_s
    if flops > BEYOND_PEAK:
        return f"impossible: {flops:.2f} times the peak FLOP/s of the GPU that --gpu names; is it another one?"
    moved = needed.moved_bytes / sample.time_s / peak.hbm_bytes_per_s
    if moved > BEYOND_PEAK and needed.held_bytes > 2.0 * cache_bytes:
        return f"impossible: {moved:.2f} times the memory bandwidth of the GPU that --gpu names; is it another one?"
    return None


def too_slow(operation: str, times: list[tuple[Point, float]], peak: Peak | None) -> str | None:
    """Why a whole operation can't be that of this GPU; None if it can.

    Products are compared with the peak FLOP/s, streams with the bandwidth of memory.
    """
    if peak is None or operation not in ("gemm", "memory") or not times:
        return None
    if operation == "gemm":
        best = max(work(at).flops / time for at, time in times) / peak.flops_per_s
    else:
        best = max(work(at).moved_bytes / time for at, time in times) / peak.hbm_bytes_per_s
    if best >= LEAST_OF_PEAK:
        return None
    return (
        f"{operation}: the best point reaches {best:.1%} of the peak of the GPU that this is taken for; it is another "
        "GPU (--gpu), part of one (MIG), or its clocks are held low (nvidia-smi -q -d CLOCK,PERFORMANCE)"
    )
