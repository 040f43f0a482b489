"""Fit the forms of operations to aiconfigurator's measurements and write them as catalog facts.

    python -m planner.fit.operations DATA OUT

``DATA`` is the folder ``systems/data`` of the PyPI package ``aiconfigurator-core``. Errors are those
on shapes held out: five folds by shape for kernels, one message size at a time for collectives. The
parameters that are written are fitted to all rows.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from planner.measured import operations as op

Floats = NDArray[np.float64]
Rows = dict[str, NDArray[Any]]
Bounds = Mapping[str, float]

FOLDS = 5
ONE_SIZE = "one message size at a time, read from its neighbours"
SAMPLE = 4000
"""Rows of one fit; more change the parameters by less than their scatter."""
VERSION = "aiconfigurator-core 0.12.0"
CHECKED = "2026-11-25"
PEAKS = {
    "a100_sxm": ("a100-sxm-80gb", op.Peak(312e12, 2.039e12, 108)),
    "h100_sxm": ("h100-sxm-80gb", op.Peak(989.5e12, 3.35e12, 132)),
}
ENGINES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt-llm"}


@dataclass(frozen=True, slots=True)
class CopyFit:
    """A copy between host and device."""

    start_s: float
    bytes_per_s: float


FORMS: dict[str, tuple[type, tuple[float, ...]]] = {
    "gemm": (op.GemmFit, (3e-6, 0.9, 0.78, 3.5, 0.88, 0.77, 150.0, 2.4e-6, 1.2e-5, 6e-5)),
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
}
"""Relative error beyond which a row counts as an outlier of the robust fit."""
UPPER = {"compute": 1.0, "bandwidth": 0.97, "power": 8.0, "tile_128": 1.5, "tile_64": 1.5, "wave": 1.0}
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


def read(path: Path, **wanted: object) -> Rows:
    """Return the columns of a parquet file whose rows match ``wanted``."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    keep = np.ones(table.num_rows, dtype=np.bool_)
    for name, value in wanted.items():
        if name in columns:
            keep &= columns[name] == value
    return {name: values[keep] for name, values in columns.items()}


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

    step = 1e-2 if task.operation == "gemm" else 1e-3
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


def gemm(path: Path, peak: op.Peak, dtype: str) -> Task | None:
    """Matrix products of one dtype; weight-only formats multiply in 16 bits, smooth-quant in 8."""
    rows = read(path, gemm_dtype=dtype)
    keep = (rows["n"] >= 256) & (rows["k"] >= 256)
    rows = {name: values[keep] for name, values in rows.items()}
    if len(rows["m"]) < 200:
        return None
    weights, size, speed = {
        "bfloat16": ("bf16", 2.0, 1.0),
        "int8_wo": ("int8", 1.0, 1.0),
        "int4_wo": ("int4", 0.5, 1.0),
        "sq": ("w8a8", 1.0, 2.0),
        "fp8": ("fp8", 1.0, 2.0),
    }[dtype]
    fast = op.Peak(peak.flops_per_s * speed, peak.hbm_bytes_per_s, peak.multiprocessors)
    sizes = {name: rows[name].astype(np.float64) for name in ("m", "n", "k")}
    table = {**sizes, "latency": rows["latency"] * 1e-3, "fold": folds(rows["n"], rows["k"])}

    def predict(fitted: op.GemmFit, r: Rows) -> Floats:
        return op.gemm_s(fitted, fast, r["m"], r["n"], r["k"], size)

    return Task("gemm", weights, table, predict, ("m", "n", "k"))


def experts(path: Path, peak: op.Peak) -> Task:
    """Routed experts in bf16 under the milder of the two measured skews."""
    rows = read(path, moe_dtype="bfloat16", distribution="power_law_1.01", moe_ep_size=1)
    keep = rows["num_tokens"] <= 16384
    rows = {name: values[keep] for name, values in rows.items()}
    d = {k: v.astype(np.float64) for k, v in rows.items() if v.dtype.kind in "if"}
    each = 3.0 * d["hidden_size"] * d["inter_size"] / d["moe_tp_size"]
    table = {
        "tokens": d["num_tokens"],
        "touched": op.touched_experts(d["num_experts"], d["topk"], d["num_tokens"]),
        "active": d["topk"],
        "each": each,
        "width": d["hidden_size"],
        "latency": d["latency"] * 1e-3,
        "fold": folds(d["num_experts"], d["hidden_size"], d["moe_tp_size"]),
    }

    def predict(fitted: op.ExpertsFit, r: Rows) -> Floats:
        return op.experts_s(fitted, peak, r["tokens"], r["touched"], r["active"], r["each"], r["width"])

    return Task("experts", "bf16", table, predict, ("tokens", "each"))


