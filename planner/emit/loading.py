"""How much is downloaded and read before an engine serves, and how long that may take.

Bandwidths come from the cluster file; where it says none, a slow one is assumed, and whoever prints a time says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.launch import Launch

ASSUMED_BYTES_PER_S = 0.2e9
"""Of storage and of the model hub where the cluster file names no bandwidth: a share of a 10 Gb/s network; an
assumption, and told as one [bytes/s]."""
ENGINE_START_S = 900.0
"""Allowed beside reading the weights: importing, compiling, capturing graphs, profiling; an assumption [s]."""
MARGIN = 2.0
"""A start that takes this many times as long as foreseen is broken."""
_BF16_BYTES = 2
_GIB = 1 << 30
_RESERVE = 1.1
"""Room of a claim over the files: temporary files while they are downloaded, tokenizers, locks."""
_STEP_GIB = 10


@dataclass(frozen=True, slots=True)
class Loading:
    """What one instance reads before it serves."""

    downloaded_bytes: float
    """From the model hub, once per claim; 0 for a directory of the server [bytes]."""
    made_bytes: float
    """Of a quantised checkpoint that is made from it, once per claim [bytes]."""
    read_bytes: float
    """From storage at every start [bytes]."""
    read_bytes_per_s: float
    download_bytes_per_s: float
    read_is_assumed: bool
    download_is_assumed: bool

    @property
    def first_start_s(self) -> float:
        """Until an instance serves whose checkpoint isn't there yet, without making one [s]."""
        return self.downloaded_bytes / self.download_bytes_per_s + self.restart_s

    @property
    def restart_s(self) -> float:
        """Until an instance serves whose checkpoint is in its storage [s]."""
        return self.read_bytes / self.read_bytes_per_s + ENGINE_START_S

    @property
    def budget_s(self) -> int:
        """After which a start counts as broken, whole minutes [s]."""
        return 60 * math.ceil(MARGIN * self.first_start_s / 60)

    @property
    def claim_bytes(self) -> int:
        """Of a claim that holds the files, in steps of ten GiB [bytes]."""
        files = _RESERVE * (self.downloaded_bytes + self.made_bytes)
        return _STEP_GIB * _GIB * max(1, math.ceil(files / _GIB / _STEP_GIB))

    @property
    def assumption(self) -> str | None:
        """Which bandwidths are assumed; None if the cluster file says both."""
        both = {"storage.bandwidth": self.read_is_assumed, "storage.download": self.download_is_assumed}
        missing = [name for name, assumed in both.items() if assumed]
        if not missing:
            return None
        return (
            f"assumed: {' and '.join(missing)} of {ASSUMED_BYTES_PER_S / 1e6:.0f} MB/s (the cluster file can say them) "
            f"and {ENGINE_START_S / 60:.0f} minutes for the engine itself"
        )


def loading(deployment: Deployment, launch: Launch) -> Loading:
    """Return what one instance of a launch downloads and reads."""
    deployment = deployment.of(launch.pool)
    storage = deployment.cluster.site.storage
    plain = _BF16_BYTES * float(deployment.architecture.total_params)
    held = _held_bytes(deployment)
    from_source = launch.model == deployment.model_source
    # Weights that the plan quantises are read in bf16 where they are quantised while they are loaded.
    served = plain if from_source and deployment.weights is not None else min(held, plain)
    source = plain if launch.makes_checkpoint else served
    is_local = (deployment.model_source if launch.makes_checkpoint else launch.model).startswith("/")
    return Loading(
        downloaded_bytes=0.0 if is_local else source,
        made_bytes=held if launch.makes_checkpoint else 0.0,
        read_bytes=held if launch.makes_checkpoint else served,
        read_bytes_per_s=storage.bandwidth or ASSUMED_BYTES_PER_S,
        download_bytes_per_s=storage.download or ASSUMED_BYTES_PER_S,
        read_is_assumed=storage.bandwidth is None,
        download_is_assumed=storage.download is None and not is_local,
    )


def _held_bytes(deployment: Deployment) -> float:
    """Weights as the plan keeps them: those of the fullest GPU on every GPU that holds a part of its own [bytes]."""
    pool = deployment.pools[-1]
    return deployment.metrics.hbm_bytes_per_gpu.weights * pool.pp * max(pool.tp, pool.ep)


def longest_step_s(deployment: Deployment, pool: PoolPlan) -> float:
    """Time in which an engine may answer nothing: a step, a whole prefill where it isn't cut into chunks [s]."""
    latency = deployment.metrics.latency
    step_s = latency.itl_s.full if pool.chunk_tokens is not None else None
    return latency.ttft_s.full or 0.0 if step_s is None else step_s


def longest_request_s(deployment: Deployment) -> float:
    """Time of the longest request: a whole document's prefill and the answer, at the end of their intervals [s]."""
    first_s, step_s = (_at_most_s(deployment, name) for name in ("ttft_full_s", "itl_full_s"))
    return first_s + deployment.request.output_tokens * step_s


def _at_most_s(deployment: Deployment, name: str) -> float:
    """Return a time at the end of its interval; 0 where there is none [s]."""
    value, intervals = deployment.metrics.named(name) or 0.0, deployment.document.intervals
    found = None if intervals is None else intervals.named(name)
    return value if found is None else max(value, found[1])
