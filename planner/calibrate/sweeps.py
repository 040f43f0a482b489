"""Which sizes of each operation are measured.

One list for every device; what would take too long or not fit is left out by rough rates that are
measured first and kept, so that an interrupted run finds the same list again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from planner.errors import InputError

OPERATIONS = ("prefill_attention", "decode_attention", "gemm", "memory", "copies", "all_reduce")
"""In the order in which they are measured: what nobody has measured before comes first."""
GROUPS = {"attention": ("prefill_attention", "decode_attention")}
HEAD_DIM = 128
MEMORY_SHARE = 0.5
"""Share of the free memory that one point may take."""
SHARE_OF_RATES = 0.5
"""Operations are taken to reach half of the rough rates, to estimate their time."""

_QUICK_CHUNKS = (16, 64, 128, 512, 2048)
_CHUNKS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_QUICK_PREFIXES = (4_096, 32_768, 131_072, 1_000_000)
_PREFIXES = (2_048, 8_192, 32_768, 131_072, 262_144, 524_288, 1_000_000)
_QUICK_PROMPTS = (256, 1_024, 4_096, 16_384)
_PROMPTS = (128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072)
_QUICK_PREFILL_HEADS = ((4, 1), (32, 8))
_PREFILL_HEADS = ((4, 1), (8, 1), (16, 2), (32, 8), (64, 8), (32, 32))
_QUICK_DECODE_HEADS = ((8, 1), (32, 8))
_DECODE_HEADS = ((8, 1), (16, 2), (32, 8), (64, 8))
_QUICK_BATCHES = (1, 8, 64)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_QUICK_CACHES = (1_024, 8_192, 65_536, 524_288)
_CACHES = (512, 1_024, 2_048, 8_192, 32_768, 131_072, 524_288, 1_000_000)
_QUICK_LAYERS = ((1024, 1024), (2048, 2048), (1024, 4096), (4096, 4096), (6144, 4096), (4096, 14336), (8192, 8192))
_LAYERS = (
    *((1024, 1024), (2048, 2048), (1024, 4096), (4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336)),
    *((5120, 5120), (3584, 18944), (8192, 8192), (10240, 8192), (57344, 8192), (8192, 28672), (1280, 8192)),
    *((8192, 1024), (7168, 8192), (8192, 3584), (128256, 4096)),
)
_QUICK_ROWS = (1, 8, 32, 64, 128, 256, 512, 1024, 4096)
_ROWS = (*range(1, 3), 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
KERNELS = {"copy": 2, "add": 3, "layer_norm": 2}
"""Kernels that stream, and how many arrays of the same size each moves."""
_QUICK_BYTES = (1 << 16, 1 << 20, 1 << 24, 1 << 27, 1 << 29)
_BYTES = tuple(1 << power for power in range(14, 31))
DIRECTIONS = ("h2d", "d2h", "both")
_QUICK_COPIES = (1 << 16, 1 << 20, 1 << 24, 1 << 28)
_COPIES = tuple(1 << power for power in range(12, 31, 2))
_QUICK_MESSAGES = tuple(1 << power for power in range(12, 27))
_MESSAGES = tuple(1 << power for power in range(12, 30))


@dataclass(frozen=True, slots=True)
class Point:
    """One operation at one size."""

    operation: str
    sizes: tuple[tuple[str, int | str], ...]

    @property
    def key(self) -> str:
        """The point as one text, the same in every run."""
        return json.dumps([self.operation, sorted(self.sizes)])

    def __getitem__(self, name: str) -> int:
        return int(dict(self.sizes)[name])

    def word(self, name: str) -> str:
        """A size that is a word, such as a kernel."""
        return str(dict(self.sizes)[name])

    def __str__(self) -> str:
        return f"{self.operation} " + " ".join(f"{name}={value}" for name, value in self.sizes)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device roughly reaches."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a point asks of a device, at the least."""

    flops: float
    moved_bytes: float
    held_bytes: float
    """Memory that its arrays take [bytes]."""


def operations_named(text: str) -> tuple[str, ...]:
    """Operations from a list as users write it, in the order of `OPERATIONS`; empty: all of them.

    >>> operations_named("gemm, prefill-attention")
    ('prefill_attention', 'gemm')

    Raises
    ------
    InputError
        With every name that isn't known.
    """
    names = [name.strip().lower().replace("-", "_") for name in text.split(",") if name.strip()]
    wanted = {part for name in names for part in GROUPS.get(name, (name,))}
    unknown = sorted(wanted - set(OPERATIONS))
    if unknown:
        known = ", ".join([*GROUPS, *OPERATIONS]).replace("_", "-")
        raise InputError(f"--only {', '.join(unknown)}: unknown; choose from {known}")
    return tuple(name for name in OPERATIONS if name in wanted or not names)


