"""Catalog entries of what was measured, and files that nobody loses.

An overlay replaces entries of the same id. A file that exists is replaced only if a run of the same
state wrote it and nobody changed it since, or with ``--force``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from catalog.load import Catalog, built_in_directory
from catalog.schema import KINDS, Hardware, Measurement
from planner.calibrate.device import Device
from planner.calibrate.fits import Fitted
from planner.calibrate.state import State
from planner.errors import InputError
from planner.measured.machine import DEFAULT_ENGINE
from planner.measured.operations import AllReduceFit, Peak, all_reduce_s

Engines = Callable[[str], Sequence[str]]
"""Operation of the catalog -> engines whose kernels the measured ones stand for."""
SHARED = ("gemm", "elementwise")
"""Operations of which all engines call the same libraries."""
LONG_MESSAGE_BYTES = 256 << 20
"""Messages that take a link to its full rate [bytes]."""
OWN_KERNEL_BYTES = 8 << 20
"""Messages from which on engines leave all-reduce to NCCL [bytes]."""

GENERATIONS = {"8.0": "Ampere", "8.6": "Ampere", "8.9": "Ada", "9.0": "Hopper"}
_GENERATION_OF_MAJOR = {"7": "Volta", "10": "Blackwell", "12": "Blackwell"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the overlay."""

    kind: str
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """The file, relative to the overlay."""
        return f"{self.kind}/{self.fields['id']}.yaml"

    @property
    def text(self) -> str:
        """The file's content."""
        body = yaml.safe_dump(self.fields, sort_keys=False, width=118, default_flow_style=None, allow_unicode=True)
        checked = self.fields["checked"]
        return body.replace(f"checked: '{checked}'", f"checked: {checked}")


def names_of(target: str, new: bool, engines: Engines, operations: Sequence[str]) -> list[str]:
    """Files that a calibration would write, to be refused before hours of measuring."""
    found = [
        f"measurements/{_measurement_id(target, engine, _CATALOG_NAMES[operation])}.yaml"
        for operation in operations
        if operation in _CATALOG_NAMES
        for engine in engines(_CATALOG_NAMES[operation])
    ]
    if new or "copies" in operations or "all_reduce" in operations:
        found.append(f"hardware/{target}.yaml")
    if new:
        found.append(f"nodes/{_node_id(target)}.yaml")
    return found


_CATALOG_NAMES = {
    "gemm": "gemm",
    "prefill_attention": "prefill_attention",
    "decode_attention": "decode_attention",
    "memory": "elementwise",
    "all_reduce": "all_reduce",
}


def _measurement_id(target: str, engine: str, operation: str) -> str:
    return f"{target}-{engine}-{operation.replace('_', '-')}"


def _node_id(target: str) -> str:
    return f"{target}-machine"


def source_of(device: Device, day: dt.date) -> dict[str, Any]:
    """The source of everything that a run measures."""
    return {
        "ref": f"plan calibrate on {device.host}: {device.name}, {device.software}",
        "provenance": "measured",
        "note": f"measured on this machine ({device.host}) on {day.isoformat()}",
    }


def engines_of(catalog: Catalog, target: str, named: Sequence[str] | None) -> Engines:
    """Which engines' kernels the measured ones stand for.

    Named ones for everything. Otherwise vLLM, whose kernels others take where they have none of their own; and for
    products and streams, whose libraries all engines share, also engines with measurements of their own on this GPU:
    one engine's times from a cool laboratory next to another's from here would compare machines, not engines.
    """
    entries = catalog.all(Measurement)

    def chosen(operation: str) -> tuple[str, ...]:
        if named:
            return tuple(named)
        own = [m.engine for m in entries if (m.hardware, m.operation, m.weights) == (target, operation, "bf16")]
        return tuple(dict.fromkeys((DEFAULT_ENGINE, *(own if operation in SHARED else ()))))

    return chosen


def measurements(
    catalog: Catalog, fitted: Sequence[Fitted], device: Device, target: str, engines: Engines, day: dt.date
) -> list[Entry]:
    """One entry per operation and engine."""
    return [
        Entry("measurements", _with_own_kernel(catalog, _measurement(one, device, target, engine, day)))
        for one in fitted
        if one.operation != "copies"
        for engine in engines(one.operation)
    ]


