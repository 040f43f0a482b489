"""Fit what engines add to their kernels to measured end-to-end points, and judge it on points held out.

    python -m planner.fit.runtime POINTS.csv OUT

Each era of an engine has a few parameters (`planner.measured.machine.Runtime`); the kernels stay as
they were measured. Fits are by robust least squares in the log, drawn towards weak priors. They are
judged three ways: leaving out a source, leaving out a model within a source, and with eras of which
nothing is left answered by the pooled fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from catalog.load import Catalog, open_catalog
from catalog.schema import Hardware
from planner.measured.batch import Batch, Deployment
from planner.measured.machine import (
    ANY_ENGINE,
    DEFAULT_REFERENCE,
    REFERENCES,
    Machine,
    Runtime,
    machine,
    version_number,
)
from planner.measured.points import Point, PointError, deployment_of, read_points
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
    "grouped_reads": (2.0, 0.5, 8.0),
    "collective_s": (5e-6, 1.0, 1e-3),
    "distinct": (0.7, 0.7, 1.0),
    "hopper_gpu": (1.1, 0.2, 3.0),
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
    fixed: tuple[tuple[str, float], ...] = ()
    """What is known of its code, not fitted."""
    own_kernels: bool = False
    """Whether it runs kernels that nobody measured, so that their priors are wide."""

    def holds(self, point: Point) -> bool:
        """Whether a point was measured in this era."""
        number = version_number(point.version)
        return point.engine == self.engine and self.versions[0] <= (number or 0.0) < self.versions[1]


SERVING = ("host_s", "host_rank_s", "host_sequence_s", "collective_s", "decode_gpu", "prefill_gpu", "prefill_host_s")
EAGER = ("host_s", "launch_layer_s", "host_rank_s", "host_sequence_s", "prefill_gpu", "decode_gpu", "prefill_host_s")
UNFUSED = (("unfused", 2.6),)
"""Transformers runs norms, rotary positions and activations as separate PyTorch kernels, norms in 32 bits: about
87 bytes per hidden element and 10 per inner one, where fused kernels move 26 and 6 (counted in its Llama code)."""
STRUCTURAL = ("grouped_reads",)
"""What the kernels of an era do, whatever its host: paged attention reads a cache once per query head."""
WIDE = {"decode_gpu": 0.3, "prefill_gpu": 0.3}
"""Spreads of priors for kernels that nobody measured, in the log."""
ERAS = (
    Era("vllm-2023-step", "vllm", (0, 3), (*EAGER, "grouped_reads", "hopper_gpu"), "vLLM 0.1 to 0.2"),
    Era("vllm-0.4-step", "vllm", (3, 5), (*SERVING, "grouped_reads"), "vLLM 0.3 to 0.4"),
    Era("vllm-0.5-step", "vllm", (5, 8), (*SERVING, "hopper_gpu"), "vLLM 0.5 to 0.7"),
    Era("vllm-0.8-step", "vllm", (8, 1e9), SERVING, "vLLM 0.8 and later"),
    Era(
        "tensorrt-llm-0-step",
        "tensorrt-llm",
        (0, 100),
        (*SERVING, "grouped_reads", "decode_token_s", "distinct", "hopper_gpu"),
        "TensorRT-LLM 0.x",
    ),
    Era("tensorrt-llm-1-step", "tensorrt-llm", (100, 1e9), SERVING, "TensorRT-LLM 1.0 and later"),
    Era("gpt-fast-step", "gpt-fast", (0, 1e9), ("host_s", "decode_gpu", "collective_s"), "gpt-fast", (), True),
    Era("transformers-step", "transformers", (0, 1e9), ("prefill_host_s", "prefill_gpu"), "Transformers", UNFUSED),
    Era("llama.cpp-step", "llama.cpp", (0, 1e9), ("host_s", "decode_gpu"), "llama.cpp", (), True),
    Era(
        "deepspeed-step",
        "deepspeed",
        (0, 1e9),
        ("host_s", "host_sequence_s", "decode_gpu"),
        "DeepSpeed-Inference",
        (),
        True,
    ),
    Era(
        "fastertransformer-step",
        "fastertransformer",
        (0, 1e9),
        ("host_s", "collective_s", "decode_gpu", "prefill_gpu"),
        "FasterTransformer",
        (),
        True,
    ),
)
POOLED = Era("any-step", ANY_ENGINE, (0, 1e9), SERVING, "all engines of 2024 and later")
OLD = ("vllm-2023-step", "deepspeed-step", "fastertransformer-step")
"""Eras before 2024."""
SHRINK = 10.0
"""Points with which the spread of all eras counts in that of one."""
LENGTH = 0.2
"""Widening by `planner.measured.interval.DOUBLINGS` doublings beyond the measured lengths: the error at 100K to
1M tokens of the only source there, when its engine is left out."""


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


def fit(era: Era, chosen: Sequence[Case]) -> Runtime:
    """Fit an era's free parameters to some cases; without cases the priors answer."""
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    free = era.free
    start = np.log([PRIORS[name][0] for name in free])
    spread = np.array([WIDE.get(name, PRIORS[name][1]) if era.own_kernels else PRIORS[name][1] for name in free])
    upper = np.log([PRIORS[name][2] for name in free])
    values = np.array([case.point.value_s for case in chosen])

    def runtime(x: Floats) -> Runtime:
        return Runtime(**dict(era.fixed), **dict(zip(free, np.exp(x).tolist(), strict=True)))

    def residual(x: Floats) -> Floats:
        now = runtime(x)
        predicted = np.array([case.predicted_s(now) for case in chosen])
        return np.concatenate([np.log(predicted / values) / WEIGHT, (x - start) / spread])

    if not len(chosen):
        return runtime(start)
    first = np.minimum(start, upper - 1e-3)
    found = least_squares(
        residual, first, bounds=(-40.0, upper), loss="soft_l1", diff_step=1e-3, max_nfev=25, ftol=1e-4, xtol=1e-4
    )
    return runtime(found.x)


