"""PyTorch on CUDA, ROCm or the processor: runs operations and times them."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.calibrate.attention import choose, merged, newer_kernels
from planner.calibrate.device import Device, Sample, Unmeasurable
from planner.calibrate.health import Processors, gpu_processes, nvidia_complaints
from planner.calibrate.kernels import prepare
from planner.calibrate.ranks import Ranks
from planner.calibrate.sweeps import Point, Rates, point, work
from planner.errors import InputError

REPETITIONS = 9
"""Blocks of executions that are timed; the median and the quartiles are theirs."""
BLOCK_S = {"cuda": 2e-3, "rocm": 2e-3, "cpu": 10e-3}
"""Least time of one block [s]."""
MOST_IN_BLOCK = 200
MOST_USED_BYTES = 2.0**30
"""Memory of an idle GPU that a display and contexts may take, where nvidia-smi can't be asked [bytes]."""
_DEFAULT_CACHE_BYTES = 64.0 * 2**20
_PROBE_SIDE = {"cuda": 4096, "rocm": 4096, "cpu": 512}
_PROBE_BYTES = {"cuda": 1 << 28, "rocm": 1 << 28, "cpu": 1 << 26}


def open_backend(wanted: str) -> Backend:
    """Open the device that is asked for: ``cuda``, ``cpu`` or ``auto``.

    Raises
    ------
    InputError
        If PyTorch isn't installed, or there is no such device.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            "plan calibrate runs operations in PyTorch, which isn't installed; "
            "install it with: pip install 'plan-llm[calibrate]' (for ROCm, PyTorch's own wheels)"
        ) from None
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError(
            "--device cuda: PyTorch sees no GPU; check nvidia-smi or rocminfo, CUDA_VISIBLE_DEVICES, and that "
            f"PyTorch {torch.__version__} was built for this driver"
        )
    return Backend(torch, "cuda" if there and wanted != "cpu" else "cpu")


class Backend:
    """Runs and times operations on one device."""

    def __init__(self, torch: Any, kind: str) -> None:
        self._torch = torch
        self._place = torch.device(kind, 0) if kind == "cuda" else torch.device("cpu")
        before = set(gpu_processes())
        described = _describe_gpu(torch) if kind == "cuda" else _describe_processor(torch)
        # In a container a process has another number than the driver gives it: ours are those that begin here.
        self._ours = set(gpu_processes()) - before
        with torch.inference_mode(), self._flash():
            newer, self._older = newer_kernels(described.capability)
            name, attention, self._wrong = choose(torch, self._place, described.capability)
        self._attention = attention or merged
        self.device = replace(described, software=f"{described.software}, {newer}{name}")
        self._processors = Processors()
        self._ranks: Ranks | None = None

    def rates(self) -> Rates:
        """Rough rates, to estimate how long a point takes."""
        side, size = _PROBE_SIDE[self.device.kind], _PROBE_BYTES[self.device.kind]
        product, stream = point("gemm", m=side, n=side, k=side), point("memory", kernel="copy", bytes=2 * size)
        flops = work(product).flops / self.measure(product, 0.1).time_s
        return Rates(flops, work(stream).moved_bytes / self.measure(stream, 0.1).time_s)

    def check(self, operation: str) -> list[str]:
        """What is wrong with the results of an operation, before its times are believed."""
        return self._wrong if operation == "prefill_attention" else []

    def doubts(self, operation: str) -> list[str]:
        """Why right times of an operation may not be those of engines."""
        return self._older if operation in ("prefill_attention", "decode_attention") else []

    def measure(self, at: Point, seconds: float) -> Sample:
        """Time a point, for about ``seconds`` seconds.

        Raises
        ------
        Unmeasurable
            If it doesn't fit or no kernel runs it.
        """
        try:
            if at.operation == "all_reduce":
                return self._reduce(at)
            with self._torch.inference_mode(), self._flash():
                run = prepare(self._torch, self._place, at, self.device.cache_bytes, self._attention)
                return self._time_on_gpu(run, seconds) if self._place.type == "cuda" else self._time_here(run, seconds)
        except (MemoryError, RuntimeError) as error:
            raise Unmeasurable(" ".join(str(error).split())[:200]) from None
        finally:
            if self._place.type == "cuda":
                self._torch.cuda.empty_cache()

    def complaints(self, *, running: bool) -> list[str]:
        """Why times can't be believed now, each with advice."""
        if self._place.type == "cpu":
            return [] if self._ranks else self._processors.complaints(running=running)
        found = None
        if self.device.kind == "cuda":
            uuid = str(getattr(self._torch.cuda.get_device_properties(self._place), "uuid", ""))
            ours = None if self._ranks else self._ours
            found = nvidia_complaints(uuid, running=running, ours=ours)
        if found is None and not running:
            used = self.device.memory_bytes - self.device.free_bytes
            if used > MOST_USED_BYTES:
                found = [f"GPU busy: {used / 2**30:.1f} GiB of its memory are taken; stop what runs there"]
        return found or []

    def close(self) -> None:
        """End the processes of collectives."""
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None

    def _flash(self) -> contextlib.AbstractContextManager[None]:
        """Let attention on a GPU take flash kernels only: no slow stand-in is to be timed unnoticed."""
        if self._place.type == "cpu":
            return contextlib.nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        allowed: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.FLASH_ATTENTION)
        return allowed

    def _reduce(self, at: Point) -> Sample:
        if self._ranks is None or self._ranks.count != at["gpus"]:
            self.close()
            self._ranks = Ranks(at["gpus"], self._place.type)
        return Sample(self._ranks.times_s(at["bytes"]))

    def _time_here(self, run: Any, seconds: float) -> Sample:
        run(0)
        begin = time.perf_counter()
        run(1)
        once = max(time.perf_counter() - begin, 1e-7)
        block = max(1, min(MOST_IN_BLOCK, round(BLOCK_S["cpu"] / once)))
        times: list[float] = []
        end = begin + seconds
        turn = 2
        while len(times) < 3 or (len(times) < REPETITIONS and time.perf_counter() < end):
            start = time.perf_counter()
            for step in range(block):
                run(turn + step)
            times.append((time.perf_counter() - start) / block)
            turn += block
        return Sample(tuple(times))

    def _time_on_gpu(self, run: Any, seconds: float) -> Sample:
        """Blocks of executions between two events; captured as graphs, so that launching costs nothing."""
        cuda = self._torch.cuda
        for turn in range(3):
            run(turn)
        cuda.synchronize()
        once = max(self._between_events(lambda: run(0)), 1e-6)
        block = max(1, min(MOST_IN_BLOCK, round(BLOCK_S["cuda"] / once)))

        def executions() -> None:
            for turn in range(block):
                run(turn)

        replay = self._captured(executions) or executions
        replay()
        cuda.synchronize()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or (len(times) < REPETITIONS and time.perf_counter() < end):
            times.append(self._between_events(replay) / block)
        return Sample(tuple(times))

    def _between_events(self, run: Any) -> float:
        cuda = self._torch.cuda
        first, last = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        first.record()
        run()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3

    def _captured(self, run: Any) -> Any:
        graph = self._torch.cuda.CUDAGraph()
        with contextlib.suppress(RuntimeError):  # What can't be captured is launched one by one.
            with self._torch.cuda.graph(graph):
                run()
            return graph.replay
        return None


