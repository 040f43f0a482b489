"""Attention of a chunk to a longer sequence in PyTorch: which kernel, and whether it is right.

Engines differ in one thing that decides how fast short chunks over long prefixes are: whether a kernel
splits the keys of a tile over the multiprocessors. What vLLM calls on Ampere and Ada splits them for
decoding only, so that the same kernel is measured without splits there.

References
----------
https://github.com/vllm-project/flash-attention csrc/flash_attn/flash_api.cpp, mha_varlen_fwd (commit 04325b6798bcc326):
"Only apply split-k for decoding".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Attention = Callable[[Any, Any, Any, Any], Callable[[], Any]]
"""Takes PyTorch, queries ``(b, heads, s, d)``, keys and values ``(b, kv_heads, n, d)``; returns what attends."""

TOLERANCE = 0.03
"""Difference of outputs from the definition, of values around 1."""
NEWER = {
    "9.": ("FA3", "FlashAttention 3 (the folder hopper of github.com/Dao-AILab/flash-attention)"),
    "10.": ("FA4", "flash-attn-4"),
}
"""Compute capability -> kernels that engines call there as PyTorch names them, and where they come from."""
UNSPLIT = ("8.", "12.")
"""Compute capabilities on which engines call FlashAttention 2, which splits keys for decoding only."""


def merged(torch: Any, query: Any, keys: Any, values: Any) -> Callable[[], Any]:
    """On a processor, whose kernel masks from the first key on: the prefix, which nothing masks, and the
    chunk are attended to apart and merged.
    """
    s, n = query.shape[2], keys.shape[2]
    group = query.shape[1] // keys.shape[1]
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


def varlen(torch: Any, query: Any, keys: Any, values: Any) -> Callable[[], Any]:
    """FlashAttention over packed sequences, as engines call it; how keys are split is left to the kernel."""
    return _varlen(torch, query, keys, values, None)


def unsplit_varlen(torch: Any, query: Any, keys: Any, values: Any) -> Callable[[], Any]:
    """The same with each tile walking all its keys."""
    return _varlen(torch, query, keys, values, 1)


def _varlen(torch: Any, query: Any, keys: Any, values: Any, splits: int | None) -> Callable[[], Any]:
    from torch.nn.attention.varlen import varlen_attn

    b, hq, s, d = query.shape
    hk, n = keys.shape[1], keys.shape[2]
    packed = query.transpose(1, 2).reshape(b * s, hq, d)
    packed_keys, packed_values = (x.transpose(1, 2).reshape(b * n, hk, d) for x in (keys, values))
    starts = [torch.arange(b + 1, device=query.device, dtype=torch.int32) * length for length in (s, n)]
    options: dict[str, Any] = {"window_size": (-1, 0)}
    if hq != hk:
        options["enable_gqa"] = True
    if splits is not None:
        options["num_splits"] = splits

    def run() -> Any:
        out = varlen_attn(packed, packed_keys, packed_values, *starts, s, n, **options)
        return out.view(b, s, hq, d).transpose(1, 2)

    return run


def lower_right(torch: Any, query: Any, keys: Any, values: Any) -> Callable[[], Any]:
    """PyTorch's attention under a causal mask that ends at the last key; its kernel splits keys where it helps."""
    from torch.nn.attention.bias import causal_lower_right

    bias = causal_lower_right(query.shape[2], keys.shape[2])
    grouped = query.shape[1] != keys.shape[1]
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(query, keys, values, attn_mask=bias, enable_gqa=grouped)


def newer_kernels(capability: str) -> tuple[str, list[str]]:
    """Let PyTorch call the kernels that engines call on newer GPUs: their name, and what to do where they aren't here.

    Whatever FlashAttention 2 reaches there says little of engines.
    """
    needed = next((kernels for start, kernels in NEWER.items() if capability.startswith(start)), None)
    if needed is None:
        return "", []
    implementation, package = needed
    try:
        from torch.nn.attention import activate_flash_attention_impl

        activate_flash_attention_impl(implementation)
    except (ImportError, RuntimeError, ValueError):
        return "", [
            f"older kernels: engines call {implementation} or the like on this GPU, and PyTorch here FlashAttention 2, "
            f"which may take twice as long; install {package} and a PyTorch that can activate it (2.13 can)"
        ]
    return f"{implementation} in ", []


def choose(torch: Any, device: Any, capability: str) -> tuple[str, Attention | None, list[str]]:
    """The first kernel that gives right results here: its name and itself; None and what is wrong with each."""
    problems = []
    for name, attention in _candidates(capability):
        try:
            wrong = attention_problems(torch, device, attention)
        except (RuntimeError, TypeError, ValueError, ImportError) as error:
            wrong = [" ".join(str(error).split())[:200]]
        if not wrong:
            return name, attention, []
        problems += [f"{name}: {text}" for text in wrong]
    return "none", None, problems


def _candidates(capability: str) -> Iterator[tuple[str, Attention]]:
    if capability == "cpu":
        yield "prefix and chunk merged", merged
        return
    if capability.startswith(UNSPLIT):
        yield "varlen_attn without splits", unsplit_varlen
    yield "varlen_attn", varlen
    yield "scaled_dot_product_attention", lower_right


def attention_problems(torch: Any, device: Any, attention: Attention) -> list[str]:
    """How far a kernel is from the definition on small examples; empty where it is right."""
    from planner.calibrate.kernels import random_values

    problems = []
    for s, prefix, hq, hk in ((17, 100, 4, 2), (64, 0, 2, 2), (1, 300, 8, 1)):
        n, dim = prefix + s, 128
        query = random_values(torch, device, 2, hq, s, dim)
        keys, values = (random_values(torch, device, 2, hk, n, dim) for _ in range(2))
        found = attention(torch, query, keys, values)().float()
        scores = query.float() @ keys.float().repeat_interleave(hq // hk, dim=1).transpose(2, 3) / dim**0.5
        later = torch.arange(n, device=device)[None, :] > prefix + torch.arange(s, device=device)[:, None]
        shares = scores.masked_fill(later, -math.inf).softmax(dim=-1)
        wanted = shares @ values.float().repeat_interleave(hq // hk, dim=1)
        error = float((found - wanted).abs().max())
        if not error <= TOLERANCE:
            problems.append(f"attention of {s} tokens after {prefix} is off by {error:.2g}")
    return problems
