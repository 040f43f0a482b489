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
SERVING = ("sglang", "lmdeploy")
"""Engines whose host time is taken to be that of the newest default engine, for want of points."""
ANY_ENGINE = "any"
"""Engine id of the host time that all engines of 2024 and later share."""
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
    hopper_gpu: float = 1.0
    """Factor on all GPU time on Hopper, for kernels that were made for Ampere."""
    unfused: float = 1.0
    """Elementwise traffic and kernels over those of an engine that fuses them."""
    prefill_gpu: float = 1.0
    """GPU time of prefill over that of its kernels measured alone: clocks under sustained load, padding."""
    spread: float = 0.3
    """Half-width of the 80 % interval of a predicted time, in the logarithm."""


@dataclass(frozen=True, slots=True)
class Widening:
    """What widens an interval, in the logarithm; independent parts add up in squares."""

    gpu: float = 0.0
    """Kernels of another chip."""
    engine: float = 0.0
    """Another engine's host time."""
    waves: float = 0.0
    """Batches beyond the KV cache."""
    length: float = 0.0
    """Lengths that nobody measured kernels at."""


PREFILL_TOKENS, DECODE_TOKENS = 16_384, 131_072
"""Longest sequences on which the built-in measurements of attention kernels rest [tokens]."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which measurements a machine is made of, and how far they go. No time depends on it."""

    entries: tuple[str, ...] = ()
    """Ids of the catalog's measurements."""
    here: tuple[str, ...] = ()
    """What was measured on the user's own machine, in words."""
    prefill_tokens: float = PREFILL_TOKENS
    """Longest sequence whose prefill was measured [tokens]."""
    decode_tokens: float = DECODE_TOKENS
    """Longest cache that a measured decode step attends to [tokens]."""
    over_prefix: bool = False
    """Whether prefill of chunks over a longer prefix was measured."""


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
    widening: Widening
    is_hopper: bool
    transferred: tuple[str, ...]
    """What was taken from another GPU or engine."""
    reach: Reach = Reach()

    @property
    def older(self) -> float:
        """Factor on GPU time for an engine's kernels that were made for an older generation."""
        return self.runtime.hopper_gpu if self.is_hopper else 1.0


def machine(catalog: Catalog, hardware: Hardware, engine: str, version: str = "", *, linked: bool = True) -> Machine:
    """Rates of a GPU with an engine from the catalog's measurements.

    Parameters
    ----------
    catalog
        The facts.
    hardware
        The GPU.
    engine, version
        Id of the engine, and its version; empty means the newest.
    linked
        Whether the GPUs of a server are linked directly; without, they exchange over PCIe.

    Raises
    ------
    KeyError
        If the catalog has no measurements at all for an operation.
    """
    found = _by_operation(catalog)
    reference = REFERENCES.get(hardware.generation.lower(), DEFAULT_REFERENCE)
    notes: dict[str, list[str]] = {}
    used: dict[str, Measurement] = {}

    def of(operation: str, weights: str = "bf16") -> Measurement:
        for gpu in dict.fromkeys((hardware.id, reference, DEFAULT_REFERENCE, *REFERENCES.values())):
            for name in dict.fromkeys((engine, DEFAULT_ENGINE, "tensorrt-llm")):
                entry = found.get((operation, weights, gpu, name))
                if entry is not None:
                    used[operation] = entry
                    if gpu != hardware.id or name != engine:
                        notes.setdefault(f"{name} on {gpu}", []).append(operation.replace("_", " "))
                    return entry
        raise KeyError(f"the catalog has no measurement of {operation} in {weights}")

    bf16 = of("gemm")
    sms = max(1, round(bf16.parameters["multiprocessors"] * _scale(catalog, hardware, bf16.hardware)))
    sms_differ = sms != round(bf16.parameters["multiprocessors"])
    step = _step(catalog, engine, version)
    other = step is None or step.engine != engine
    if other:
        notes.setdefault(step.engine_version if step else "nothing known", []).append("host time")
    flops = hardware.flops
    eight = max(flops.int8 or 0.0, flops.fp8 or 0.0) or flops.bf16
    found_here = Machine(
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
        all_reduce=_all_reduce(of("all_reduce"), catalog, hardware, linked),
        elementwise=_read(op.ElementwiseFit, of("elementwise")),
        runtime=_read(Runtime, step) if step else Runtime(),
        widening=_widening(catalog, other_chip=bf16.hardware != hardware.id and sms_differ, other_engine=other),
        is_hopper=hardware.generation.lower() == "hopper",
        transferred=tuple(f"{', '.join(dict.fromkeys(what))} of {source}" for source, what in notes.items()),
    )
    return _with_reach(found_here, used, step)


