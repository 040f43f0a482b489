"""Which view of efficiency a request takes: theoretical peak, or what an engine reaches on a GPU.

The measured view prices with the step model of `planner.measured`: kernels of the GPU with the engine,
and the engine's own time per step. Its `Efficiency` holds what an engine leaves of memory and of the
GPUs' time. GPUs and engines without measurements take another's, and the plan says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from catalog.load import Catalog
from catalog.schema import Engine, Hardware, Measurement
from catalog.units import format_tokens
from planner.cost.candidates import Setting
from planner.cost.efficiency import PEAK, Efficiency
from planner.cost.workspace import step_bytes, step_tokens
from planner.errors import InputError
from planner.measured.ends import EndTimer
from planner.measured.fabric import Fabric
from planner.measured.machine import machine
from planner.measured.times import MeasuredTimer
from planner.problem import Problem
from planner.space.runs import session_tokens

REFERENCE_ENGINE = "vllm"
"""Its memory and its times stand in for engines that nobody measured, and for ``any``."""
KNOWN_COPIES = 0.22
"""Half-width, in the logarithm, of copies whose share of the link is known: 20 GB/s are planned, 24.8 measured."""
UNKNOWN_COPIES = math.log(2.0)
"""The same where nobody measured an engine's copies: up to 4 times slower than the link [both ends: a factor of 2]."""


def efficiency_of(problem: Problem, engine: str) -> Efficiency:
    """The view of a request for one engine; ``any`` is the reference engine."""
    if problem.request.efficiency == "peak":
        return PEAK
    known = problem.catalog.get(Engine, _named(engine))
    memory = known.memory or problem.catalog.get(Engine, REFERENCE_ENGINE).memory
    if memory is None:
        raise InputError(f"catalog/engines/{REFERENCE_ENGINE}.yaml: memory: missing; add what the engine takes of HBM")
    has_experts = any(layer.experts for layer in problem.architecture.layers)
    return Efficiency(
        name="measured",
        hbm_utilisation=known.hbm_utilisation,
        workspace_bytes=(memory.workspace_experts if has_experts else memory.workspace) + _step_bytes(problem, known),
        overhead_bytes=memory.overhead,
        gpu_utilisation=problem.request.utilisation,
        copies=_link_share(known) or 1.0,
        growth=True,
        technique_time=True,
        shared_uplinks=True,
        decode_reserves=known.decode_reserves,
    )


def planned_step_tokens(problem: Problem, engine: Engine) -> int | None:
    """Tokens of a step of an engine whose memory for one grows with the session; None: it doesn't [tokens]."""
    step = engine.memory.step if engine.memory is not None else None
    return None if step is None else step_tokens(step, _slot_tokens(problem, engine), problem.cluster.hardware.hbm)


def _step_bytes(problem: Problem, engine: Engine) -> float:
    tokens = planned_step_tokens(problem, engine)
    if engine.memory is None or engine.memory.step is None or tokens is None:
        return 0.0
    return step_bytes(engine.memory.step, problem.architecture, tokens, _slot_tokens(problem, engine))


def _slot_tokens(problem: Problem, engine: Engine) -> int:
    """The longest session in whole blocks [tokens]."""
    return -(-session_tokens(problem) // engine.kv_block_tokens) * engine.kv_block_tokens


def _link_share(engine: Engine) -> float | None:
    """Share of the link's rate that an engine's copies to host memory reach; None: nobody measured it."""
    return next((offload.link_share for offload in engine.offload if offload.tier == "ddr"), None)


def ends_of(setting: Setting, problem: Problem, engine: str) -> tuple[Setting, Setting] | None:
    """A pricing at both ends of the interval of its times; None at theoretical peak."""
    timer = timer_of(problem, engine)
    if timer is None:
        return None
    known = problem.catalog.get(Engine, _named(engine))
    half = UNKNOWN_COPIES if _link_share(known) is None else KNOWN_COPIES
    fast, slow = (
        replace(
            setting,
            timer=EndTimer(timer, sign),
            efficiency=replace(setting.efficiency, copies=setting.efficiency.copies * math.exp(-sign * half)),
        )
        for sign in (-1, 1)
    )
    return fast, slow


def timer_of(problem: Problem, engine: str) -> MeasuredTimer | None:
    """Measured times of a request's GPU with one engine; None at theoretical peak."""
    if problem.request.efficiency == "peak":
        return None
    node = problem.cluster.node
    nic = node.nic.bandwidth if node.nic else problem.cluster.hardware.pcie.effective
    linked = node.gpu_topology not in ("pcie", "none")
    fabric = Fabric(problem.cluster.gpus_per_node, nic)
    return _timer(problem.catalog, problem.cluster.hardware.id, _named(engine), fabric, linked)


def measured_notes(problem: Problem, engine: str) -> list[str]:
    """Which part of the times was measured, which was transferred, and which lies beyond all measurements."""
    timer = timer_of(problem, engine)
    if timer is None:
        return []
    found, work = timer.machine, problem.workload
    name = problem.cluster.hardware.name
    notes = []
    if found.transferred:
        notes.append(f"times of {_named(engine)} on {name} are transferred: {'; '.join(found.transferred)}")
    if work.rounds > 1 and _link_share(problem.catalog.get(Engine, _named(engine))) is None:
        notes.append(
            f"copies of {_named(engine)} to host memory are priced at the link's rate; nobody measured them, and "
            "page-wise copies have been 4 to 8 times slower"
        )
    reach = found.reach
    notes += [f"times: {text}" for text in reach.here]
    prefill, decode = (format_tokens(int(tokens)) for tokens in (reach.prefill_tokens, reach.decode_tokens))
    if work.prompt_tokens > reach.prefill_tokens:
        whole = "" if reach.over_prefix else " and in whole prompts"
        chunks = "" if reach.over_prefix else ", and in chunks over a longer prefix,"
        notes.append(
            f"prefill attention was measured up to {prefill} tokens{whole}: beyond{chunks} times are extrapolated"
        )
    if work.end_tokens > reach.decode_tokens:
        notes.append(f"decode attention was measured up to {decode} tokens: beyond, extrapolated")
    return notes


def measurements_of(problem: Problem, engine: str) -> list[Measurement]:
    """The catalog's measurements behind the times; none at theoretical peak."""
    timer = timer_of(problem, engine)
    return [problem.catalog.get(Measurement, name) for name in timer.machine.reach.entries] if timer else []


def _named(engine: str) -> str:
    return REFERENCE_ENGINE if engine == "any" else engine


@lru_cache(maxsize=64)
def _timer(catalog: Catalog, hardware: str, engine: str, fabric: Fabric, linked: bool) -> MeasuredTimer:
    return MeasuredTimer(machine(catalog, catalog.get(Hardware, hardware), engine, linked=linked), fabric)
