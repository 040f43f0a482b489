"""Everything that holds a plan back and could be given more of: limits, restrictions, hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.ask import Question
from planner.clusters import Sizes, sizes_of
from planner.explain.limits import FREE
from planner.limits import Limit, asked, limits_of
from planner.plan import Document, Metrics
from planner.problem import Problem
from planner.request import Request

MEMORY_STEPS = (1.1, 2.0, 4.0)
"""Memory isn't sold by the unit: these multiples are asked."""
MORE_GPUS = 2
"""GPUs are asked one more, and so many times as many."""


@dataclass(frozen=True)
class Lever:
    """One thing that could be given more of."""

    name: str
    """Of the constraint: ``tpot_s``; of a restriction: ``engine``."""
    now: str
    """``--max-latency 200ms``"""
    amount: float | None
    """Now, in the unit of `at`; None for a restriction."""
    lifted: Question
    lifted_text: str
    at: Callable[[float], Question] | None = None
    """The question with this amount of it; None for a restriction."""
    text: Callable[[float], str] = str
    taken: Callable[[Metrics], float] | None = None
    """What a plan takes of it, where any amount from there on leaves the plan possible."""
    steps: tuple[float, ...] = ()
    """Amounts to ask, where it isn't continuous."""
    next_unit: float | None = None
    whole: bool = False
    """Amounts are whole numbers."""
    less: bool = False
    """Less of it is more relaxed: users to serve."""


def levers(problem: Problem, document: Document) -> list[Lever]:
    """The limits of a request in the order of a plan's constraints, then its restrictions."""
    request = problem.request
    found = [_of_limit(problem, limit, amount) for limit, amount in limits_of(request)]
    found += _hardware(problem, document)
    found += _restrictions(request)
    return found


def _of_limit(problem: Problem, limit: Limit, amount: float) -> Lever:
    beyond, whole = limit.beyond(amount), limit.unit.step == 1.0

    def question(to: float) -> Question:
        return Question({limit.field: asked(limit, to)})

    return Lever(
        name=limit.metrics[-1],
        now=limit.typed(amount),
        amount=amount,
        lifted=Question({limit.field: None}) if beyond is None else question(beyond),
        lifted_text=limit.typed(beyond),
        at=question,
        text=lambda to: limit.unit.text(to if whole else float(f"{to:.4g}")),
        taken=lambda metrics: limit.taken(amount, metrics),
        next_unit=limit.more(amount, problem.cluster.hardware),
        whole=whole,
        less=limit.at_least,
    )


def _hardware(problem: Problem, document: Document) -> list[Lever]:
    cluster = problem.cluster
    sizes = sizes_of(problem)
    found = [] if sizes is None else [_gpus(sizes)]
    found.append(_memory("hbm_bytes_per_gpu", "hbm", float(cluster.hardware.hbm), "HBM"))
    rows = {row.name for row in document.constraints}
    if "ddr_bytes" in rows:
        found.append(_memory("ddr_bytes", "ddr", float(cluster.node.host_memory), "host memory"))
    if "nvme_bytes" in rows and cluster.node.nvme is not None:
        found.append(_memory("nvme_bytes", "nvme", float(cluster.node.nvme.capacity), "NVMe"))
    return found


def _gpus(sizes: Sizes) -> Lever:
    most = sizes.count * MORE_GPUS
    return Lever(
        name="gpus",
        now=f"--gpus {sizes.text(sizes.count)}",
        amount=sizes.count,
        lifted=Question({"gpus": sizes.text(most)}),
        lifted_text=f"--gpus {sizes.text(most)}",
        at=lambda amount: Question({"gpus": sizes.text(int(amount))}),
        text=lambda amount: sizes.text(int(amount)),
        steps=tuple(sorted({sizes.count + 1, most})),
        whole=True,
    )


def _memory(name: str, kind: str, size: float, words: str) -> Lever:
    from catalog.units import format_bytes

    return Lever(
        name=name,
        now=f"{format_bytes(size)} {words}",
        amount=size,
        lifted=Question(memory={kind: MEMORY_STEPS[-1]}),
        lifted_text=f"{MEMORY_STEPS[-1]:g} times the {words.partition(' per')[0]}",
        at=lambda amount: Question(memory={kind: amount / size}),
        text=lambda amount: f"{format_bytes(amount)} {words}",
        steps=tuple(size * factor for factor in MEMORY_STEPS),
    )


def _restrictions(request: Request) -> list[Lever]:
    found = []
    for field in ("engine", "weights", "techniques", "pin", "spare"):
        value, free = getattr(request, field), FREE[field]
        if value not in (free, "published", None):
            found.append(
                Lever(
                    name=field,
                    now=f"--{field} {value}",
                    amount=None,
                    lifted=Question({field: free}),
                    lifted_text=f"--{field} {'none' if free is None else free}",
                )
            )
    return found
