"""Fit what engines add to their kernels to measured end-to-end points, and judge it on points held out.

    python -m planner.fit.runtime POINTS.csv OUT

Each era of an engine has a few parameters (`planner.measured.machine.Runtime`); the kernels stay as
they were measured. Fits are by robust least squares in the log, drawn towards weak priors. They are
judged three ways: leaving out a source, leaving out a model within a source, and with eras of which
nothing is left answered by the pooled fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.load import Catalog
from planner.measured.batch import Batch, Deployment
from planner.measured.machine import Runtime, version_number
from planner.measured.points import Point, PointError, deployment_of
from planner.measured.predict import predict_s

Floats = NDArray[np.float64]
CHECKED = "2026-11-25"

PRIORS: dict[str, tuple[float, float, float]] = {
    # start, spread in the log, largest; priors are of the size that serving engines of 2024 show
    "host_s": (8e-4, 1.5, 1e-1),
    "host_rank_s": (2e-4, 1.5, 1e-1),
    "host_sequence_s": (5e-6, 1.5, 1e-2),
    "launch_layer_s": (2e-4, 1.5, 1e-2),
    "prefill_host_s": (3e-3, 1.5, 1.0),
    "decode_gpu": (1.0, 0.1, 2.0),
    "prefill_gpu": (1.05, 0.1, 3.0),
    "decode_token_s": (5e-9, 1.5, 1e-6),
    "grouped_reads": (1.0, 0.5, 8.0),
    "collective_s": (5e-6, 1.0, 1e-3),
    "distinct": (0.7, 0.7, 1.0),
}
WEIGHT = 0.1
"""Relative error of a point that weighs as much as one spread of a prior."""


@dataclass(frozen=True)
class Era:
    """An engine over a range of versions, and the parameters that its points determine."""

    id: str
    engine: str
    versions: tuple[float, float]
    """From and to (without), as `version_number` counts."""
    free: tuple[str, ...]
    title: str

    def holds(self, point: Point) -> bool:
        """Whether a point was measured in this era."""
        number = version_number(point.version)
        return point.engine == self.engine and self.versions[0] <= (number or 0.0) < self.versions[1]


SERVING = ("host_s", "host_rank_s", "host_sequence_s", "collective_s", "decode_gpu", "prefill_gpu", "prefill_host_s")
EAGER = ("host_s", "launch_layer_s", "host_rank_s", "host_sequence_s", "prefill_gpu", "decode_gpu", "prefill_host_s")
ERAS = (
    Era("vllm-2023-step", "vllm", (0, 3), (*EAGER, "grouped_reads"), "vLLM 0.1 to 0.2"),
    Era("vllm-0.4-step", "vllm", (3, 5), (*SERVING, "grouped_reads"), "vLLM 0.3 to 0.4"),
    Era("vllm-0.5-step", "vllm", (5, 8), SERVING, "vLLM 0.5 to 0.7"),
    Era("vllm-0.8-step", "vllm", (8, 1e9), SERVING, "vLLM 0.8 and later"),
    Era(
        "tensorrt-llm-0-step",
        "tensorrt-llm",
        (0, 100),
        (*SERVING, "grouped_reads", "decode_token_s", "distinct"),
        "TensorRT-LLM 0.x",
    ),
    Era("tensorrt-llm-1-step", "tensorrt-llm", (100, 1e9), SERVING, "TensorRT-LLM 1.0 and later"),
    Era("gpt-fast-step", "gpt-fast", (0, 1e9), ("host_s", "decode_gpu", "collective_s"), "gpt-fast"),
    Era("transformers-step", "transformers", (0, 1e9), ("prefill_host_s", "prefill_gpu"), "Transformers"),
    Era("llama.cpp-step", "llama.cpp", (0, 1e9), ("host_s", "decode_gpu"), "llama.cpp"),
    Era("deepspeed-step", "deepspeed", (0, 1e9), ("host_s", "host_sequence_s", "decode_gpu"), "DeepSpeed-Inference"),
    Era(
        "fastertransformer-step",
        "fastertransformer",
        (0, 1e9),
        ("host_s", "collective_s", "decode_gpu", "prefill_gpu"),
        "FasterTransformer",
    ),
)
POOLED = Era("pooled", "", (0, 1e9), SERVING, "all engines of 2024 and later")


@dataclass(frozen=True)
class Case:
    """A point with its deployment."""

    point: Point
    deployment: Deployment
    batch: Batch

    def predicted_s(self, runtime: Runtime) -> float:
        """Prediction with these parameters [s]."""
        machine = replace(self.deployment.machine, runtime=runtime)
        return predict_s(replace(self.deployment, machine=machine), self.batch, self.point.metric)


def cases(catalog: Catalog, points: Iterable[Point]) -> list[Case]:
    """The points that may be fitted to: not recalled, not suspect, and priceable."""
    found = []
    for point in points:
        if point.id.startswith("RCL-") or point["suspect"] == "1":
            continue
        try:
            found.append(Case(point, *deployment_of(catalog, point)))
        except PointError as error:
            print(f"{point.id}: {error}")
    return found


def fit(free: Sequence[str], chosen: Sequence[Case]) -> Runtime:
    """Fit the free parameters to some cases; without cases the priors answer."""
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    start = np.log([PRIORS[name][0] for name in free])
    spread = np.array([PRIORS[name][1] for name in free])
    upper = np.log([PRIORS[name][2] for name in free])
    values = np.array([case.point.value_s for case in chosen])

    def runtime(x: Floats) -> Runtime:
        return Runtime(**dict(zip(free, np.exp(x).tolist(), strict=True)))

    def residual(x: Floats) -> Floats:
        now = runtime(x)
        predicted = np.array([case.predicted_s(now) for case in chosen])
        return np.concatenate([np.log(predicted / values) / WEIGHT, (x - start) / spread])

    if not len(chosen):
        return runtime(start)
    first = np.minimum(start, upper - 1e-3)
    found = least_squares(residual, first, bounds=(-40.0, upper), loss="soft_l1", diff_step=1e-3, max_nfev=25)
    return runtime(found.x)


def era_of(point: Point) -> Era | None:
    """The era that a point belongs to."""
    return next((era for era in ERAS if era.holds(point)), None)


def modern(point: Point) -> bool:
    """Whether a point's engine is of 2024 or later."""
    old = ("vllm-2023-step", "deepspeed-step", "fastertransformer-step")
    era = era_of(point)
    if era is None:
        return True
    return era.id not in old and not (point.engine == "tensorrt-llm" and (version_number(point.version) or 0.0) == 5.0)


