"""One GPU with one engine, as its measurements describe it.

Where a GPU or an engine has no measurements, another's are transferred: shares of the peaks and
start-up times stay, the peaks are the GPU's own. What was transferred is said, and widens intervals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

from catalog.load import Catalog
from catalog.schema import Hardware, Measurement
from planner.measured import operations as op

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

F = TypeVar("F", bound="DataclassInstance")

DEFAULT_ENGINE = "vllm"
REFERENCES = {"ampere": "a100-sxm-80gb", "ada": "a100-sxm-80gb"}
"""GPU generation -> GPU whose measurements are transferred; all others take the default."""
DEFAULT_REFERENCE = "h100-sxm-80gb"
QUANTISED_COMPUTE = 0.93
"""Rate of products with quantised weights over those in 16 bits, where only the latter are measured.
TensorRT-LLM's weight-only products on A100 take up to 10 % longer at 1024 rows and more."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an engine adds to the kernels of a step."""

    host_s: float = 0.0
    """Host time per decode step that the GPU waits for [s]."""
    host_rank_s: float = 0.0
    """The same for every doubling of tensor-parallel ranks [s]."""
    host_sequence_s: float = 0.0
    """The same per sequence of the batch [s]."""
    launch_layer_s: float = 0.0
    """Time to launch one layer's kernels one by one; the slower of launching and computing counts [s]."""
    prefill_host_s: float = 0.0
    """Host time per prefill chunk [s]."""
    decode_gpu: float = 1.0
    """GPU time of a decode step over that of its kernels measured alone."""
    decode_token_s: float = 0.0
    """Time per cached token that one layer's decode attention takes at least, where a kernel doesn't split
    a sequence over multiprocessors [s]."""
    grouped_reads: float = 1.0
    """Times that decode attention reads a cache whose KV heads serve several queries."""
    collective_s: float = 0.0
    """Time of an all-reduce beyond the measured kernel: waiting for the slowest rank, a slower library [s]."""
    distinct: float = 1.0
    """Power of the batch that its distinct tokens grow with; below 1 for benchmarks that repeat one prompt."""
    prefill_gpu: float = 1.0
    """GPU time of prefill over that of its kernels measured alone: clocks under sustained load, padding."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of one GPU with one engine."""

    hardware: str
    engine: str
    version: str
    peak: op.Peak
    """In 16 bits."""
    int8: op.Peak
    """In the eight-bit precision that the GPU multiplies in; equal to `peak` where it has none."""
    gemm: dict[str, op.GemmFit]
    """By precision of the weights: bf16, int8, int4, w8a8, fp8."""
    experts: op.ExpertsFit
    prefill: op.PrefillAttentionFit
    decode: op.DecodeAttentionFit
    all_reduce: op.AllReduceFit
    elementwise: op.ElementwiseFit
    runtime: Runtime
    transferred: tuple[str, ...]
    """What was taken from another GPU or engine."""


def machine(catalog: Catalog, hardware: Hardware, engine: str, version: str = "") -> Machine:
    """Rates of a GPU with an engine from the catalog's measurements.

    Parameters
    ----------
    catalog
        The facts.
    hardware
        The GPU.
    engine, version
        Id of the engine, and its version; empty means the newest.

    Raises
    ------
    KeyError
        If the catalog has no measurements at all for an operation.
    """
    found = _by_operation(catalog)
    reference = REFERENCES.get(hardware.generation.lower(), DEFAULT_REFERENCE)
    notes: list[str] = []

    def of(operation: str, weights: str = "bf16") -> Measurement:
        for gpu in dict.fromkeys((hardware.id, reference, DEFAULT_REFERENCE, *REFERENCES.values())):
            for name in dict.fromkeys((engine, DEFAULT_ENGINE, "tensorrt-llm")):
                entry = found.get((operation, weights, gpu, name))
                if entry is not None:
                    if gpu != hardware.id or name != engine:
                        notes.append(f"{operation} in {weights} from {name} on {gpu}")
                    return entry
        raise KeyError(f"the catalog has no measurement of {operation} in {weights}")

    bf16 = of("gemm")
    sms = round(bf16.parameters["multiprocessors"] * _scale(catalog, hardware, bf16.hardware))
    flops = hardware.flops
    eight = max(flops.int8 or 0.0, flops.fp8 or 0.0) or flops.bf16
    return Machine(
        hardware=hardware.id,
        engine=engine,
        version=version,
        peak=op.Peak(flops.bf16, hardware.hbm_bandwidth, sms),
        int8=op.Peak(eight, hardware.hbm_bandwidth, sms),
        gemm={"bf16": _read(op.GemmFit, bf16)}
        | {w: _quantised(found, bf16, w) for w in ("int8", "int4", "w8a8", *(("fp8",) if flops.fp8 else ()))},
        experts=_read(op.ExpertsFit, of("experts")),
        prefill=_read(op.PrefillAttentionFit, of("prefill_attention")),
        decode=_read(op.DecodeAttentionFit, of("decode_attention")),
        all_reduce=_all_reduce(of("all_reduce"), catalog, hardware),
        elementwise=_read(op.ElementwiseFit, of("elementwise")),
        runtime=runtime(catalog, engine, version),
        transferred=tuple(dict.fromkeys(notes)),
    )


