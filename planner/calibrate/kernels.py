"""The operations in PyTorch, each as a function without arguments that a timer calls.

Inputs rotate over copies that together exceed the last-level cache, so that weights and caches come
from memory as in an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from planner.calibrate.sweeps import HEAD_DIM, Point, work

Run = Callable[[int], Any]
"""Runs the operation on its n-th set of inputs."""

MOST_COPIES = 32
ROTATION = 3.0
"""Bytes over which inputs rotate, in last-level caches."""
LARGEST_ROTATION = 2.0**31
"""The same at the most, where a cache is huge [bytes]."""
TOLERANCE = 0.03
"""Difference of an attention's outputs from the reference, of values around 1."""


def copies_of(held_bytes: float, cache_bytes: float) -> int:
    """How many sets of inputs a point rotates over."""
    wanted = min(ROTATION * cache_bytes, LARGEST_ROTATION) / max(held_bytes, 1.0)
    return max(1, min(MOST_COPIES, math.ceil(wanted)))


def prepare(torch: Any, device: Any, at: Point, cache_bytes: float) -> Run:
    """Allocate a point's inputs and return what runs it."""
    count = copies_of(work(at).held_bytes, cache_bytes)
    run: Run = _PREPARE[at.operation](torch, device, at, count)
    return run


def _random(torch: Any, device: Any, *shape: int) -> Any:
    # A short pattern, repeated: the values don't matter, and drawing gigabytes of them would take longer than they.
    pattern = torch.randn(min(math.prod(shape), 1 << 20), device=device).to(torch.bfloat16)
    whole = -(-math.prod(shape) // pattern.numel())
    return pattern.repeat(whole)[: math.prod(shape)].view(*shape)


def _gemm(torch: Any, device: Any, at: Point, count: int) -> Run:
    x = _random(torch, device, at["m"], at["k"])
    weights = [_random(torch, device, at["n"], at["k"]) for _ in range(count)]
    linear = torch.nn.functional.linear
    return lambda turn: linear(x, weights[turn % count])


def _decode(torch: Any, device: Any, at: Point, count: int) -> Run:
    b, hq, hk = at["b"], at["hq"], at["hk"]
    # The queries that share a KV head are rows of one tile; with one new token none of them is masked.
    query = _random(torch, device, b, hk, hq // hk, HEAD_DIM)
    caches = [
        (_random(torch, device, b, hk, at["kv"], HEAD_DIM), _random(torch, device, b, hk, at["kv"], HEAD_DIM))
        for _ in range(count)
    ]
    attend = torch.nn.functional.scaled_dot_product_attention

    def run(turn: int) -> Any:
        keys, values = caches[turn % count]
        return attend(query, keys, values)

    return run


def _prefill(torch: Any, device: Any, at: Point, count: int) -> Run:
    b, s, n, hq, hk = at["b"], at["s"], at["prefix"] + at["s"], at["hq"], at["hk"]
    query = _random(torch, device, b, hq, s, HEAD_DIM)
    keys, values = _random(torch, device, b, hk, n, HEAD_DIM), _random(torch, device, b, hk, n, HEAD_DIM)
    run = chunk_attention(torch, query, keys, values)
    return lambda turn: run()


def chunk_attention(torch: Any, query: Any, keys: Any, values: Any) -> Callable[[], Any]:
    """Causal attention of the last tokens of a sequence to all of it, without a mask in memory.

    On a GPU it is one flash-attention kernel. The kernel for processors masks from the first key on,
    so that there the prefix, which nothing masks, and the chunk are attended apart and merged.
    """
    s, n = query.shape[2], keys.shape[2]
    group = query.shape[1] // keys.shape[1]
    attend = torch.nn.functional.scaled_dot_product_attention
    if query.device.type != "cpu":
        bias = torch.nn.attention.bias.causal_lower_right(s, n)
        return lambda: attend(query, keys, values, attn_mask=bias, enable_gqa=group > 1)
    own_keys, own_values = (x[:, :, n - s :].repeat_interleave(group, dim=1) for x in (keys, values))
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if n == s:
        return lambda: flash(query, own_keys, own_values, 0.0, True)[0]
    old_keys, old_values = keys[:, :, : n - s], values[:, :, : n - s]
    b, hk = keys.shape[0], keys.shape[1]
    folded = query.reshape(b, hk, group * s, -1)

    def run() -> Any:
        old, old_weight = flash(folded, old_keys, old_values)
        new, new_weight = flash(query, own_keys, own_values, 0.0, True)
        share = torch.sigmoid(new_weight - old_weight.reshape(new_weight.shape)).unsqueeze(-1)
        return torch.lerp(old.reshape(new.shape).float(), new.float(), share).to(query.dtype)

    return run


def attention_problems(torch: Any, device: Any) -> list[str]:
    """How far attention is from its definition on a small example; empty where it is right."""
    problems = []
    for s, prefix, hq, hk in ((17, 100, 4, 2), (64, 0, 2, 2), (1, 300, 8, 1)):
        n = prefix + s
        query = _random(torch, device, 2, hq, s, HEAD_DIM)
        keys, values = _random(torch, device, 2, hk, n, HEAD_DIM), _random(torch, device, 2, hk, n, HEAD_DIM)
        found = chunk_attention(torch, query, keys, values)().float()
        scores = query.float() @ keys.float().repeat_interleave(hq // hk, dim=1).transpose(2, 3) / HEAD_DIM**0.5
        later = torch.arange(n, device=device)[None, :] > prefix + torch.arange(s, device=device)[:, None]
        shares = scores.masked_fill(later, -math.inf).softmax(dim=-1)
        wanted = shares @ values.float().repeat_interleave(hq // hk, dim=1)
        error = float((found - wanted).abs().max())
        if not error <= TOLERANCE:
            problems.append(
                f"attention of {s} tokens after {prefix} is wrong by {error:.2g}: this PyTorch doesn't mask as its "
                "documentation says; use another version"
            )
    return problems


def _memory(torch: Any, device: Any, at: Point, count: int) -> Run:
    kernel = at.word("kernel")
    arrays = 3 if kernel == "add" else 2
    width = 4096
    elements = max(width, at["bytes"] // arrays // 2 // width * width)
    sets = [[_random(torch, device, elements // width, width) for _ in range(arrays)] for _ in range(count)]
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
    "prefill_attention": _prefill,
    "decode_attention": _decode,
    "memory": _memory,
    "copies": _copies,
}
