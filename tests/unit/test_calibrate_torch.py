"""The operations in PyTorch on the processor: right results, believable times, two ranks that reduce."""

from __future__ import annotations

from typing import Any

import pytest

from planner.calibrate.sweeps import DIRECTIONS, KERNELS, Point, point

torch = pytest.importorskip("torch")

from planner.calibrate import attention  # noqa: E402
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


def test_wrong_attention_is_seen() -> None:
    def backwards(module: Any, query: Any, keys: Any, values: Any) -> Any:
        return attention.merged(module, query, keys.flip(2), values)

    assert attention.attention_problems(torch, torch.device("cpu"), backwards)


def test_attention_of_gpus_as_far_as_a_processor_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lower_right` runs here; FlashAttention over packed sequences is stood in for by its documentation."""
    here = torch.device("cpu")
    assert attention.attention_problems(torch, here, attention.lower_right) == []
    splits = []

    def documented(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **options: Any) -> Any:
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert options["window_size"] == (-1, 0)
        assert options.get("enable_gqa", False) == (q.shape[1] != k.shape[1])
        splits.append(options.get("num_splits"))
        parts = []
        for one in range(len(cu_q) - 1):
            rows, columns = slice(cu_q[one], cu_q[one + 1]), slice(cu_k[one], cu_k[one + 1])
            mine = [x.transpose(0, 1)[None] for x in (q[rows], k[columns], v[columns])]
            assert (mine[0].shape[2], mine[1].shape[2]) == (max_q, max_k)
            parts.append(attention.lower_right(torch, *mine)()[0].transpose(0, 1))
        return torch.cat(parts)

    import torch.nn.attention.varlen as module

    monkeypatch.setattr(module, "varlen_attn", documented)
    assert attention.attention_problems(torch, here, attention.varlen) == []
    assert set(splits) == {None}
    assert attention.choose(torch, here, "8.0")[0] == "varlen_attn without splits"
    assert splits[-1] == 1
    monkeypatch.setattr(module, "varlen_attn", lambda *_, **__: torch.zeros(()))
    assert attention.choose(torch, here, "9.0")[0] == "scaled_dot_product_attention"


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


def test_newer_gpus_need_newer_kernels() -> None:
    assert attention.newer_kernels("8.0") == ("", [])
    name, told = attention.newer_kernels("9.0")
    assert (name, len(told)) == ("", 1), "FlashAttention 3 isn't installed with the tests"
    assert "install FlashAttention 3" in told[0]
