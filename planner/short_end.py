"""What an interaction costs at 4K tokens, for comparison: the cheapest uncompressed plan of the same request.

Planning it takes about as long as the plan that is compared with it, and many requests share it, so it
is kept in the user's cache directory (``$PLAN_CACHE``). A kept value counts only for the same facts, the
same code and the same request; a cache that can't be read or written only costs time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from catalog.load import cache_directory
from planner.problem import Problem
from planner.request import Request
from planner.space import open_space

PARITY_TOKENS = 4000
"""Context of the paper's short end, against which the cost of a long context is compared."""

MOST_KEPT_BYTES = 200_000
"""A larger cache file is begun anew [bytes]."""


def parity_usd_per_interaction(problem: Problem) -> float | None:
    """USD per interaction of the cheapest uncompressed plan at 4K tokens: same cluster, engines, weights, limits.

    None where nobody offers the GPU, or nothing can be planned even at 4K.
    """
    if problem.usd_per_gpu_hour is None:
        return None
    short = at_short_end(problem)
    key = _key(problem, short.request)
    kept = _read()
    if key in kept:
        gpu_hours = kept[key]
    else:
        gpu_hours = _gpu_hours(short)
        _write({**kept, key: gpu_hours})
    return None if gpu_hours is None else gpu_hours * problem.usd_per_gpu_hour


def at_short_end(problem: Problem) -> Problem:
    """The question of the short end: no techniques, no shared prefix, as many users as there may be."""
    request = problem.request.model_copy(
        update={
            "ctx": PARITY_TOKENS,
            "techniques": "none",
            "pin": None,
            "shared_prefix_tokens": 0,
            "users": None,
            "objective": "throughput",
        }
    )
    workload = replace(problem.workload, ctx_tokens=PARITY_TOKENS, shared_prefix_tokens=0)
    return replace(problem, request=request, workload=workload)


def _gpu_hours(short: Problem) -> float | None:
    """GPU-hours per interaction of the cheapest plan; prices may change."""
    from planner.search.frontier import frontier  # Not needed where the value is kept.

    found = frontier(short, open_space(short), ("cost",))
    return float(found.plans[0].vector[0]) if found.plans else None


def _key(problem: Problem, request: Request) -> str:
    """Everything that the value depends on: facts, code, the request, the files that it names."""
    asked = request.model_dump_json(exclude={"usd_per_gpu_hour"})
    parts = [problem.catalog.content_hash, _code(), problem.model_id, asked, repr(problem.cluster)]
    if problem.model_entry is None:
        parts.append(repr(problem.architecture))  # From a file, which may change.
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _code() -> str:
    """Names, sizes and times of the program's files: those that this process runs, whatever becomes of them."""
    here = Path(__file__).parent
    files = sorted([*here.rglob("*.py"), *(here.parent / "catalog").rglob("*.py")])
    rows = [(str(path), status.st_mtime_ns, status.st_size) for path in files for status in [path.stat()]]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _file() -> Path:
    return cache_directory() / "parity.json"


def _read() -> dict[str, float | None]:
    """What is kept; nothing where the file isn't ours."""
    try:
        path = _file()
        if path.stat().st_size > MOST_KEPT_BYTES:
            return {}
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {key: value for key, value in kept.items() if value is None or _is_cost(value)}


def _is_cost(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0.0


def _write(kept: dict[str, float | None]) -> None:
    with suppress(OSError):  # A read-only home only costs time.
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(kept, stream)
        os.replace(temporary, path)
