"""Busy or throttled: reasons not to believe a time, each with advice.

What the driver's tools and the operating system say, read from text; nothing here runs an operation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

QUERY = (
    *("index", "uuid", "utilization.gpu", "memory.used", "clocks.sm", "clocks.max.sm", "temperature.gpu"),
    *("clocks_event_reasons.active", "mig.mode.current"),
)
"""Fields of ``nvidia-smi --query-gpu``."""
_OLD_NAMES = ("clocks_event_reasons", "clocks_throttle_reasons")
"""A field's name, and what drivers before 535 call it."""
_APPS = "--query-compute-apps=gpu_uuid,pid,name"
MOST_UTILISATION = 5.0
"""Percent of the time that an idle GPU may be busy."""
MOST_USED_MIB = 1024.0
"""Memory that a display and contexts may take before we begin [MiB]."""
MOST_BUSY_CORES = 0.25
"""Share of this machine's processors that others may use."""
SAMPLE_S = 0.5
"""Time over which the processors' load is sampled [s]."""

REASONS = {
    0x02: ("clocks are held at a fixed setting", "give them back with nvidia-smi -rac and -rgc"),
    0x08: ("the hardware slows its clocks", "check cooling and power supply (nvidia-smi -q -d PERFORMANCE)"),
    0x20: ("the driver slows its clocks, since the GPU is hot", "improve cooling and let it cool down"),
    0x40: ("the hardware slows its clocks, since the GPU is hot", "improve cooling and let it cool down"),
    0x80: ("an external power brake slows its clocks", "check the server's power supply"),
}
"""Bit of the throttle reasons -> what it means, what to do. Idle (0x1) and the power cap (0x4) are normal:
large products meet the cap under sustained load too, and it then is part of what the GPU reaches."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One row of nvidia-smi."""

    values: Mapping[str, str]

    def number(self, name: str) -> float | None:
        """A field as a number; None where the driver doesn't say."""
        try:
            return float(self.values[name].split()[0])
        except (KeyError, ValueError, IndexError):
            return None


def parse_gpus(text: str) -> list[Gpu]:
    """Rows of ``nvidia-smi --query-gpu=... --format=csv,noheader,nounits`` in the order of `QUERY`."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [Gpu(dict(zip(QUERY, row, strict=True))) for row in rows if len(row) == len(QUERY)]


def gpu_complaints(gpu: Gpu, others: Sequence[str], *, running: bool) -> list[str]:
    """What speaks against measuring on a GPU.

    Parameters
    ----------
    gpu
        What nvidia-smi says.
    others
        Processes of others on it, in words.
    running
        Whether we load it ourselves, so that its use says nothing.
    """
    found = []
    if others:
        found.append(f"GPU busy: {', '.join(others)} on it; stop them or choose another GPU with CUDA_VISIBLE_DEVICES")
    if not running:
        use, memory = gpu.number("utilization.gpu"), gpu.number("memory.used")
        if not others and use is not None and use > MOST_UTILISATION:
            found.append(f"GPU busy: {use:.0f} % used; see nvidia-smi, and stop what runs there")
        if not others and memory is not None and memory > MOST_USED_MIB:
            found.append(
                f"GPU busy: {memory:.0f} MiB of its memory are taken; see nvidia-smi, and stop what runs there"
            )
        if gpu.values.get("mig.mode.current", "").lower() == "enabled":
            found.append("GPU cut in parts: MIG is on, and a part isn't the whole; measure on a GPU without MIG")
    reasons = gpu.values.get("clocks_event_reasons.active", "")
    bits = int(reasons, 16) if reasons.startswith("0x") else 0
    for bit, (what, advice) in REASONS.items():
        if bits & bit:
            now, most = gpu.number("clocks.sm"), gpu.number("clocks.max.sm")
            clocks = f" ({now:.0f} of {most:.0f} MHz)" if now and most else ""
            found.append(f"GPU throttled: {what}{clocks}; {advice}")
    return found


def nvidia_complaints(uuid: str, *, running: bool, ours: Collection[str] | None) -> list[str] | None:
    """Ask nvidia-smi about the GPU with this id; None where it can't be asked.

    ``ours`` are processes of this run as the driver numbers them; None: any may be.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    query = f"--query-gpu={','.join(QUERY)}"
    rows = _ask(query) or _ask(query.replace(*_OLD_NAMES))
    if rows is None:
        return None
    gpu = next((g for g in parse_gpus(rows) if uuid in g.values["uuid"]), None)
    if gpu is None:
        return None
    others = [] if ours is None else other_processes(_ask(_APPS) or "", uuid, ours)
    return gpu_complaints(gpu, others, running=running)


def gpu_processes() -> list[str]:
    """Numbers of the processes on any NVIDIA GPU, as its driver gives them."""
    if shutil.which("nvidia-smi") is None:
        return []
    return [row[1] for row in _rows(_ask(_APPS) or "")]


def other_processes(text: str, uuid: str, ours: Collection[str]) -> list[str]:
    """Processes on a GPU that aren't ours, from what nvidia-smi lists."""
    own = {*ours, str(os.getpid())}
    return [f"{name} (process {pid})" for gpu, pid, name in _rows(text) if uuid in gpu and pid not in own]


def _rows(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split(",", 2)] for line in text.splitlines()]
    return [row for row in rows if len(row) == 3]


def _ask(query: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class Processors:
    """Load that others put on this machine's processors, and heat that slows them."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc" / "stat"
        self._throttles = root / "sys" / "devices" / "system" / "cpu"
        self._last = self._now()
        self._slowed = self._throttled()

    def complaints(self, *, running: bool) -> list[str]:
        """What speaks against measuring now, by what happened since the last call (at least `SAMPLE_S` ago)."""
        if not running:
            self._last = self._now()
            time.sleep(SAMPLE_S)
        now, before = self._now(), self._last
        self._last = now
        found = []
        elapsed = now[0] - before[0]
        if elapsed > 0.1 * SAMPLE_S and now[1] > 0:
            others = max(0.0, (now[1] - before[1]) - (now[2] - before[2])) / elapsed / (os.cpu_count() or 1)
            if others > MOST_BUSY_CORES:
                found.append(f"processors busy: others use {others:.0%} of them; stop what runs there (see top)")
        slowed, self._slowed = self._slowed, self._throttled()
        if self._slowed > slowed:
            found.append(
                "processors throttled: they are too hot to run at full clocks; improve cooling and let them cool"
            )
        return found

    def _now(self) -> tuple[float, float, float]:
        """Time, busy time of all processors, and our own processor time, with that of finished children [s]."""
        own = sum(os.times()[:4])
        try:
            fields = self._stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]
        except (OSError, IndexError):
            return time.monotonic(), 0.0, own
        ticks = [int(value) for value in fields]
        user, nice, system, _idle, _wait, irq, softirq, _steal = (*ticks, *[0] * 8)[:8]
        hertz = os.sysconf("SC_CLK_TCK")
        return time.monotonic(), (user + nice + system + irq + softirq) / hertz, own

    def _throttled(self) -> int:
        total = 0
        for counter in self._throttles.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
            try:
                total += int(counter.read_text(encoding="ascii"))
            except (OSError, ValueError):
                continue
        return total