def era_of(point: Point) -> Era | None:
    """The era that a point belongs to."""
    return next((era for era in ERAS if era.holds(point)), None)


def modern(point: Point) -> bool:
    """Whether a point's engine is of 2024 or later."""
    era = era_of(point)
    if era is None:
        return True
    return era.id not in OLD and not (point.engine == "tensorrt-llm" and version_number(point.version) == 5.0)


@dataclass(frozen=True)
class HeldOut:
    """A case predicted by a fit that saw nothing of its group."""

    case: Case
    predicted_s: float
    pooled: bool
    """Whether nothing of its era was left, so that the pooled fit answered."""

    @property
    def error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.predicted_s / self.case.point.value_s - 1.0

    @property
    def size_log(self) -> float:
        """Absolute error in the logarithm."""
        return abs(float(np.log(self.predicted_s / self.case.point.value_s)))

    @property
    def in_waves(self) -> bool:
        """Whether the batch exceeds the KV cache."""
        batch = self.case.batch
        needed = batch.sequences * (batch.input_tokens + batch.output_tokens)
        return self.case.point.metric == "e2e_s" and needed > self.case.deployment.capacity_tokens


def predict_held_out(everything: Sequence[Case], group_of: Callable[[Case], str], least: int = 3) -> list[HeldOut]:
    """Predict every case by fits that saw nothing of its group.

    Eras of which fewer than ``least`` cases are left are answered by the pooled fit of modern engines.
    """
    found: list[HeldOut] = []
    for group in dict.fromkeys(group_of(case) for case in everything):
        rest = [case for case in everything if group_of(case) != group]
        fits: dict[str, Runtime] = {}
        for case in (case for case in everything if group_of(case) == group):
            era = era_of(case.point)
            mine = [c for c in rest if era is not None and era.holds(c.point)]
            known = era is not None and len(mine) >= least
            chosen = era if era is not None and known else POOLED
            if chosen.id not in fits:
                fits[chosen.id] = fit(chosen, mine if known else [c for c in rest if modern(c.point)])
            runtime = fits[chosen.id] if known else structured(fits[chosen.id], era)
            found.append(HeldOut(case, case.predicted_s(runtime), not known))
    return found