def point(operation: str, **sizes: int | str) -> Point:
    """A point by its sizes."""
    return Point(operation, tuple(sizes.items()))


def work(at: Point) -> Work:
    """FLOPs, bytes and memory of a point. Elements have two bytes."""
    if at.operation == "gemm":
        m, n, k = at["m"], at["n"], at["k"]
        moved = 2.0 * (n * k + m * (n + k))
        return Work(2.0 * m * n * k, moved, moved)
    if at.operation == "prefill_attention":
        b, s, prefix = at["b"], at["s"], at["prefix"]
        moved = 4.0 * HEAD_DIM * b * (s * at["hq"] + (prefix + s) * at["hk"])
        pairs = s * (prefix + (s + 1) / 2)
        return Work(4.0 * HEAD_DIM * b * at["hq"] * pairs, moved, 2.0 * moved)
    if at.operation == "decode_attention":
        moved = 4.0 * HEAD_DIM * at["b"] * (at["kv"] * at["hk"] + at["hq"])
        return Work(4.0 * HEAD_DIM * at["b"] * at["hq"] * at["kv"], moved, moved)
    moved = float(at["bytes"])
    both = at.operation == "copies" and at.word("direction") == "both"
    return Work(0.0, moved, moved * (2.0 if both else 1.0))


def estimate_s(at: Point, rates: Rates) -> float:
    """Rough time of a point [s]."""
    needed = work(at)
    return max(needed.flops / rates.flops_per_s, needed.moved_bytes / rates.bytes_per_s) / SHARE_OF_RATES


def sweep(operation: str, *, quick: bool, gpus: int, rates: Rates, free_bytes: float, longest_s: float) -> list[Point]:
    """The points of an operation that fit a device.

    Parameters
    ----------
    operation
        One of `OPERATIONS`.
    quick
        Few points, enough for a fit with a wider error.
    gpus
        Devices that can reduce together.
    rates, free_bytes
        Of the device.
    longest_s
        Points that would take longer are left out [s].
    """
    fits = MEMORY_SHARE * free_bytes
    found = []
    for at in _SWEEPS[operation](quick, gpus):
        if estimate_s(at, rates) <= longest_s and work(at).held_bytes <= fits:
            found.append(at)
    return found


def _prefill(quick: bool, gpus: int) -> Iterator[Point]:
    heads = _QUICK_PREFILL_HEADS if quick else _PREFILL_HEADS
    chunks, prefixes = (_QUICK_CHUNKS, _QUICK_PREFIXES) if quick else (_CHUNKS, _PREFIXES)
    for s, prefix, (hq, hk) in product(chunks, prefixes, heads):
        yield point("prefill_attention", b=1, s=s, prefix=prefix, hq=hq, hk=hk)
    for s, (hq, hk) in product(_QUICK_PROMPTS if quick else _PROMPTS, heads):
        yield point("prefill_attention", b=1, s=s, prefix=0, hq=hq, hk=hk)
    for b, s, (hq, hk) in product((4,) if quick else (4, 16), (1024, 4096), heads):
        yield point("prefill_attention", b=b, s=s, prefix=0, hq=hq, hk=hk)


def _decode(quick: bool, gpus: int) -> Iterator[Point]:
    heads = _QUICK_DECODE_HEADS if quick else _DECODE_HEADS
    for b, kv, (hq, hk) in product(_QUICK_BATCHES if quick else _BATCHES, _QUICK_CACHES if quick else _CACHES, heads):
        yield point("decode_attention", b=b, kv=kv, hq=hq, hk=hk)


def _gemm(quick: bool, gpus: int) -> Iterator[Point]:
    for (n, k), m in product(_QUICK_LAYERS if quick else _LAYERS, _QUICK_ROWS if quick else _ROWS):
        yield point("gemm", m=m, n=n, k=k)


def _memory(quick: bool, gpus: int) -> Iterator[Point]:
    for kernel, size in product(KERNELS, _QUICK_BYTES if quick else _BYTES):
        yield point("memory", kernel=kernel, bytes=KERNELS[kernel] * size)


def _copies(quick: bool, gpus: int) -> Iterator[Point]:
    for direction, size in product(DIRECTIONS, _QUICK_COPIES if quick else _COPIES):
        yield point("copies", direction=direction, bytes=size)


def _all_reduce(quick: bool, gpus: int) -> Iterator[Point]:
    counts = [n for n in (2, 4, 8, 16) if n <= gpus]
    if gpus > 1 and gpus not in counts:
        counts.append(gpus)
    for n, size in product(counts, _QUICK_MESSAGES if quick else _MESSAGES):
        yield point("all_reduce", gpus=n, bytes=size)


_SWEEPS = {
    "prefill_attention": _prefill,
    "decode_attention": _decode,
    "gemm": _gemm,
    "memory": _memory,
    "copies": _copies,
    "all_reduce": _all_reduce,
}