def _describe_gpu(torch: Any) -> Device:
    properties = torch.cuda.get_device_properties(0)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    hip = getattr(torch.version, "hip", None)
    free, total = torch.cuda.mem_get_info(0)
    built = f"ROCm {hip}" if hip else f"CUDA {torch.version.cuda}"
    architecture = str(getattr(properties, "gcnArchName", "")).split(":")[0]
    return Device(
        kind="rocm" if hip else "cuda",
        name=names[0],
        count=names.count(names[0]),
        memory_bytes=float(total),
        free_bytes=float(free),
        cache_bytes=float(getattr(properties, "L2_cache_size", 0) or _DEFAULT_CACHE_BYTES),
        multiprocessors=int(properties.multi_processor_count),
        capability=architecture if hip else f"{properties.major}.{properties.minor}",
        software=f"PyTorch {torch.__version__}, {built}",
        host=platform.node(),
        host_memory_bytes=_host_memory("MemTotal"),
    )


def _describe_processor(torch: Any) -> Device:
    return Device(
        kind="cpu",
        name=_processor_name(),
        count=1,
        memory_bytes=_host_memory("MemTotal"),
        free_bytes=_host_memory("MemAvailable"),
        cache_bytes=_last_level_cache(),
        multiprocessors=int(torch.get_num_threads()),
        capability="cpu",
        software=f"PyTorch {torch.__version__}, threads: {torch.get_num_threads()}",
        host=platform.node(),
        host_memory_bytes=_host_memory("MemTotal"),
    )


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _host_memory(field: str) -> float:
    with contextlib.suppress(OSError):
        found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        if found:
            return 1024.0 * int(found[1])
    with contextlib.suppress(ValueError, OSError):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return 8.0 * 2**30


def _last_level_cache() -> float:
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(1024.0 * int(path.read_text(encoding="ascii").strip().rstrip("K")))
    return max(sizes, default=_DEFAULT_CACHE_BYTES)
