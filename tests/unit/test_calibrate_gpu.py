"""What a calibration does with a GPU, against the parts of ``torch.cuda`` that it calls; without PyTorch."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace as Stub
from typing import Any

import pytest

from planner.calibrate import backend
from planner.calibrate.backend import BLOCK_S, Backend
from planner.calibrate.device import Unmeasurable
from planner.calibrate.sweeps import point

GIB = 2**30
PRODUCT = point("gemm", m=64, n=1024, k=1024)


class Clock:
    """Time on the pretended GPU: advances when something runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs = 0

    def run(self, seconds: float) -> None:
        self.now_s += seconds
        self.runs += 1


class Event:
    """An event of `torch.cuda`: milliseconds on the GPU's clock."""

    clock: Clock

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at_s = self.clock.now_s

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: Event) -> float:
        return (later.at_s - self.at_s) * 1e3


def pretend(clock: Clock, *, hip: str | None = None, free: float = 78.9, capturable: bool = True) -> Any:
    """As much of PyTorch as the backend calls, with one A100."""
    Event.clock = clock

    class Graph:
        def replay(self) -> None:
            clock.run(self.seconds)

    @contextlib.contextmanager
    def capture(graph: Any) -> Any:
        if not capturable:
            raise RuntimeError("operation not permitted when stream is capturing")
        before = clock.now_s
        yield
        graph.seconds, clock.now_s = clock.now_s - before, before  # Capturing doesn't execute.

    cuda = Stub(
        Event=Event,
        CUDAGraph=Graph,
        graph=capture,
        synchronize=lambda: None,
        empty_cache=lambda: None,
        device_count=lambda: 2,
        get_device_name=lambda index: "NVIDIA A100-SXM4-80GB",
        mem_get_info=lambda index: (int(free * GIB), int(79.3 * GIB)),
        get_device_properties=lambda index: Stub(
            multi_processor_count=108,
            major=8,
            minor=0,
            L2_cache_size=40 << 20,
            gcnArchName="gfx942:sramecc+",
            uuid="aa",
        ),
    )
    return Stub(
        __version__="2.13.0",
        cuda=cuda,
        version=Stub(cuda="12.9", hip=hip),
        device=lambda kind, index: Stub(type=kind, index=index),
        inference_mode=contextlib.nullcontext,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(backend, "choose", lambda *_: ("a kernel", lambda *_: None, []))
    monkeypatch.setattr(backend, "newer_kernels", lambda capability: ("", []))
    monkeypatch.setattr(Backend, "_flash", lambda self: contextlib.nullcontext())
    monkeypatch.setattr(backend, "prepare", lambda *_: lambda turn: found.run(25e-6))
    monkeypatch.setenv("PATH", "/nowhere")
    return found


def test_what_a_gpu_says_of_itself(clock: Clock) -> None:
    device = Backend(pretend(clock), "cuda").device
    assert (device.kind, device.name, device.count, device.multiprocessors) == ("cuda", "NVIDIA A100-SXM4-80GB", 2, 108)
    assert (device.capability, device.cache_bytes) == ("8.0", 40 << 20)
    assert device.software == "PyTorch 2.13.0, CUDA 12.9, a kernel"
    amd = Backend(pretend(clock, hip="7.1"), "cuda").device
    assert (amd.kind, amd.capability) == ("rocm", "gfx942")


@pytest.mark.parametrize("capturable", [True, False])
def test_times_are_those_of_one_execution(clock: Clock, capturable: bool) -> None:
    sample = Backend(pretend(clock, capturable=capturable), "cuda").measure(PRODUCT, 0.01)
    assert sample.time_s == pytest.approx(25e-6)
    assert len(sample.times_s) >= 3
    if capturable:
        assert clock.runs < 4 + BLOCK_S["cuda"] / 25e-6 + 15, "one capture, and then replays of whole blocks"


def test_what_does_not_fit_is_left_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 64 GiB")

    monkeypatch.setattr(backend, "prepare", full)
    with pytest.raises(Unmeasurable, match="out of memory"):
        Backend(pretend(clock), "cuda").measure(PRODUCT, 0.01)


def test_memory_that_others_hold_is_seen_without_nvidia_smi(clock: Clock) -> None:
    assert Backend(pretend(clock), "cuda").complaints(running=False) == []
    (busy,) = Backend(pretend(clock, free=40.0), "cuda").complaints(running=False)
    assert "39.3 GiB" in busy
    assert Backend(pretend(clock, free=40.0), "cuda").complaints(running=True) == []
