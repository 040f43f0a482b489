"""Which view of efficiency a request takes: theoretical peak, or what an engine reaches on a GPU.

The measured view is a few shares of the peak per GPU and engine, read off the fitted operations of
``catalog/measurements`` at representative sizes. GPUs and engines without measurements take
another's shares on their own peaks, and the plan says so.
"""

from __future__ import annotations

from functools import lru_cache

from catalog.load import Catalog
from catalog.schema import Engine, Hardware
from planner.cost.efficiency import PEAK, Efficiency
from planner.errors import InputError
from planner.measured.machine import Machine, machine
from planner.measured.operations import gemm_s
from planner.problem import Problem

REFERENCE_ENGINE = "vllm"
"""Its memory and its rates stand in for engines that nobody measured."""
PREFILL_ROWS, DECODE_ROWS, WIDTH = 4096, 8, 8192
"""Sizes at which the linear layers' shares are read off: a chunk's rows, a batch's, and a layer's width."""


def efficiency_of(problem: Problem, engine: str) -> Efficiency:
    """The view of a request for one engine; ``any`` is the reference engine."""
    if problem.request.efficiency == "peak":
        return PEAK
    name = REFERENCE_ENGINE if engine == "any" else engine
    return _measured(
        problem.catalog,
        problem.cluster.hardware,
        problem.catalog.get(Engine, name),
        any(layer.experts for layer in problem.architecture.layers),
        problem.request.utilisation,
    )


@lru_cache(maxsize=64)
def _known_machine(catalog: Catalog, hardware_id: str, engine: str) -> Machine:
    return machine(catalog, catalog.get(Hardware, hardware_id), engine)


def _measured(
    catalog: Catalog, hardware: Hardware, engine: Engine, has_experts: bool, utilisation: float
) -> Efficiency:
    found = _known_machine(catalog, hardware.id, engine.id)
    memory = engine.memory or catalog.get(Engine, REFERENCE_ENGINE).memory
    if memory is None:
        raise InputError(f"catalog/engines/{REFERENCE_ENGINE}.yaml: memory: missing; add what the engine takes of HBM")
    fit, peak = found.gemm["bf16"], found.peak
    square = float(WIDTH * WIDTH)
    linear = 2.0 * PREFILL_ROWS * square / float(gemm_s(fit, peak, PREFILL_ROWS, WIDTH, WIDTH)) / peak.flops_per_s
    weights = 2.0 * square / float(gemm_s(fit, peak, DECODE_ROWS, WIDTH, WIDTH)) / peak.hbm_bytes_per_s
    return Efficiency(
        name="measured",
        linear_flops=min(1.0, linear),
        attention_flops=min(1.0, found.prefill.compute),
        # Weights and caches are read one after the other; the slower of the two rates stands for both.
        hbm_bandwidth=min(1.0, weights, found.decode.bandwidth),
        hbm_utilisation=engine.hbm_utilisation,
        workspace_bytes=memory.workspace_experts if has_experts else memory.workspace,
        overhead_bytes=memory.overhead,
        gpu_utilisation=utilisation,
        overlap=False,
        growth=True,
        technique_time=True,
        shared_uplinks=True,
    )


def transferred(problem: Problem, engine: str) -> tuple[str, ...]:
    """What of the view was measured on another GPU or with another engine, in words."""
    if problem.request.efficiency == "peak":
        return ()
    name = REFERENCE_ENGINE if engine == "any" else engine
    return _known_machine(problem.catalog, problem.cluster.hardware.id, name).transferred