def runtime(catalog: Catalog, engine: str, version: str = "") -> Runtime:
    """What an engine at a version adds to its kernels; the newest known version answers for newer ones."""
    number = version_number(version)
    known = [m for m in catalog.all(Measurement) if m.operation == "step" and m.engine == engine]
    known = known or [m for m in catalog.all(Measurement) if m.operation == "step" and m.engine == DEFAULT_ENGINE]
    if not known:
        return Runtime()
    ordered = sorted(known, key=lambda m: m.valid["version"])
    if number is None:
        return _read(Runtime, ordered[-1])
    inside = [m for m in ordered if m.valid["version"][0] <= number]
    return _read(Runtime, inside[-1] if inside else ordered[0])


def version_number(version: str) -> float | None:
    """A version as one number, ``100 * major + minor``; None where it isn't one. Dates count as years.

    >>> version_number("0.6.3"), version_number("1.0.0rc3"), version_number("2024-09"), version_number("main")
    (6.0, 100.0, 202400.0, None)
    """
    found = re.search(r"(\d+)(?:[.](\d+))?", version)
    if found is None:
        return None
    return 100.0 * int(found[1]) + int(found[2] or 0)


def _quantised(found: dict[tuple[str, str, str, str], Measurement], bf16: Measurement, weights: str) -> op.GemmFit:
    """The engine's own measurement in a precision, else its 16-bit one with a slower multiplication."""
    own = found.get(("gemm", weights, bf16.hardware, bf16.engine))
    if own is not None:
        return _read(op.GemmFit, own)
    fit = _read(op.GemmFit, bf16)
    return replace(fit, compute=fit.compute * QUANTISED_COMPUTE)


def _by_operation(catalog: Catalog) -> dict[tuple[str, str, str, str], Measurement]:
    entries = catalog.all(Measurement)
    return {(m.operation, m.weights, m.hardware, m.engine): m for m in entries if m.operation != "step"}


def _read(form: type[F], entry: Measurement) -> F:
    return form(**{f.name: entry.parameters[f.name] for f in fields(form) if f.name in entry.parameters})


def _scale(catalog: Catalog, hardware: Hardware, reference: str) -> float:
    """Multiprocessors over those of the reference, if each is as fast."""
    return hardware.flops.bf16 / catalog.get(Hardware, reference).flops.bf16


def _all_reduce(entry: Measurement, catalog: Catalog, hardware: Hardware) -> op.AllReduceFit:
    """The entry's table; on another GPU, large messages scale with the link, small ones don't."""
    table = entry.table
    times = {int(name[2:]): values for name, values in table.items() if name.startswith("s_")}
    fit = op.AllReduceFit(tuple(table["bytes"]), times)
    if entry.hardware == hardware.id:
        return fit
    own = hardware.gpu_link.effective if hardware.gpu_link else hardware.pcie.effective
    reference = catalog.get(Hardware, entry.hardware).gpu_link
    slower = (reference.effective if reference else own) / own
    scaled = {n: tuple(min(v) + (t - min(v)) * slower for t in v) for n, v in times.items()}
    return replace(fit, times_s=scaled)
