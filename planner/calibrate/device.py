"""What is measured on, what measures it, and which GPU of the catalog that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from catalog.errors import nearest
from catalog.load import Catalog
from catalog.schema import Hardware
from planner.calibrate.sweeps import Point, Rates
from planner.errors import InputError

Kind = Literal["cuda", "rocm", "cpu"]

_VENDORS = {"nvidia", "amd", "instinct", "geforce", "tesla"}
_FORMS = {"sxm", "pcie", "nvl"}
_MEMORY_TOLERANCE = 0.12
"""Drivers report a few percent less memory than the data sheet."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU (or this machine's processor) and the software that drives it."""

    kind: Kind
    name: str
    """As the driver calls it."""
    count: int
    """Devices of this name in the machine."""
    memory_bytes: float
    """Of one device [bytes]."""
    free_bytes: float
    """Of one device, not taken by anybody when the run began [bytes]."""
    cache_bytes: float
    """Of its last-level cache [bytes]."""
    multiprocessors: int
    """Multiprocessors, compute units or cores."""
    capability: str
    """Compute capability as the catalog writes it; ``cpu`` for a processor."""
    software: str
    """Version of PyTorch and of what it was built for."""
    host: str
    host_memory_bytes: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Repeated times of one point."""

    times_s: tuple[float, ...]
    """Time of one execution, per repetition [s]."""

    @property
    def time_s(self) -> float:
        """Median [s]."""
        return _quantile(self.times_s, 0.5)

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median."""
        return (_quantile(self.times_s, 0.75) - _quantile(self.times_s, 0.25)) / self.time_s


class Unmeasurable(Exception):  # noqa: N818 - it says what a point is, not that something broke
    """A point that this device or this software can't run; the message says why."""


class Backend(Protocol):
    """Runs and times operations on one device."""

    @property
    def device(self) -> Device:
        """What is measured on."""

    def rates(self) -> Rates:
        """Rough rates, to estimate how long a point takes."""

    def check(self, operation: str) -> list[str]:
        """What is wrong with the results of an operation, before its times are believed."""

    def doubts(self, operation: str) -> list[str]:
        """Why right times of an operation may not be those of engines, each with advice."""

    def measure(self, point: Point, seconds: float) -> Sample:
        """Time a point, for about ``seconds`` seconds.

        Raises
        ------
        Unmeasurable
            If it doesn't fit or no kernel runs it.
        """

    def complaints(self, *, running: bool) -> list[str]:
        """Why times can't be believed now, each with advice; ``running``: while we load the device ourselves."""

    def close(self) -> None:
        """Give back processes and memory."""


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def identify(device: Device, catalog: Catalog) -> Hardware | None:
    """The GPU of the catalog that a driver's name and memory mean; None if none or several do."""
    said = _words(device.name)
    if device.kind == "cpu" or "mig" in said:  # A part of a GPU isn't the GPU.
        return None
    form = next((word for word in said if word in _FORMS), None)
    found = []
    for entry in catalog.all(Hardware):
        words = _words(entry.id)
        family = {w for w in words if w not in _FORMS and not re.fullmatch(r"\d+gb", w)}
        own_form = next((word for word in words if word in _FORMS), None)
        if not family <= said or abs(device.memory_bytes / entry.hbm - 1.0) > _MEMORY_TOLERANCE:
            continue
        if own_form not in (None, form or "sxm") and not (form is None and own_form == "pcie" and "sxm" not in said):
            continue
        found.append((len(family), own_form == (form or "sxm"), entry))
    if not found:
        return None
    best = max(rank[:2] for rank in found)
    winners = [entry for *rank, entry in found if tuple(rank) == best]
    return winners[0] if len(winners) == 1 else None


def _words(name: str) -> set[str]:
    """Words of a name, without makers, and with socket generations cut off.

    >>> sorted(_words("NVIDIA A100-SXM4-80GB"))
    ['80gb', 'a100', 'sxm']
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    return {re.sub(r"^sxm\d$", "sxm", word) for word in words} - _VENDORS


def entry_name(device: Device) -> str:
    """An id for a device that the catalog doesn't have.

    The words of its name, and for a processor its cores.
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(r\)|\(tm\)|cpu|processor", " ", device.name.lower()))
    core = [f"{device.multiprocessors}c"] if device.kind == "cpu" else []
    return "-".join([*(["cpu"] if device.kind == "cpu" else []), *[w for w in words if w not in _VENDORS], *core])


def target_of(device: Device, catalog: Catalog, named: str | None, new: bool) -> tuple[str, Hardware | None]:
    """Id of the hardware entry that is calibrated, and the entry; None where it is to be written.

    Parameters
    ----------
    device, catalog
        What is measured, and the facts.
    named
        What the user says that it is.
    new
        Whether the user wants an entry of its own.

    Raises
    ------
    InputError
        If nobody knows, or what the user says can't be.
    """
    if named is not None and catalog.has(Hardware, named):
        entry = catalog.get(Hardware, named)
        if device.kind == "cpu" and entry.compute_capability != "cpu":
            raise InputError(
                f"--gpu {named}: this run measures the processor ({device.name}), and a processor's times aren't those "
                "of a GPU; leave --gpu out, or use --device cuda on a machine that has one"
            )
        return entry.id, entry
    if named is not None:
        if re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", named) is None:
            raise InputError(f"--gpu {named!r}: an id has small letters, digits and . _ + - only")
        if new or device.kind == "cpu":
            return named, None
        near = nearest(named, [entry.id for entry in catalog.all(Hardware)])
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"--gpu {named}: isn't in the catalog; {meant}add --new to write an entry of that id from what is measured"
        )
    known = identify(device, catalog)
    if known is not None and not new:
        return known.id, known
    name = entry_name(device)
    if new or device.kind == "cpu":
        return name, catalog.get(Hardware, name) if catalog.has(Hardware, name) else None
    raise InputError(
        f"this device calls itself {device.name!r} with {device.memory_bytes / 2**30:.0f} GiB, which is no GPU of the "
        "catalog for certain; name it with --gpu ID (plan catalog list hardware), write its entry first "
        f"(docs/howto/add-a-gpu.md), or add --new to write {name!r} from what is measured"
    )
