"""The forms that plans use, fitted to what was measured, with errors on points held out.

The same forms and the same fit as those of the built-in measurements (`planner.fit.forms`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.calibrate.rules import MOST_REFUSED, too_slow
from planner.calibrate.state import Done, State
from planner.calibrate.sweeps import HEAD_DIM, work
from planner.errors import InputError
from planner.fit import forms as fitting
from planner.measured import operations as op

Floats = NDArray[np.float64]

HELD_OUT = "points, in five folds"
HELD_OUT_SHAPES = "shapes of the weight, in five folds"
LEAST_POINTS = 12
"""Points of an operation below which nothing is fitted."""
MOST_ERROR = 0.3
"""Mean error on points held out beyond which a form doesn't describe a device."""
PRIOR = 1.5
"""Parameters are drawn towards those of serving GPUs, with this spread in the logarithm, where few points leave them
open."""
CHAIN = 1e-3
"""Least share of the longest attention tile; short chunks over long prefixes show it, so that it needn't be assumed."""
PEAK_OPERATIONS = ("gemm", "memory")
NO_PEAKS = (
    "a device that the catalog doesn't have needs products and streams, which stand for its peaks; "
    "leave --only out, or name gemm and memory as well"
)
CACHED = 1.5
"""Streams below as many last-level caches say nothing of memory."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one operation's points say."""

    operation: str
    """As `catalog.schema.Measurement` names it, or ``copies``."""
    parameters: dict[str, float]
    table: dict[str, list[float]]
    error: dict[str, Any]
    valid: dict[str, list[float]]
    points: int
    refused: int
    despite: tuple[str, ...]
    """What spoke against the times and was forced."""


def fit_all(
    state: State, operations: Sequence[str], peak: op.Peak, *, force: bool = False
) -> tuple[list[Fitted], list[str]]:
    """Fit every operation that has points, and say what can't be used and why.

    ``force`` also takes fits that miss what they haven't seen by more than `MOST_ERROR`.
    """
    _need_scipy()
    found, problems = [], []
    for operation in operations:
        done = state.of(operation)
        if not done:
            continue
        used = [one for one in done if one.refused is None]
        problem = _problem(operation, done, used, peak)
        if problem:
            problems.append(problem)
            continue
        parts = _FITS[operation](used, peak)
        fitted = Fitted(**parts, points=len(used), refused=len(done) - len(used), despite=_despite(used))
        if fitted.error["mape"] > MOST_ERROR and not force:
            problems.append(
                f"{operation}: the form misses points held out by {fitted.error['mape']:.0%} on average, so it isn't "
                "written; measure more points (without --quick) on a quiet device, or add --force to write it"
            )
            continue
        found.append(fitted)
    return found, problems


def _despite(used: Sequence[Done]) -> tuple[str, ...]:
    """What was forced: each kind of complaint, at how many points, and an example."""
    kinds: dict[str, list[str]] = {}
    for one in used:
        for kind, text in {text.partition(":")[0]: text for text in one.despite}.items():
            kinds.setdefault(kind, []).append(text)
    return tuple(f"{len(texts)} of {len(used)} points: {texts[-1]}" for texts in kinds.values())


def best_rates(state: State) -> tuple[float, float]:
    """The most FLOP/s and bytes/s of any point, which stand for the peaks of a device without a data sheet.

    Raises
    ------
    InputError
        If products or streams weren't measured.
    """
    measured = [done for name in PEAK_OPERATIONS for done in state.of(name) if done.refused is None]
    if {done.point.operation for done in measured} != set(PEAK_OPERATIONS):
        raise InputError(NO_PEAKS)
    # No share of a peak exceeds 1, so that whatever is faster than products and streams raises the peaks.
    kernels = ("prefill_attention", "decode_attention")
    measured += [done for name in kernels for done in state.of(name) if done.refused is None]
    least = CACHED * state.device.cache_bytes
    far = [done for done in measured if work(done.point).held_bytes > least] or measured
    flops = max(work(done.point).flops / done.time_s for done in measured)
    return flops, max(work(done.point).moved_bytes / done.time_s for done in far)


def _need_scipy() -> None:
    try:
        import scipy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise InputError(
            "the fit needs SciPy, which isn't installed; install it with: pip install 'plan-llm[calibrate]'. "
            "What was measured is kept: run the same command again"
        ) from None