def _with_own_kernel(catalog: Catalog, fields: dict[str, Any]) -> dict[str, Any]:
    """Small all-reduces are an engine's own kernel, which PyTorch doesn't have: what the catalog knows of it stays."""
    name = fields["id"]
    if fields["operation"] != "all_reduce" or not catalog.has(Measurement, name):
        return fields
    base = catalog.get(Measurement, name)
    if any(source.provenance == "measured" for source in base.sources):
        base = next((m for m in _built_in().all(Measurement) if m.id == name), base)
    known = {int(key[2:]): values for key, values in base.table.items() if key.startswith("s_")}
    fit = AllReduceFit(tuple(base.table["bytes"]), known)
    sizes = fields["table"]["bytes"]
    merged = {"bytes": sizes}
    for key, times in fields["table"].items():
        if key != "bytes":
            own = all_reduce_s(fit, int(key[2:]), np.array(sizes))
            pairs = zip(sizes, times, own.tolist(), strict=True)
            merged[key] = [
                float(f"{min(time, other):.4g}") if size < OWN_KERNEL_BYTES else time for size, time, other in pairs
            ]
    kept = base.sources[0].model_dump(mode="json", exclude_defaults=True)
    note = f"messages below {OWN_KERNEL_BYTES >> 20} MiB: the engine's own kernel, where that is faster"
    return {**fields, "table": merged, "sources": [*fields["sources"], {**kept, "fields": ["table"], "note": note}]}


def _built_in() -> Catalog:
    return Catalog([built_in_directory()])


def _measurement(one: Fitted, device: Device, target: str, engine: str, day: dt.date) -> dict[str, Any]:
    notes = [f"{one.points} points" + (f", {one.refused} more were refused" if one.refused else "")]
    if one.despite:
        notes.append("measured in spite of: " + "; ".join(one.despite))
    return {
        "id": _measurement_id(target, engine, one.operation),
        "name": f"{one.operation.replace('_', ' ')} in bf16 as measured on {device.host}, for {engine}, {target}",
        "hardware": target,
        "engine": engine,
        "engine_version": f"kernels of {device.software}",
        "operation": one.operation,
        "weights": "bf16",
        "parameters": one.parameters,
        "table": one.table,
        "error": one.error,
        "valid": one.valid,
        "notes": "; ".join(notes),
        "sources": [source_of(device, day)],
        "checked": day.isoformat(),
    }


def links(fitted: Sequence[Fitted]) -> dict[str, dict[str, float]]:
    """Field of a hardware entry -> rates that its link was measured at [bytes/s]."""
    found: dict[str, dict[str, float]] = {}
    for one in fitted:
        if one.operation == "copies":
            rates = {name: one.parameters.get(f"{name}_bytes_per_s") for name in ("h2d", "d2h", "both")}
            one_way = [rate for name, rate in rates.items() if rate and name != "both"]
            if one_way:
                found["pcie"] = {"effective": min(one_way)}
                if rates["both"]:
                    found["pcie"]["effective_both"] = max(rates["both"], min(one_way))
        elif one.operation == "all_reduce" and one.table["bytes"][-1] >= LONG_MESSAGE_BYTES:
            largest = max(int(name[2:]) for name in one.table if name.startswith("s_"))
            sent = 2.0 * (largest - 1) / largest * one.table["bytes"][-1]
            found["gpu_link"] = {"effective": sent / one.table[f"s_{largest}"][-1]}
    return found


def hardware(
    catalog: Catalog, base: Hardware, fitted: Sequence[Fitted], device: Device, day: dt.date
) -> tuple[Entry | None, list[str]]:
    """The entry of a known GPU with the rates that its links reach here, and what can't be.

    None if no link was measured.
    """
    fields = catalog.as_written(Hardware, base.id)
    problems, changed = [], []
    for link, rates in links(fitted).items():
        known = getattr(base, link)
        if known is None:
            continue
        fastest = max(rates["effective"], rates.get("effective_both", 0.0) / 2.0)
        if fastest > known.nominal:
            problems.append(
                f"{link}: measured {_rate(fastest)}, and the {known.kind} of {base.id} gives {_rate(known.nominal)}; "
                "is this another GPU (--gpu)? If not, correct the link in an entry of your own (add-a-gpu.md)"
            )
            continue
        fields[link] = {**fields[link], **{name: _rate(rate) for name, rate in rates.items()}}
        changed += [f"{link}.{name}" for name in rates]
    if not changed:
        return None, problems
    kept = [_without(source, changed) for source in fields["sources"]]
    own = {**source_of(device, day), "fields": changed}
    own["note"] += _errors(fitted)
    fields["sources"] = [source for source in kept if source is not None] + [own]
    return Entry("hardware", fields), problems