def _attention(path: Path) -> Rows:
    # The kernels' own 16-bit caches without windows, one kernel per file.
    rows = read(path, kv_cache_dtype="bfloat16", attn_dtype="bfloat16", head_dim=128)
    keep = np.ones(len(rows["latency"]), dtype=np.bool_)
    if "window_size" in rows:
        keep &= rows["window_size"] == 0
    kernels, counts = np.unique(rows["kernel_source"][keep], return_counts=True)
    keep &= rows["kernel_source"] == kernels[counts.argmax()]
    hq = rows["num_heads"].astype(np.float64)
    hk = rows["num_key_value_heads"].astype(np.float64)
    return {
        "b": rows["batch_size"].astype(np.float64)[keep],
        "isl": rows["isl"].astype(np.float64)[keep],
        "step": rows["step"].astype(np.float64)[keep],
        "hq": hq[keep],
        "hk": np.where(hk == 0, hq, hk)[keep],
        "latency": rows["latency"][keep] * 1e-3,
    }


def prefill_attention(path: Path, peak: op.Peak) -> Task:
    """Causal attention of whole prompts of at least 1024 tokens."""
    rows = _attention(path)
    keep = (rows["isl"] >= 1024) & (rows["hq"] >= 4)
    rows = {name: values[keep] for name, values in rows.items()}
    rows["fold"] = folds(rows["hq"], rows["hk"])

    def predict(fitted: op.PrefillAttentionFit, r: Rows) -> Floats:
        return op.prefill_attention_s(fitted, peak, r["b"], r["isl"], 0.0, r["hq"], r["hk"])

    return Task("prefill_attention", "bf16", rows, predict, ("b", "isl", "hq", "hk"))


def decode_attention(path: Path, peak: op.Peak, engine: str, gpu: str) -> Task:
    """One query per sequence over at least 512 tokens; times that beat HBM came from L2 and are left out.

    TensorRT-LLM's grouped-query rows on A100 reach 1.65 times the peak, so none of them is used.
    """
    rows = _attention(path)
    rows["kv"] = rows["isl"] + rows["step"]
    cache, query = 512.0 * rows["kv"] * rows["hk"], 512.0 * rows["hq"]
    read_bytes = rows["b"] * (cache + query)
    keep = (rows["kv"] >= 512) & (read_bytes / rows["latency"] <= peak.hbm_bytes_per_s)
    if engine == "trtllm" and gpu == "a100_sxm":
        keep &= rows["hq"] == rows["hk"]
    elif engine == "vllm":
        keep &= rows["hq"] > rows["hk"]  # The scatter of plain multi-head rows is 70 % (docs/accuracy.md).
    rows = {**rows, "cache": cache, "query": query}
    rows = {name: values[keep] for name, values in rows.items()}
    rows["fold"] = folds(rows["hq"], rows["hk"])

    def predict(fitted: op.DecodeAttentionFit, r: Rows) -> Floats:
        return op.decode_attention_s(fitted, peak, r["b"], r["cache"], r["query"], r["hk"])

    return Task("decode_attention", "bf16", rows, predict, ("b", "kv", "hq", "hk"))


def all_reduce(path: Path, source: str) -> dict[str, Any]:
    """Times by size and GPU count, with the error of each size read from its neighbours."""
    rows = read(path)
    keep = np.isin(rows["kernel_source"], [k for k in set(rows["kernel_source"]) if not k.endswith("eager")])
    keep &= rows["op_name"] == "all_reduce"
    if "nccl_dtype" in rows:
        keep &= rows["nccl_dtype"] == "half"
    size = rows["message_size"][keep].astype(np.float64) * 2.0
    gpus, time = rows["num_gpus"][keep], rows["latency"][keep] * 1e-3
    keep = (size >= 4096) & (size <= 2**29)
    table, errors = reduce_table(size[keep], gpus[keep], time[keep])
    return {"table": table, "error": error_of(errors, ONE_SIZE), "source": source}


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