def _problem(operation: str, done: Sequence[Done], used: Sequence[Done], peak: op.Peak) -> str | None:
    refused = [one for one in done if one.refused is not None]
    if len(refused) > MOST_REFUSED * len(done):
        reasons: dict[str, int] = {}
        for one in refused:
            kind = str(one.refused).split(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
        told = ", ".join(f"{count} {kind}" for kind, count in reasons.items())
        first = next(one for one in refused)
        return (
            f"{operation}: {len(refused)} of {len(done)} points can't be believed ({told}), so nothing is fitted; "
            f"for example {first.point}: {first.refused}"
        )
    if len(used) < LEAST_POINTS:
        return f"{operation}: {len(used)} points, and a fit needs {LEAST_POINTS}; measure without --quick"
    return too_slow(operation, [(one.point, one.time_s) for one in used], peak)


def _columns(done: Sequence[Done], *names: str) -> dict[str, Floats]:
    return {name: np.array([float(one.point[name]) for one in done]) for name in names}


def _fit(
    operation: str,
    rows: dict[str, Floats],
    done: Sequence[Done],
    predict: Callable[[Any, dict[str, Floats]], Floats],
    shape: tuple[str, ...],
    **lower: float,
) -> tuple[Any, Floats, dict[str, Floats]]:
    """Fit a form; return it with the held-out errors of the rows."""
    rows = {**rows, "latency": np.array([one.time_s for one in done])}
    fold = fitting.folds(*(rows[name] for name in shape))
    task = fitting.Task(operation, "bf16", {**rows, "fold": fold}, predict, ())
    fitted, errors = fitting.judge(task, fitting.SCALES[operation], lower, PRIOR)
    return fitted, errors, rows


def _parts(
    operation: str, fitted: Any, errors: Floats, rows: dict[str, Floats], valid: dict[str, str], held_out: str
) -> dict[str, Any]:
    return {
        "operation": operation,
        "parameters": {f.name: getattr(fitted, f.name) for f in fields(fitted)},
        "table": {},
        "error": fitting.error_of(errors, held_out),
        "valid": {name: [float(rows[column].min()), float(rows[column].max())] for name, column in valid.items()},
    }


def _gemm(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    def predict(fit: op.GemmFit, r: dict[str, Floats]) -> Floats:
        return op.gemm_s(fit, peak, r["m"], r["n"], r["k"])

    fitted, errors, rows = _fit("own_gemm", _columns(done, "m", "n", "k"), done, predict, ("n", "k"))
    parts = _parts("gemm", fitted, errors, rows, {"m": "m", "n": "n", "k": "k"}, HELD_OUT_SHAPES)
    parts["parameters"]["multiprocessors"] = float(peak.multiprocessors)
    return parts


def _prefill(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    def predict(fit: op.PrefillAttentionFit, r: dict[str, Floats]) -> Floats:
        return op.prefill_attention_s(fit, peak, r["b"], r["s"], r["prefix"], r["hq"], r["hk"])

    names = ("b", "s", "prefix", "hq", "hk")
    fitted, errors, rows = _fit("chunk_attention", _columns(done, *names), done, predict, names, chain=CHAIN)
    valid = {"b": "b", "isl": "s", "prefix": "prefix", "hq": "hq", "hk": "hk"}
    return _parts("prefill_attention", fitted, errors, rows, valid, HELD_OUT)


def _decode(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    names = ("b", "kv", "hq", "hk")
    rows = _columns(done, *names)
    rows |= {"cache": 4.0 * HEAD_DIM * rows["kv"] * rows["hk"], "query": 4.0 * HEAD_DIM * rows["hq"]}

    def predict(fit: op.DecodeAttentionFit, r: dict[str, Floats]) -> Floats:
        return op.decode_attention_s(fit, peak, r["b"], r["cache"], r["query"], r["hk"])

    fitted, errors, rows = _fit("decode_attention", rows, done, predict, names)
    return _parts("decode_attention", fitted, errors, rows, {name: name for name in names}, HELD_OUT)


def _memory(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    def predict(fit: op.ElementwiseFit, r: dict[str, Floats]) -> Floats:
        return op.elementwise_s(fit, peak, r["bytes"])

    fitted, errors, rows = _fit("elementwise", _columns(done, "bytes"), done, predict, ("bytes",))
    return _parts("elementwise", fitted, errors, rows, {"bytes": "bytes"}, HELD_OUT)


def _copies(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    parameters: dict[str, float] = {}
    errors = []
    for direction in dict.fromkeys(one.point.word("direction") for one in done):
        mine = [one for one in done if one.point.word("direction") == direction]
        if len(mine) < 3:
            continue

        def predict(fit: fitting.CopyFit, r: dict[str, Floats]) -> Floats:
            return np.asarray(fit.start_s + r["bytes"] / fit.bytes_per_s)

        fitted, wrong, _ = _fit("copies", _columns(mine, "bytes"), mine, predict, ("bytes",))
        largest = max(mine, key=lambda one: one.point["bytes"])
        # A processor's small copies stay in its caches.
        rate = min(fitted.bytes_per_s, largest.point["bytes"] / largest.time_s)
        parameters |= {f"{direction}_start_s": fitted.start_s}
        parameters |= {f"{direction}_bytes_per_s": rate * (2.0 if direction == "both" else 1.0)}
        errors.append(wrong)
    sizes = [one.point["bytes"] for one in done]
    return {
        "operation": "copies",
        "parameters": parameters,
        "table": {},
        "error": fitting.error_of(np.concatenate(errors), HELD_OUT),
        "valid": {"bytes": [float(min(sizes)), float(max(sizes))]},
    }


def _all_reduce(done: Sequence[Done], peak: op.Peak) -> dict[str, Any]:
    rows = _columns(done, "gpus", "bytes")
    times = np.array([one.time_s for one in done])
    counts = np.unique(rows["gpus"])
    # Sizes that every count has; a table holds no gaps.
    common = [size for size in np.unique(rows["bytes"]) if np.sum(rows["bytes"] == size) == len(counts)]
    keep = np.isin(rows["bytes"], common)
    table, errors = fitting.reduce_table(rows["bytes"][keep], rows["gpus"][keep], times[keep])
    return {
        "operation": "all_reduce",
        "parameters": {},
        "table": table,
        "error": fitting.error_of(errors, fitting.ONE_SIZE),
        "valid": {},
    }


_FITS: dict[str, Callable[[Sequence[Done], op.Peak], dict[str, Any]]] = {
    "gemm": _gemm,
    "prefill_attention": _prefill,
    "decode_attention": _decode,
    "memory": _memory,
    "copies": _copies,
    "all_reduce": _all_reduce,
}
