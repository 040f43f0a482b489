"""The operations in PyTorch on the processor: right results, believable times, two ranks that reduce."""

from __future__ import annotations

import pytest

from planner.calibrate.sweeps import DIRECTIONS, KERNELS, Point, point

torch = pytest.importorskip("torch")

from planner.calibrate.backend import open_backend  # noqa: E402 - only where PyTorch is installed
from planner.calibrate.ranks import Ranks  # noqa: E402

pytestmark = pytest.mark.slow

POINTS = [
    point("gemm", m=8, n=256, k=512),
    point("prefill_attention", b=1, s=16, prefix=512, hq=4, hk=1),
    point("prefill_attention", b=2, s=64, prefix=0, hq=4, hk=2),
    point("decode_attention", b=2, kv=512, hq=8, hk=2),
    *(point("memory", kernel=kernel, bytes=arrays << 16) for kernel, arrays in KERNELS.items()),
    *(point("copies", direction=direction, bytes=1 << 16) for direction in DIRECTIONS),
]


@pytest.mark.parametrize("at", POINTS, ids=str)
def test_every_operation_runs(at: Point) -> None:
    sample = open_backend("cpu").measure(at, 0.05)
    assert len(sample.times_s) >= 3
    assert 0 < sample.time_s < 1.0


def test_attention_is_what_its_definition_says() -> None:
    assert open_backend("cpu").check("prefill_attention") == []


def test_wrong_attention_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.calibrate import kernels

    right = kernels.chunk_attention
    monkeypatch.setattr(kernels, "chunk_attention", lambda t, q, k, v: right(t, q, k.flip(2), v))
    assert open_backend("cpu").check("prefill_attention")


def test_more_work_takes_longer() -> None:
    backend = open_backend("cpu")
    small, large = (backend.measure(point("gemm", m=m, n=1024, k=1024), 0.1).time_s for m in (64, 2048))
    assert large > 3 * small


def test_two_ranks_reduce() -> None:
    ranks = Ranks(2, "cpu")
    try:
        small, large = (min(ranks.times_s(size)) for size in (1 << 12, 1 << 24))
        assert 0 < small < large
    finally:
        ranks.close()


def test_a_description_of_the_processor() -> None:
    device = open_backend("auto").device
    assert device.memory_bytes > 1e8
    assert device.multiprocessors >= 1
    assert torch.__version__ in device.software
