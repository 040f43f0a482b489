"""Fit the forms of operations to aiconfigurator's measurements and write them as catalog facts.

    python -m planner.fit.operations DATA OUT

``DATA`` is the folder ``systems/data`` of the PyPI package ``aiconfigurator-core``. Errors are those
on shapes held out: five folds by shape for kernels, one message size at a time for collectives. The
parameters that are written are fitted to all rows.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from planner.fit.forms import FORMS, ONE_SIZE, SCALES, Floats, Rows, Task, error_of, folds, judge, reduce_table
from planner.measured import operations as op

VERSION = "aiconfigurator-core 0.12.0"
CHECKED = "2026-11-25"
PEAKS = {
    "a100_sxm": ("a100-sxm-80gb", op.Peak(312e12, 2.039e12, 108)),
    "h100_sxm": ("h100-sxm-80gb", op.Peak(989.5e12, 3.35e12, 132)),
}
SHORTEST_PROMPT, LONG_PROMPT = 128, 1024
"""Shortest prompts that are fitted; and those from which on an entry gives its error, that of shorter ones being in its
notes [tokens]."""
ENGINES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt-llm"}
ATTENTION_BACKENDS = {
    ("a100-sxm-80gb", "vllm"): ["FLASH_ATTN"],
    ("h100-sxm-80gb", "vllm"): ["FLASH_ATTN", "TRITON_FLASH_ATTN"],
    ("a100-sxm-80gb", "sglang"): ["flashinfer", "fa3"],
    ("h100-sxm-80gb", "sglang"): ["fa3"],
}
"""GPU and engine -> the engine's names of what ``kernel_source`` has most rows of: vllm_flash_attn, flash_attention,
fa3. A100's rows of SGLang don't tell which of its two kernels it was; TRITON_FLASH_ATTN takes Triton for images."""


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
    """Causal attention of whole prompts."""
    rows = _attention(path)
    keep = (rows["isl"] >= SHORTEST_PROMPT) & (rows["hq"] >= 4)
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


def _kernels(hardware: str, engine: str, operation: str) -> dict[str, list[str]]:
    """Return the engine's names for the kernels that ``kernel_source`` of an attention table tells."""
    names = ATTENTION_BACKENDS.get((hardware, engine)) if operation.endswith("_attention") else None
    return {"attention_backends": names} if names else {}


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
        **_kernels(hardware, engine, operation),
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


def every_split(task: Task) -> Iterator[tuple[str, dict[str, Any]]]:
    """Held-out errors with each value of one size in one fold, size by size: lengths, batches, heads, widths."""
    for name in task.valid:
        rows = {**task.rows, "fold": folds(task.rows[name])}
        _, errors = judge(replace(task, rows=rows), SCALES[task.operation])
        if task.operation == "decode_attention":
            errors = errors[rows["b"] * rows["cache"] > 64e6]
            name += ", above 64 MB of cache"
        if task.operation == "prefill_attention":
            errors = errors[rows["isl"] >= LONG_PROMPT]
            name += f", prompts of {LONG_PROMPT} tokens and more"
        yield name, error_of(errors, f"each {name} in one of five folds")


def fit_kernels(data: Path, out: Path, gpu: str, engine: str, only: set[str], splits: bool) -> None:
    """Fit and write the kernels of one GPU and engine; ``splits`` also prints errors on other kinds of folds."""
    hardware, peak = PEAKS[gpu]
    for path, task in tasks(data, gpu, engine, peak):
        if only and task.operation not in only:
            continue
        fitted, errors = judge(task, SCALES[task.operation])
        free = fields(fitted)[: len(FORMS[task.operation][1])]
        parameters = {f.name: getattr(fitted, f.name) for f in free}
        body: dict[str, Any] = {
            "parameters": parameters,
            "error": error_of(errors, "shapes, in five folds"),
            "valid": {v: [float(task.rows[v].min()), float(task.rows[v].max())] for v in task.valid},
            "source": f"systems/data/{path.relative_to(data)}",
        }
        if task.operation == "gemm":
            parameters["multiprocessors"] = peak.multiprocessors
        if task.operation == "prefill_attention":
            long = task.rows["isl"] >= LONG_PROMPT
            short = error_of(errors[~long], "")
            body["error"] = error_of(errors[long], f"shapes, in five folds; prompts of {LONG_PROMPT} tokens and more")
            body["notes"] = f"shorter prompts: MAPE {short['mape']}, P90 {short['p90']}, {short['points']} rows"
        if task.operation == "decode_attention":
            big = error_of(errors[task.rows["b"] * task.rows["cache"] > 64e6], "")
            body["notes"] = f"above 64 MB of cache: MAPE {big['mape']}, P90 {big['p90']}, {big['points']} rows"
        print(gpu, engine, task.operation, task.weights, body["error"], body.get("notes", ""), flush=True)
        for name, error in every_split(task) if splits else ():
            print(f"  each {name} in one fold: {error}", flush=True)
        write(out, hardware, ENGINES[engine], path.parent.name, task.operation, task.weights, body)


def main() -> None:
    """Fit everything and write the catalog entries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder systems/data of aiconfigurator-core")
    parser.add_argument("out", type=Path, help="folder of the catalog's measurements")
    parser.add_argument("--only", default="", help="operations to fit, separated by commas (default: all)")
    parser.add_argument("--engines", default="", help="vllm, sglang or trtllm, separated by commas (default: all)")
    parser.add_argument("--every-split", action="store_true", help="also judge on every size held out, one by one")
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    engines = set(filter(None, arguments.engines.split(","))) or set(ENGINES)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for gpu, (hardware, _) in PEAKS.items():
        for engine, name in ENGINES.items():
            if engine not in engines:
                continue
            fit_kernels(arguments.data, arguments.out, gpu, engine, only, arguments.every_split)
            comm = _one(arguments.data / gpu / "comm" / engine, "custom_allreduce_perf.parquet")
            if comm and (not only or "all_reduce" in only):
                body = {"parameters": {}, **all_reduce(comm, f"systems/data/{comm.relative_to(arguments.data)}")}
                print(gpu, engine, "all_reduce", body["error"])
                write(arguments.out, hardware, name, comm.parent.name, "all_reduce", "bf16", body)


if __name__ == "__main__":
    main()
