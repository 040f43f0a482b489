"""GPUs, servers and what they cost."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catalog.schema.base import Bytes, BytesPerSecond, Entry, Fact, FlopsPerSecond, Id, Text, UsdPerHour, Watts


class Link(Fact):
    """A link of one GPU, per direction: what the standard promises and what copies reach."""

    kind: str
    nominal: BytesPerSecond
    effective: BytesPerSecond
    effective_both: BytesPerSecond | None = None
    """Both directions at once, added up, where the host caps the sum."""

    @model_validator(mode="after")
    def _no_faster_than_nominal(self) -> Link:
        if self.effective > self.nominal:
            raise ValueError("effective bandwidth exceeds nominal; a link is never faster than its standard")
        return self


class DenseFlops(Fact):
    """Dense peak throughput per precision, without structured sparsity. Absent: not supported in hardware."""

    bf16: FlopsPerSecond
    fp16: FlopsPerSecond | None = None
    tf32: FlopsPerSecond | None = None
    fp32: FlopsPerSecond | None = None
    int8: FlopsPerSecond | None = None
    fp8: FlopsPerSecond | None = None
    fp4: FlopsPerSecond | None = None


class Hardware(Entry):
    """One GPU model."""

    vendor: Literal["nvidia", "amd", "other"]
    generation: str
    compute_capability: Text
    form_factor: str
    hbm: Bytes
    hbm_bandwidth: BytesPerSecond
    flops: DenseFlops
    gpu_link: Link | None
    pcie: Link
    tdp: Watts | None
    """None: not known."""


class Nvme(Fact):
    """Local NVMe of a node, all drives together."""

    capacity: Bytes
    read: BytesPerSecond
    write: BytesPerSecond


class Nic(Fact):
    """Network of a node for GPU traffic, all ports together, per direction."""

    kind: str
    bandwidth: BytesPerSecond


class Node(Entry):
    """One server: its GPUs, host memory, disks and links."""

    hardware: Id
    gpus: Annotated[int, Field(ge=1)]
    gpu_topology: Literal["nvswitch", "nvlink-pairs", "nvlink-mesh", "xgmi-mesh", "pcie", "none"]
    gpus_per_pcie_uplink: Annotated[int, Field(ge=1)]
    host_memory: Bytes
    nvme: Nvme | None = None
    nic: Nic | None = None
    default_for: tuple[Id, ...] = ()
    """Hardware ids for which this node is assumed when a cluster names only GPUs."""


class Price(Entry):
    """One dated offer: dollars per GPU and hour."""

    provider: str
    hardware: Id
    node: Id | None = None
    gpus: Annotated[int, Field(ge=1)]
    """GPUs in the smallest unit of this offer."""
    usd_per_gpu_hour: UsdPerHour
    kind: Literal["on-demand", "reserved", "spot"]
    observed: dt.date
    region: str | None = None