def structured(pooled: Runtime, era: Era | None) -> Runtime:
    """The pooled fit with what is known of an era without points: its code."""
    if era is None:
        return pooled
    priors = {name: PRIORS[name][0] for name in STRUCTURAL if name in era.free}
    return replace(pooled, **dict(era.fixed), **priors)


def figures(held: Sequence[HeldOut]) -> dict[str, Any]:
    """MAPE, median, P90 and bias."""
    errors = np.array([one.error for one in held])
    size = np.abs(errors)
    return {
        "n": len(held),
        "mape": round(float(size.mean()), 4),
        "median_ape": round(float(np.median(size)), 4),
        "p90_ape": round(float(np.quantile(size, 0.9)), 4),
        "bias": round(float(errors.mean()), 4),
    }


def spread(held: Sequence[HeldOut], everything: Sequence[HeldOut]) -> float:
    """Half-width that covers 80 % of an era's errors, drawn towards that of all eras."""
    common = _quantile(everything)
    if not held:
        return round(common, 3)
    return round((len(held) * _quantile(held) + SHRINK * common) / (len(held) + SHRINK), 3)


def _quantile(held: Sequence[HeldOut]) -> float:
    return float(np.quantile([one.size_log for one in held], 0.8))


def covered(held: Sequence[HeldOut]) -> dict[str, bool]:
    """Point's id -> whether it is inside an interval whose width comes from the other sources' errors only."""
    inside = {}
    for one in held:
        others = [o for o in held if o.case.point.source != one.case.point.source]
        others = [o for o in others if o.in_waves == one.in_waves] or others
        era = era_of(one.case.point)
        mine = [o for o in others if era_of(o.case.point) == era]
        inside[one.case.point.id] = one.size_log <= spread(mine, others)
    return inside


def transfer_width(everything: Sequence[Case], catalog: Catalog) -> float:
    """Half-width that covers 80 % of the change when one chip's kernels are taken for the other's.

    The larger of both directions: the A100's kernels on the H100's peaks, and the H100's on the A100's.
    """
    ampere, hopper = (catalog.get(Hardware, name) for name in (REFERENCES["ampere"], DEFAULT_REFERENCE))
    widths = []
    for target, source in ((hopper, ampere), (ampere, hopper)):
        changes = []
        for case in everything:
            if case.point.hardware == target.id and modern(case.point):
                own = case.deployment.machine
                foreign = _on(machine(catalog, source, case.point.engine, case.point.version), own)
                other = replace(case, deployment=replace(case.deployment, machine=foreign))
                changes.append(abs(np.log(other.predicted_s(own.runtime) / case.predicted_s(own.runtime))))
        widths.append(float(np.quantile(changes, 0.8)))
    return round(max(widths), 3)


def _on(kernels: Machine, gpu: Machine) -> Machine:
    """One GPU's kernels on another's peaks."""
    return replace(kernels, peak=gpu.peak, int8=gpu.int8, all_reduce=gpu.all_reduce, is_hopper=gpu.is_hopper)


def write_step(out: Path, era: Era, runtime: Runtime, width: float, held: Sequence[HeldOut], source: str) -> None:
    """Write an era as a catalog entry."""
    own = figures(held) if held else None
    names = (*era.free, *(name for name, _ in era.fixed))
    parameters = {name: float(f"{getattr(runtime, name):.4g}") for name in names} | {"spread": width}
    entry: dict[str, Any] = {
        "id": era.id,
        "name": f"what {era.title} adds to its kernels",
        "hardware": "a100-sxm-80gb",
        "engine": era.engine,
        "engine_version": era.title,
        "operation": "step",
        "parameters": parameters,
        "error": None,
        "valid": {"version": [float(era.versions[0]), float(min(era.versions[1], 1e6))]},
        "sources": [
            {
                "ref": source,
                "provenance": "derived",
                "note": "fitted by planner.fit.runtime; the points name their sources",
            }
        ],
        "checked": CHECKED,
    }
    if own is not None:
        shown = {"mape": "mape", "p90": "p90_ape", "bias": "bias", "points": "n"}
        entry["error"] = {k: own[v] for k, v in shown.items()} | {"held_out": "one model of one source at a time"}
    _write(out / f"{era.id}.yaml", entry)


