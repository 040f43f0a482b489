"""Every finished point, in a file of JSON lines from which an interrupted run goes on.

The first line says what is measured and by what; each further line is one finished point, written and
synchronised at once. A last line that a crash tore is dropped. One run at a time holds the file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from planner.calibrate.device import Device
from planner.calibrate.sweeps import Point, Rates
from planner.errors import InputError

NAME = "calibration.jsonl"
SCHEMA = 1
IDENTITY = ("kind", "name", "memory_bytes", "multiprocessors", "capability", "software", "host")
"""What must be the same for two runs to be one."""


@dataclass(frozen=True, slots=True)
class Done:
    """A point that needn't be measured again."""

    point: Point
    time_s: float
    """Median of the repetitions [s]."""
    spread: float
    refused: str | None
    """Why its time isn't used."""
    despite: tuple[str, ...] = ()
    """What spoke against believing it, where the user forced the measurement."""
    day: str = ""
    """On which it was measured, as ISO text."""


class State:
    """An open state file. Use it as a context, so that the file is unlocked in the end."""

    def __init__(self, path: Path, stream: BinaryIO, device: Device, target: str, rates: Rates) -> None:
        self.path = path
        self.device = device
        self.target = target
        self.rates = rates
        self.done: dict[str, Done] = {}
        self.wrote: dict[str, str] = {}
        """File of the overlay, relative -> hash of what a run of this state wrote there."""
        self._stream = stream

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def record(self, done: Done) -> None:
        """Keep a finished point."""
        self.done[done.point.key] = done
        line = {"operation": done.point.operation, "sizes": dict(done.point.sizes), "time_s": done.time_s}
        line |= {"spread": round(done.spread, 4)}
        line |= {"refused": done.refused} if done.refused else {}
        line |= {"despite": list(done.despite)} if done.despite else {}
        line |= {"day": done.day}
        self._append(line)

    def record_file(self, name: str, digest: str) -> None:
        """Keep what we write, before we write it."""
        self.wrote[name] = digest
        self._append({"wrote": name, "hash": digest})

    @property
    def day(self) -> dt.date:
        """The last on which a point was measured."""
        return dt.date.fromisoformat(max(done.day for done in self.done.values()))

    def of(self, operation: str) -> list[Done]:
        """Finished points of an operation."""
        return [done for done in self.done.values() if done.point.operation == operation]

    def _append(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


def open_state(path: Path, device: Device, target: str, rates: Rates | None) -> State:
    """Open a state file, or begin one.

    Parameters
    ----------
    path
        The file.
    device, target
        What is measured, and the id of its hardware entry.
    rates
        Rough rates of the device, for a new file; None: the file must exist.

    Raises
    ------
    InputError
        If the file is another device's, another software's, in use, or no state.
    """
    stream = path.open("r+b" if rates is None else "x+b")
    try:
        _lock(stream, path)
        if rates is None:
            return _read(path, stream, device, target)
        state = State(path, stream, device, target, rates)
        state._append({"schema": SCHEMA, "target": target, "device": asdict(device), "rates": asdict(rates)})
    except BaseException:
        stream.close()
        raise
    return state


def discard_state(path: Path) -> None:
    """Remove a state file, if there is one.

    Raises
    ------
    InputError
        If a run is writing it.
    """
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as stream:
        _lock(stream, path)
        path.unlink()


def _lock(stream: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Not a system with such locks.
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{path}: another calibration is writing it; wait for it or stop it") from None


def _read(path: Path, stream: BinaryIO, device: Device, target: str) -> State:
    content = stream.read()
    whole = content.rfind(b"\n") + 1
    lines = list(_lines(path, content[:whole]))
    header = lines[0] if lines else {}
    if header.get("schema") != SCHEMA or "device" not in header:
        raise InputError(f"{path}: isn't a calibration that this version can go on with; add --restart to begin anew")
    _same(path, header, device, target)
    stream.truncate(whole)  # What a crash tore.
    stream.seek(whole)
    state = State(path, stream, Device(**header["device"]), target, Rates(**header["rates"]))
    for line in lines[1:]:
        if "wrote" in line:
            state.wrote[line["wrote"]] = line["hash"]
            continue
        point = Point(line["operation"], tuple(line["sizes"].items()))
        despite = tuple(line.get("despite", ()))
        state.done[point.key] = Done(point, line["time_s"], line["spread"], line.get("refused"), despite, line["day"])
    return state


def _lines(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(content.splitlines(), 1):
        line = None
        with contextlib.suppress(ValueError):
            line = json.loads(text)
        if not isinstance(line, dict):
            raise InputError(f"{path}:{number}: isn't a line of a calibration; add --restart to begin anew")
        yield line


def _same(path: Path, header: dict[str, Any], device: Device, target: str) -> None:
    then, now = header["device"], asdict(device)
    differ = [f"{name}: {then.get(name)} then, {now[name]} now" for name in IDENTITY if then.get(name) != now[name]]
    if header["target"] != target:
        differ.append(f"GPU of the catalog: {header['target']} then, {target} now")
    if differ:
        told = "\n".join(f"  {one}" for one in differ)
        raise InputError(
            f"{path}: was begun on another machine or with other software, and times of both don't mix:\n{told}\n"
            "write to another directory with -o DIR, or add --restart to begin anew"
        )
