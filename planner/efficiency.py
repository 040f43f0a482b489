"""Which view of efficiency a request takes: theoretical peak, or what an engine reaches on a GPU.

The measured view prices with the step model of `planner.measured`: kernels of the GPU with the engine,
and the engine's own time per step. Its `Efficiency` holds what an engine leaves of memory and of the
GPUs' time. GPUs and engines without measurements take another's, and the plan says so.
"""

from __future__ import annotations

from functools import lru_cache

from catalog.load import Catalog
from catalog.schema import Engine, Hardware
from planner.cost.efficiency import PEAK, Efficiency
from planner.errors import InputError
from planner.measured.fabric import Fabric
from planner.measured.machine import machine
from planner.measured.times import MeasuredTimer
from planner.problem import Problem

REFERENCE_ENGINE = "vllm"
"""Its memory and its times stand in for engines that nobody measured, and for ``any``."""


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
        workspace_bytes=memory.workspace_experts if has_experts else memory.workspace,
        overhead_bytes=memory.overhead,
        gpu_utilisation=problem.request.utilisation,
        growth=True,
        technique_time=True,
        shared_uplinks=True,
    )


def timer_of(problem: Problem, engine: str) -> MeasuredTimer | None:
    """Measured times of a request's GPU with one engine; None at theoretical peak."""
    if problem.request.efficiency == "peak":
        return None
    node = problem.cluster.node
    nic = node.nic.bandwidth if node.nic else problem.cluster.hardware.pcie.effective
    linked = node.gpu_topology not in ("pcie", "none")
    fabric = Fabric(problem.cluster.gpus_per_node, nic)
    return _timer(problem.catalog, problem.cluster.hardware.id, _named(engine), fabric, linked)


def _named(engine: str) -> str:
    return REFERENCE_ENGINE if engine == "any" else engine


@lru_cache(maxsize=64)
def _timer(catalog: Catalog, hardware: str, engine: str, fabric: Fabric, linked: bool) -> MeasuredTimer:
    return MeasuredTimer(machine(catalog, catalog.get(Hardware, hardware), engine, linked=linked), fabric)