def predict_held_out(
    everything: Sequence[Case], out: Callable[[Case], str], least: int = 3
) -> tuple[list[Case], Floats]:
    """Predict every case by fits that saw nothing of its group.

    Eras of which fewer than ``least`` cases are left are answered by the pooled fit of modern engines.
    """
    order: list[Case] = []
    predictions: list[float] = []
    for group in dict.fromkeys(out(case) for case in everything):
        rest = [case for case in everything if out(case) != group]
        held = [case for case in everything if out(case) == group]
        pooled: Runtime | None = None
        fits: dict[str, Runtime] = {}
        for case in held:
            era = era_of(case.point)
            mine = [c for c in rest if era is not None and era.holds(c.point)]
            if era is not None and len(mine) >= least:
                if era.id not in fits:
                    fits[era.id] = fit(era.free, mine)
                chosen = fits[era.id]
            else:
                pooled = pooled or fit(POOLED.free, [c for c in rest if modern(c.point)])
                chosen = pooled
            order.append(case)
            predictions.append(case.predicted_s(chosen))
    return order, np.array(predictions)


def figures(order: Sequence[Case], predictions: Floats) -> dict[str, Any]:
    """MAPE, median, P90 and bias."""
    errors = predictions / np.array([case.point.value_s for case in order]) - 1.0
    if not len(errors):
        return {"n": 0}
    size = np.abs(errors)
    return {
        "n": len(errors),
        "mape": round(float(size.mean()), 4),
        "median_ape": round(float(np.median(size)), 4),
        "p90_ape": round(float(np.quantile(size, 0.9)), 4),
        "bias": round(float(errors.mean()), 4),
    }