def write_interval(out: Path, parameters: dict[str, float], source: str) -> None:
    """Write what widens intervals as a catalog entry."""
    entry = {
        "id": "interval",
        "name": "what widens the 80 % interval of a predicted time, in the logarithm",
        "hardware": "a100-sxm-80gb",
        "engine": ANY_ENGINE,
        "engine_version": "any",
        "operation": "interval",
        "parameters": parameters,
        "error": None,
        "sources": [{"ref": source, "provenance": "derived", "note": "by planner.fit.runtime, see docs/accuracy.md"}],
        "checked": CHECKED,
    }
    _write(out / "interval.yaml", entry)


def _write(path: Path, entry: dict[str, Any]) -> None:
    text = yaml.safe_dump(entry, sort_keys=False, width=118, default_flow_style=None)
    header = "# yaml-language-server: $schema=../schema/measurements.json\n"
    path.write_text(header + text.replace(f"'{CHECKED}'", CHECKED), encoding="utf-8")


def report(title: str, held: Sequence[HeldOut]) -> None:
    """Print figures with and without the oldest engines, on A100, and per source."""
    print(f"## {title}")
    a100 = [one for one in held if one.case.point.hardware.startswith("a100")]
    groups = {
        "all points": held,
        "engines of 2024 and later": [one for one in held if modern(one.case.point)],
        "A100": a100,
        "A100, engines of 2024 and later": [one for one in a100 if modern(one.case.point)],
    }
    for source in dict.fromkeys(one.case.point.source for one in held):
        groups[source] = [one for one in held if one.case.point.source == source]
    inside = covered(held)
    for name, group in groups.items():
        share = np.mean([inside[one.case.point.id] for one in group])
        print(f"{name}: {figures(group)} coverage_80 {share:.3f}", flush=True)


def main() -> None:
    """Fit every era, judge it on what was held out, and write the catalog entries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path, help="CSV of measured points")
    parser.add_argument("out", type=Path, help="folder of the catalog's measurements")
    arguments = parser.parse_args()
    catalog = open_catalog()
    everything = cases(catalog, read_points(arguments.points))
    source = f"catalog/measurements/{arguments.points.name}"
    by_model = predict_held_out(everything, lambda case: f"{case.point.source} {case.point.model}")
    report("one model of one source held out", by_model)
    by_source = predict_held_out(everything, lambda case: case.point.source)
    report("one source held out", by_source)
    fitting = [one for one in by_model if not one.in_waves and modern(one.case.point)]
    for era in (*ERAS, POOLED):
        mine = [c for c in everything if (modern(c.point) if era is POOLED else era.holds(c.point))]
        judged = [one for one in by_model if not one.in_waves and era.holds(one.case.point)]
        runtime = fit(era, mine)
        write_step(arguments.out, era, runtime, spread(judged, fitting), judged, source)
        print(era.id, len(mine), {name: float(f"{getattr(runtime, name):.3g}") for name in era.free}, flush=True)
    base = _quantile(fitting)
    engine = _quantile([one for one in by_source if one.pooled and modern(one.case.point)])
    waves = _quantile([one for one in by_model if one.in_waves])
    wider = {
        "gpu": transfer_width(everything, catalog),
        "engine": round(float(np.sqrt(max(engine**2 - base**2, 0.0))), 3),
        "waves": round(float(np.sqrt(max(waves**2 - base**2, 0.0))), 3),
        "length": LENGTH,
    }
    write_interval(arguments.out, wider, source)
    print(wider)


if __name__ == "__main__":
    main()
