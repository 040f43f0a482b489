"""The operations in PyTorch, each as a function without arguments that a timer calls.

Inputs rotate over copies that together exceed the last-level cache, so that weights and caches come
from memory as in an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from planner.calibrate.attention import Attention
from planner.calibrate.sweeps import HEAD_DIM, Point, work

Run = Callable[[int], Any]
"""Runs the operation on its n-th set of inputs."""

MOST_COPIES = 32
ROTATION = 3.0
"""Bytes over which inputs rotate, in last-level caches."""
LARGEST_ROTATION = 2.0**31
"""The same at the most, where a cache is huge [bytes]."""


def copies_of(held_bytes: float, cache_bytes: float) -> int:
    """How many sets of inputs a point rotates over."""
    wanted = min(ROTATION * cache_bytes, LARGEST_ROTATION) / max(held_bytes, 1.0)
    return max(1, min(MOST_COPIES, math.ceil(wanted)))


def prepare(torch: Any, device: Any, at: Point, cache_bytes: float, attention: Attention) -> Run:
    """Allocate a point's inputs and return what runs it; ``attention`` is the kernel of prefill."""
    if at.operation == "prefill_attention":
        return _prefill(torch, device, at, attention)
    count = copies_of(work(at).held_bytes, cache_bytes)
    run: Run = _PREPARE[at.operation](torch, device, at, count)
    return run


def _prefill(torch: Any, device: Any, at: Point, attention: Attention) -> Run:
    b, s, n, hq, hk = at["b"], at["s"], at["prefix"] + at["s"], at["hq"], at["hk"]
    query = random_values(torch, device, b, hq, s, HEAD_DIM)
    keys, values = (random_values(torch, device, b, hk, n, HEAD_DIM) for _ in range(2))
    run = attention(torch, query, keys, values)
    return lambda turn: run()


def random_values(torch: Any, device: Any, *shape: int) -> Any:
    """Values in bf16 of a shape."""
    # A short pattern, repeated: the values don't matter, and drawing gigabytes of them would take longer than they.
    pattern = torch.randn(min(math.prod(shape), 1 << 20), device=device).to(torch.bfloat16)
    whole = -(-math.prod(shape) // pattern.numel())
    return pattern.repeat(whole)[: math.prod(shape)].view(*shape)


def _gemm(torch: Any, device: Any, at: Point, count: int) -> Run:
    x = random_values(torch, device, at["m"], at["k"])
    weights = [random_values(torch, device, at["n"], at["k"]) for _ in range(count)]
    linear = torch.nn.functional.linear
    return lambda turn: linear(x, weights[turn % count])


def _decode(torch: Any, device: Any, at: Point, count: int) -> Run:
    b, hq, hk = at["b"], at["hq"], at["hk"]
    # The queries that share a KV head are rows of one tile; with one new token none of them is masked.
    query = random_values(torch, device, b, hk, hq // hk, HEAD_DIM)
    shape = (b, hk, at["kv"], HEAD_DIM)
    caches = [(random_values(torch, device, *shape), random_values(torch, device, *shape)) for _ in range(count)]
    attend = torch.nn.functional.scaled_dot_product_attention

    def run(turn: int) -> Any:
        keys, values = caches[turn % count]
        return attend(query, keys, values)

    return run


def _memory(torch: Any, device: Any, at: Point, count: int) -> Run:
    kernel = at.word("kernel")
    arrays = 3 if kernel == "add" else 2
    width = 4096
    elements = max(width, at["bytes"] // arrays // 2 // width * width)
    sets = [[random_values(torch, device, elements // width, width) for _ in range(arrays)] for _ in range(count)]
    if kernel == "copy":
        return lambda turn: sets[turn % count][1].copy_(sets[turn % count][0])
    if kernel == "add":
        return lambda turn: torch.add(sets[turn % count][0], sets[turn % count][1], out=sets[turn % count][2])
    norm = torch.nn.functional.layer_norm
    return lambda turn: norm(sets[turn % count][0], (width,))


def _copies(torch: Any, device: Any, at: Point, count: int) -> Run:
    size, direction = at["bytes"], at.word("direction")
    on_gpu = device.type != "cpu"

    def pair() -> tuple[Any, Any]:
        host = torch.zeros(size, dtype=torch.uint8, pin_memory=on_gpu)
        return host, torch.zeros(size, dtype=torch.uint8, device=device)

    host, there = pair()
    if direction == "h2d":
        return lambda turn: there.copy_(host, non_blocking=True)
    if direction == "d2h":
        return lambda turn: host.copy_(there, non_blocking=True)
    if not on_gpu:

        def one_after_the_other(turn: int) -> None:
            there.copy_(host)
            host.copy_(there)

        return one_after_the_other
    host_back, there_back = pair()
    side = torch.cuda.Stream(device)

    def both(turn: int) -> None:
        here = torch.cuda.current_stream(device)
        side.wait_stream(here)
        there.copy_(host, non_blocking=True)
        with torch.cuda.stream(side):
            host_back.copy_(there_back, non_blocking=True)
        here.wait_stream(side)

    return both


_PREPARE: dict[str, Callable[[Any, Any, Point, int], Run]] = {
    "gemm": _gemm,
    "decode_attention": _decode,
    "memory": _memory,
    "copies": _copies,
}