def _without(source: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any] | None:
    """A source that no longer speaks for some fields; None if it spoke for nothing else."""
    spoken = source.get("fields", [])
    left = [field for field in spoken if field not in fields]
    if spoken and not left:
        return None
    return {**source, "fields": left} if spoken else dict(source)


def _errors(fitted: Sequence[Fitted]) -> str:
    told = [f"{one.operation} {one.error['mape']:.1%}" for one in fitted if one.operation in ("copies", "all_reduce")]
    return f"; mean error on points held out: {', '.join(told)}" if told else ""


def _rate(value: float) -> str:
    return f"{value / 1e9:.4g} GB/s"


def new_hardware(target: str, device: Device, peak: Peak, fitted: Sequence[Fitted], day: dt.date) -> list[Entry]:
    """Entries of a device that the catalog doesn't have, and of the machine around it: what was measured only.

    The peaks are the most that products and streams reached, so that shares of them are shares of that.
    """
    found = links(fitted)
    pcie = found.get("pcie", {"effective": peak.hbm_bytes_per_s})
    own = source_of(device, day)
    note = f"{own['note']}; the peaks are the most that any point reached, since no data sheet was given"
    processor = device.kind == "cpu"
    major = device.capability.split(".")[0]
    fields: dict[str, Any] = {
        "id": target,
        "name": f"{device.name} ({device.multiprocessors} cores)" if processor else device.name,
        "vendor": "other" if processor else "amd" if device.kind == "rocm" else "nvidia",
        "generation": "CPU"
        if processor
        else GENERATIONS.get(device.capability, _GENERATION_OF_MAJOR.get(major, "own")),
        "compute_capability": device.capability,
        "form_factor": "CPU" if processor else "own",
        "hbm": f"{device.memory_bytes / 2**30:.4g} GiB",
        "hbm_bandwidth": _rate(peak.hbm_bytes_per_s),
        "flops": {"bf16": f"{peak.flops_per_s / 1e12:.4g} TFLOP/s"},
        "gpu_link": None,
        "pcie": {"kind": "copies in memory" if processor else "PCIe as measured"}
        | {"nominal": _rate(max(pcie.values()))}
        | {name: _rate(rate) for name, rate in pcie.items()},
        "tdp": None,
        "sources": [{**own, "note": note + _errors(fitted)}],
        "checked": day.isoformat(),
    }
    if "gpu_link" in found:
        rate = _rate(found["gpu_link"]["effective"])
        fields["gpu_link"] = {"kind": "as measured by all-reduce", "nominal": rate, "effective": rate}
    # A processor's memory is its host's: nothing is left to swap to.
    memory = "0 GiB" if processor else f"{device.host_memory_bytes / 2**30:.4g} GiB"
    node = {
        "id": _node_id(target),
        "name": f"{device.host}, on which {target} was measured",
        "hardware": target,
        "gpus": device.count,
        "gpu_topology": "none" if device.count == 1 else "pcie",
        "gpus_per_pcie_uplink": 1,
        "host_memory": memory,
        "default_for": [target],
        "sources": [own],
        "checked": day.isoformat(),
    }
    return [Entry("hardware", fields), Entry("nodes", node)]


def refuse_existing(directory: Path, names: Sequence[str], wrote: Mapping[str, str], *, force: bool) -> None:
    """Refuse to replace what somebody else wrote, or changed since.

    Raises
    ------
    InputError
        With every such file.
    """
    if force:
        return
    found = [name for name in names if (directory / name).exists() and _digest(directory / name) != wrote.get(name)]
    if found:
        listed = [f"{directory / name}: exists, and isn't what this calibration wrote" for name in found]
        raise InputError([*listed, "write to another directory with -o DIR, or add --force to replace them"])


def write(directory: Path, entries: Sequence[Entry], state: State) -> None:
    """Write entries, each at once or not at all; validated before the first is written."""
    for entry in entries:
        KINDS[entry.kind].model_validate(yaml.safe_load(entry.text))
    for entry in entries:
        path = directory / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = entry.text.encode()
        state.record_file(entry.name, hashlib.sha256(content).hexdigest())
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