def write(
    out: Path, hardware: str, engine: str, version: str, operation: str, weights: str, body: dict[str, Any]
) -> None:
    """Write one catalog entry."""
    suffix = "" if weights == "bf16" else f"-{weights}"
    entry_id = f"{hardware}-{engine}-{operation.replace('_', '-')}{suffix}"
    source = {"ref": f"pypi:{VERSION} {body.pop('source')}", "provenance": "derived"}
    entry = {
        "id": entry_id,
        "name": f"{operation.replace('_', ' ')} in {weights}, {engine} {version}, {hardware}",
        "hardware": hardware,
        "engine": engine,
        "engine_version": version,
        "operation": operation,
        "weights": weights,
        **body,
        "sources": [{**source, "note": "fitted by planner.fit.operations"}],
        "checked": CHECKED,
    }
    text = yaml.safe_dump(entry, sort_keys=False, width=118, default_flow_style=None)
    header = "# yaml-language-server: $schema=../schema/measurements.json\n"
    (out / f"{entry_id}.yaml").write_text(header + text.replace(f"'{CHECKED}'", CHECKED), encoding="utf-8")


def _one(folder: Path, name: str) -> Path | None:
    """The newest version's file, of those with at least half as much data as the largest."""
    found = sorted(folder.glob(f"*/{name}"), key=lambda p: [int(part) for part in re.findall(r"\d+", p.parent.name)])
    largest = max((path.stat().st_size for path in found), default=0)
    return next((path for path in reversed(found) if path.stat().st_size * 2 >= largest), None)


def tasks(data: Path, gpu: str, engine: str, peak: op.Peak) -> list[tuple[Path, Task]]:
    """All fits of one GPU and engine, each with its file."""
    found: list[tuple[Path, Task]] = []
    folder = data / gpu
    if path := _one(folder / "gemm" / engine, "gemm_perf.parquet"):
        for dtype in ("bfloat16", "int8_wo", "int4_wo", "sq", "fp8"):
            # The H100's weight-only rows mix kernels (22 % scatter).
            mixed = gpu == "h100_sxm" and dtype in ("int8_wo", "int4_wo", "sq")
            if not mixed and (task := gemm(path, peak, dtype)):
                found.append((path, task))
    if path := _one(folder / "moe" / engine, "moe_perf.parquet"):
        found.append((path, experts(path, peak)))
    if path := _one(folder / "attention" / engine, "context_attention_perf.parquet"):
        found.append((path, prefill_attention(path, peak)))
    if path := _one(folder / "attention" / engine, "generation_attention_perf.parquet"):
        found.append((path, decode_attention(path, peak, engine, gpu)))
    return found


def fit_kernels(data: Path, out: Path, gpu: str, engine: str, only: set[str]) -> None:
    """Fit and write the kernels of one GPU and engine."""
    hardware, peak = PEAKS[gpu]
    for path, task in tasks(data, gpu, engine, peak):
        if only and task.operation not in only:
            continue
        fitted, errors = judge(task, SCALES[task.operation])
        parameters = {f.name: getattr(fitted, f.name) for f in fields(fitted)}
        body: dict[str, Any] = {
            "parameters": parameters,
            "error": error_of(errors, "shapes, in five folds"),
            "valid": {v: [float(task.rows[v].min()), float(task.rows[v].max())] for v in task.valid},
            "source": f"systems/data/{path.relative_to(data)}",
        }
        if task.operation == "gemm":
            parameters["multiprocessors"] = peak.multiprocessors
        if task.operation == "decode_attention":
            big = error_of(errors[task.rows["b"] * task.rows["cache"] > 64e6], "")
            body["notes"] = f"above 64 MB of cache: MAPE {big['mape']}, P90 {big['p90']}, {big['points']} rows"
        print(gpu, engine, task.operation, task.weights, body["error"], body.get("notes", ""), flush=True)
        write(out, hardware, ENGINES[engine], path.parent.name, task.operation, task.weights, body)


def main() -> None:
    """Fit everything and write the catalog entries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder systems/data of aiconfigurator-core")
    parser.add_argument("out", type=Path, help="folder of the catalog's measurements")
    parser.add_argument("--only", default="", help="operations to fit, separated by commas (default: all)")
    parser.add_argument("--engines", default="", help="vllm, sglang or trtllm, separated by commas (default: all)")
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    engines = set(filter(None, arguments.engines.split(","))) or set(ENGINES)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for gpu, (hardware, _) in PEAKS.items():
        for engine, name in ENGINES.items():
            if engine not in engines:
                continue
            fit_kernels(arguments.data, arguments.out, gpu, engine, only)
            comm = _one(arguments.data / gpu / "comm" / engine, "custom_allreduce_perf.parquet")
            if comm and (not only or "all_reduce" in only):
                body = {"parameters": {}, **all_reduce(comm, f"systems/data/{comm.relative_to(arguments.data)}")}
                print(gpu, engine, "all_reduce", body["error"])
                write(arguments.out, hardware, name, comm.parent.name, "all_reduce", "bf16", body)


if __name__ == "__main__":
    main()
