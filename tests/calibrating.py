"""A GPU that isn't there: times of the built-in forms, slowed and shaken, for `planner.calibrate`."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from catalog.load import Catalog, built_in_directory
from catalog.schema import Hardware
from planner.calibrate.device import Device, Sample
from planner.calibrate.sweeps import Point, Rates
from planner.measured import operations as op
from planner.measured.machine import Machine, machine

A100 = Device(
    kind="cuda",
    name="NVIDIA A100-SXM4-80GB",
    count=8,
    memory_bytes=79.3 * 2**30,
    free_bytes=78.5 * 2**30,
    cache_bytes=40.0 * 2**20,
    multiprocessors=108,
    capability="8.0",
    software="PyTorch 2.13.0, CUDA 12.9",
    host="gpu7",
    host_memory_bytes=1024.0 * 2**30,
)
H2D_BYTES_PER_S, D2H_BYTES_PER_S = 24.0e9, 23.0e9


@cache
def built_in() -> Machine:
    catalog = Catalog([built_in_directory()])
    return machine(catalog, catalog.get(Hardware, "a100-sxm-80gb"), "vllm")


def true_s(at: Point) -> float:
    """Time of a point by the built-in forms."""
    m = built_in()
    if at.operation == "gemm":
        return float(op.gemm_s(m.gemm["bf16"], m.peak, at["m"], at["n"], at["k"]))
    if at.operation == "prefill_attention":
        return float(op.prefill_attention_s(m.prefill, m.peak, at["b"], at["s"], at["prefix"], at["hq"], at["hk"]))
    if at.operation == "decode_attention":
        return float(
            op.decode_attention_s(m.decode, m.peak, at["b"], 512.0 * at["kv"] * at["hk"], 512.0 * at["hq"], at["hk"])
        )
    if at.operation == "memory":
        return float(op.elementwise_s(m.elementwise, m.peak, at["bytes"]))
    if at.operation == "all_reduce":
        return float(op.all_reduce_s(m.all_reduce, at["gpus"], at["bytes"]))
    rate = {"h2d": H2D_BYTES_PER_S, "d2h": D2H_BYTES_PER_S, "both": 18e9}[at.word("direction")]
    return 1e-5 + at["bytes"] / rate


class FakeBackend:
    """Answers with the built-in forms' times."""

    def __init__(
        self,
        device: Device = A100,
        slower: Callable[[Point], float] = lambda at: 1.0,
        spread: float = 0.005,
        hook: Callable[[Point], None] = lambda at: None,
    ) -> None:
        self.device = device
        self.slower = slower
        self.spread = spread
        self.hook = hook
        """Called before a point is measured; may raise."""
        self.measured: list[Point] = []
        self.troubles: list[list[str]] = []
        """What `complaints` answers, one call after the other; then nothing."""
        self.wrong: dict[str, list[str]] = {}
        self.doubtful: dict[str, list[str]] = {}
        self.closed = False

    def rates(self) -> Rates:
        return Rates(2.5e14, 1.7e12)

    def check(self, operation: str) -> list[str]:
        return self.wrong.get(operation, [])

    def doubts(self, operation: str) -> list[str]:
        return self.doubtful.get(operation, [])

    def measure(self, point: Point, seconds: float) -> Sample:
        self.hook(point)
        self.measured.append(point)
        shake = random.Random(point.key)
        middle = true_s(point) * self.slower(point) * (1.0 + 0.01 * shake.uniform(-1, 1))
        return Sample(tuple(middle * (1.0 + self.spread * step) for step in (-2, -1, 0, 1, 2)))

    def complaints(self, *, running: bool) -> list[str]:
        return self.troubles.pop(0) if self.troubles else []

    def close(self) -> None:
        self.closed = True
