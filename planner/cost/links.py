"""Links that move caches: from HBM to the offload tiers, and between prefill and decode pools."""

from __future__ import annotations

import numpy as np

from planner.cost.candidates import NVME, Floats, Ints, Setting

_NO_DISK_BYTES_PER_S = 1e-9
"""Where a node has no NVMe: nothing moves, and nothing fits."""


def link_bytes_per_s(setting: Setting, tier: Ints) -> tuple[Floats, Floats]:
    """Return what one GPU copies in and out of a tier, ``(candidate,)`` each [bytes/s]."""
    link = setting.hardware.pcie
    pcie = min(link.effective * setting.efficiency.copies, max(link.nominal, link.effective))
    if setting.efficiency.shared_uplinks:
        pcie /= min(setting.node.gpus_per_pcie_uplink, setting.gpus_per_node)
    nvme = setting.node.nvme
    read = min(pcie, nvme.read / setting.node.gpus) if nvme else _NO_DISK_BYTES_PER_S
    write = min(pcie, nvme.write / setting.node.gpus) if nvme else _NO_DISK_BYTES_PER_S
    on_nvme = tier == NVME
    return np.where(on_nvme, read, pcie), np.where(on_nvme, write, pcie)


def both_ways_ratio(setting: Setting) -> float:
    """Both directions' bandwidth at once over one direction's: 2 is full duplex."""
    link = setting.hardware.pcie
    if not setting.efficiency.shared_uplinks or link.effective_both is None:
        return 2.0
    return min(2.0, link.effective_both / link.effective)


def tier_bytes(setting: Setting, tier: Ints, gpus: int) -> Floats:
    """Return a replica's share of its servers' tier: as many parts as it takes GPUs ``(candidate,)`` [bytes]."""
    nvme = setting.node.nvme.capacity if setting.node.nvme else 0.0
    return np.where(tier == NVME, nvme, setting.node.host_memory) * (gpus / setting.node.gpus)


def between_pools_bytes_per_s(setting: Setting, gpus: Ints) -> Floats:
    """Bandwidth per GPU between two pools of so many GPUs in all: the GPUs' own link inside a node, else the
    node's network [bytes/s].
    """
    inside = setting.hardware.pcie.effective
    if setting.hardware.gpu_link is not None and setting.node.gpu_topology not in ("pcie", "none"):
        inside = setting.hardware.gpu_link.effective
    nic = setting.node.nic.bandwidth / setting.node.gpus if setting.node.nic else setting.hardware.pcie.effective
    return np.where(gpus <= setting.gpus_per_node, inside, min(nic, inside))