def _with_reach(machine: Machine, used: dict[str, Measurement], step: Measurement | None) -> Machine:
    """Say which measurements a machine is made of; errors of the user's own widen its intervals."""
    here = {name: entry for name, entry in used.items() if _measured_here(entry)}
    words: dict[str, list[str]] = {}
    for name, entry in here.items():
        words.setdefault(entry.sources[0].note or entry.sources[0].ref, []).append(name.replace("_", " "))
    prefill, decode = here.get("prefill_attention"), here.get("decode_attention")
    prefix = prefill.valid.get("prefix", (0.0, 0.0))[1] if prefill else 0.0
    reach = Reach(
        entries=tuple(entry.id for entry in (*used.values(), *([step] if step else []))),
        here=tuple(f"{', '.join(names)} {note}" for note, names in words.items()),
        prefill_tokens=max(prefill.valid["isl"][1], prefix) if prefill else PREFILL_TOKENS,
        decode_tokens=decode.valid["kv"][1] if decode else DECODE_TOKENS,
        over_prefix=prefix > 0,
    )
    kernels = [here[name].error for name in ("gemm", "prefill_attention", "decode_attention") if name in here]
    error = max((one.mape for one in kernels if one), default=0.0)
    widening = replace(machine.widening, gpu=max(machine.widening.gpu, error))
    return replace(machine, reach=reach, widening=widening)


def _measured_here(entry: Measurement) -> bool:
    return any(source.provenance == "measured" for source in entry.sources)


def has_kernels(catalog: Catalog, engine: str) -> bool:
    """Whether somebody measured an engine's linear layers and attention, on whatever GPU."""
    known = {m.operation for m in catalog.all(Measurement) if m.engine == engine}
    return {"gemm", "prefill_attention", "decode_attention"} <= known


def _step(catalog: Catalog, engine: str, version: str) -> Measurement | None:
    """What an engine at a version adds to its kernels; the newest known version answers for newer ones."""
    number = version_number(version)
    steps = [m for m in catalog.all(Measurement) if m.operation == "step"]
    names = (engine, *((DEFAULT_ENGINE,) if engine in SERVING else ()), ANY_ENGINE)
    known = next((found for name in names if (found := [m for m in steps if m.engine == name])), [])
    if not known:
        return None
    ordered = sorted(known, key=lambda m: m.valid["version"])
    if number is None or known[0].engine != engine:
        return ordered[-1]
    inside = [m for m in ordered if m.valid["version"][0] <= number]
    return inside[-1] if inside else ordered[0]


def _widening(catalog: Catalog, *, other_chip: bool, other_engine: bool) -> Widening:
    entry = next((m for m in catalog.all(Measurement) if m.operation == "interval"), None)
    if entry is None:
        return Widening()
    found = _read(Widening, entry)
    return replace(found, gpu=found.gpu if other_chip else 0.0, engine=found.engine if other_engine else 0.0)


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
    return {
        (m.operation, m.weights, m.hardware, m.engine): m for m in entries if m.operation not in ("step", "interval")
    }


def _read(form: type[F], entry: Measurement) -> F:
    return form(**{f.name: entry.parameters[f.name] for f in fields(form) if f.name in entry.parameters})


def _scale(catalog: Catalog, hardware: Hardware, reference: str) -> float:
    """Multiprocessors over those of the reference, if each is as fast."""
    return hardware.flops.bf16 / catalog.get(Hardware, reference).flops.bf16


def _all_reduce(entry: Measurement, catalog: Catalog, hardware: Hardware, linked: bool) -> op.AllReduceFit:
    """The entry's table; on another GPU, large messages scale with the link, small ones don't."""
    table = entry.table
    times = {int(name[2:]): values for name, values in table.items() if name.startswith("s_")}
    fit = op.AllReduceFit(tuple(table["bytes"]), times)
    if entry.hardware == hardware.id and linked:
        return fit
    own = hardware.gpu_link.effective if hardware.gpu_link and linked else hardware.pcie.effective
    reference = catalog.get(Hardware, entry.hardware).gpu_link
    slower = (reference.effective if reference else own) / own
    scaled = {n: tuple(min(v) + (t - min(v)) * slower for t in v) for n, v in times.items()}
    return replace(fit, times_s=scaled)
