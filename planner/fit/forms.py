"""Fit the forms of `planner.measured.operations` to rows of measurements, and judge them on rows held out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.measured import operations as op

Floats = NDArray[np.float64]
Rows = dict[str, NDArray[Any]]
Bounds = Mapping[str, float]

FOLDS = 5
ONE_SIZE = "one message size at a time, read from its neighbours"
SAMPLE = 4000
"""Rows of one fit; more change the parameters by less than their scatter."""


@dataclass(frozen=True, slots=True)
class CopyFit:
    """A copy between host and device."""

    start_s: float
    bytes_per_s: float


FORMS: dict[str, tuple[type, tuple[float, ...]]] = {
    "gemm": (op.GemmFit, (3e-6, 0.9, 0.78, 3.5, 0.88, 0.77, 150.0, 2.4e-6, 1.2e-5, 6e-5)),
    "own_gemm": (op.GemmFit, (3e-6, 0.9, 0.78, 3.5, 0.88, 0.77, 150.0, 2.4e-6, 1.2e-5, 6e-5, 50.0)),
    "experts": (op.ExpertsFit, (3e-5, 0.5, 0.8, 3.0, 10.0)),
    "prefill_attention": (op.PrefillAttentionFit, (8e-6, 0.6, 0.6, 1.5, 50.0, 0.6, 1e-8)),
    "chunk_attention": (op.PrefillAttentionFit, (8e-6, 0.6, 0.6, 1.5, 50.0, 0.3, 1e-8, 32.0)),
    "decode_attention": (op.DecodeAttentionFit, (1.5e-5, 0.8, 0.2, 1e-5, 2e-5)),
    "elementwise": (op.ElementwiseFit, (2.5e-6, 0.5)),
    "copies": (CopyFit, (1e-5, 2e10)),
}
"""Operation -> form, and where its fit starts; parameters beyond those keep their defaults."""
NEGLIGIBLE = 1e-11
"""Parameters below have no effect on any time and are written as 0."""
SCALES = {"gemm": 0.05, "experts": 0.1, "prefill_attention": 0.1, "decode_attention": 0.03} | {
    "elementwise": 0.1,
    "copies": 0.05,
    "chunk_attention": 0.1,
    "own_gemm": 0.05,
}
"""Relative error beyond which a row counts as an outlier of the robust fit."""
UPPER = {"compute": 1.0, "bandwidth": 0.97, "power": 8.0, "tile_128": 1.5, "tile_64": 1.5, "wave": 1.0} | {
    "least_rows": 64.0
}
"""No share of a peak exceeds 1; caches make HBM look faster than it is."""
FREE = ("bytes_per_s",)
"""Parameters that are no shares and no times."""
LOWER = {"power": 0.7, "chain": 0.4, "tile_128": 0.3, "tile_64": 0.1}
"""One tile of attention isn't split over multiprocessors, even where whole prompts don't show it."""


@dataclass(frozen=True)
class Task:
    """One fit: rows of one GPU, engine and operation."""

    operation: str
    weights: str
    rows: Rows
    """Columns of the operation's sizes, ``latency`` [s], and ``fold``."""
    predict: Callable[[Any, Rows], Floats]
    valid: tuple[str, ...]


def folds(*sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Fold of each row by a hash of its shape, so that a shape is in one fold only."""
    keys = [",".join(str(int(x)) for x in shape) for shape in zip(*sizes, strict=True)]
    return np.array([zlib.crc32(key.encode()) % FOLDS for key in keys], dtype=np.int64)


def fit(task: Task, keep: NDArray[np.bool_], scale: float, bounds: Bounds | None = None, prior: float = 0.0) -> Any:
    """Fit the parameters of a task's form to the rows in ``keep``, by robust least squares in the log.

    Parameters
    ----------
    task, keep
        The form with its rows, and which of them count.
    scale
        Relative error beyond which a row counts as an outlier.
    bounds
        Least values that replace those of `LOWER`, for rows that determine what others leave open.
    prior
        Spread, in the logarithm, of parameters around those at which the fit starts; 0: no such prior.
    """
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    form, start = FORMS[task.operation]
    index = np.flatnonzero(keep)
    if len(index) > SAMPLE:
        index = np.random.default_rng(0).permutation(index)[:SAMPLE]
    rows = {name: values[index] for name, values in task.rows.items()}
    names = [f.name for f in fields(form)][: len(start)]
    least = {**LOWER, **(bounds or {})}
    lower = np.log([least.get(name, 1e-15) for name in names])
    upper = np.log([UPPER.get(name, 1e15 if name in FREE else 1e6) for name in names])

    def residual(x: Floats) -> Floats:
        wrong = np.log(task.predict(form(*np.exp(x)), rows) / rows["latency"])
        return np.concatenate([wrong, scale * (x - np.log(start)) / prior]) if prior else np.asarray(wrong)

    step = 1e-2 if form is op.GemmFit else 1e-3
    found = least_squares(residual, np.log(start), bounds=(lower, upper), loss="soft_l1", f_scale=scale, diff_step=step)
    return form(*(float(f"{value:.4g}") if value > NEGLIGIBLE else 0.0 for value in np.exp(found.x)))


def judge(task: Task, scale: float, bounds: Bounds | None = None, prior: float = 0.0) -> tuple[Any, Floats]:
    """Return the fit to all rows, and the relative errors of rows predicted without their fold."""
    errors = np.empty(len(task.rows["latency"]))
    for fold in range(FOLDS):
        out = task.rows["fold"] == fold
        if out.any():
            rows = {name: values[out] for name, values in task.rows.items()}
            errors[out] = task.predict(fit(task, ~out, scale, bounds, prior), rows) / rows["latency"] - 1.0
    return fit(task, np.ones(len(errors), dtype=np.bool_), scale, bounds, prior), errors


def reduce_table(size: Floats, gpus: NDArray[Any], time: Floats) -> tuple[dict[str, list[float]], Floats]:
    """The table of all-reduce times by size, and the errors of inner sizes read from their neighbours.

    Every GPU count must have every size [bytes, s].
    """
    sizes = np.unique(size)
    means = {int(n): np.array([time[(gpus == n) & (size == s)].mean() for s in sizes]) for n in np.unique(gpus)}
    # A smaller message is never slower: single slow repetitions would make it so.
    times = {n: np.minimum.accumulate(mean[::-1])[::-1].tolist() for n, mean in means.items()}
    errors = []
    for n, values in times.items():
        for drop in range(1, len(sizes) - 1):
            known = [i for i in range(len(sizes)) if i != drop]
            thinned = op.AllReduceFit(tuple(float(sizes[i]) for i in known), {n: tuple(values[i] for i in known)})
            errors.append(float(op.all_reduce_s(thinned, n, sizes[drop])) / values[drop] - 1.0)
    table = {"bytes": sizes.tolist()} | {f"s_{n}": [float(f"{v:.4g}") for v in vs] for n, vs in times.items()}
    return table, np.array(errors)


def error_of(errors: Floats, held_out: str) -> dict[str, Any]:
    """Summary of held-out errors, as a catalog entry keeps it."""
    size = np.abs(errors)
    return {
        "mape": round(float(size.mean()), 4),
        "p90": round(float(np.quantile(size, 0.9)), 4),
        "bias": round(float(errors.mean()), 4),
        "points": len(errors),
        "held_out": held_out,
    }
