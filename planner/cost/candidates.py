"""What is priced: candidates as struct of arrays, and the setting that they share."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from catalog.schema import Hardware, Node
from planner.cost.compression import CompressionTable
from planner.cost.efficiency import Efficiency
from planner.cost.replica import Shape, WeightFormat
from planner.cost.times import StepTimer
from planner.cost.workload import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DDR, NVME = 0, 1
"""Codes of the offload tier."""

AGGREGATED, PREFILLED = -1, -2
"""Instead of a prefill pool's shape: none; or first prompts that come prefilled for nothing (for bounds)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that the candidates of one pricing have in common."""

    architecture: Architecture
    hardware: Hardware
    node: Node
    gpus_per_node: int
    cluster_gpus: int
    workload: Workload
    efficiency: Efficiency
    shapes: tuple[Shape, ...]
    weight_formats: dict[str, WeightFormat]
    """Weight precision by its catalog point, as `Shape.weights` names it."""
    compression: CompressionTable
    usd_per_gpu_hour: float | None = None
    timer: StepTimer | None = None
    """Measured times; None: the roofline, with the view's shares of the peak."""

    @property
    def model_bytes(self) -> float:
        """HBM of one GPU for weights and caches [bytes]."""
        view = self.efficiency
        return self.hardware.hbm * view.hbm_utilisation - view.workspace_bytes - view.overhead_bytes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Candidates:
    """Decisions as struct of arrays, ``(candidate,)`` each."""

    shape: Ints
    """Index into `Setting.shapes`: the replica, or the decode pool's replica."""
    compression: Ints
    """Index into `Setting.compression`."""
    replicas: Ints
    decode_sequences: Ints
    """Decode cap b of one replica."""
    resident_limit: Ints
    """Sessions that may be resident in one replica; 0: as many as fit."""
    prefill_chunk: Ints
    """Tokens per prefill chunk; 0: the whole prompt."""
    throttled: Bools
    policy: Ints
    """`planner.cost.session.NONE`, ``SWAP`` or ``RECOMPUTE``."""
    tier: Ints
    """`DDR` or `NVME`."""
    prefill_shape: Ints
    """Index into `Setting.shapes` of the prefill pool's replica, or `AGGREGATED`, or `PREFILLED`."""
    prefill_replicas: Ints
    prefill_pool_chunk: Ints
    """Tokens per chunk in the prefill pool; 0: the whole prompt."""
    reserve_gpus: Ints
    """Of replicas beside these: they are paid for, and what they serve doesn't count."""

    def __len__(self) -> int:
        return int(self.shape.shape[0])

    def take(self, rows: Ints) -> Candidates:
        """Return some of the candidates."""
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))
