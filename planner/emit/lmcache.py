"""LMCache's configuration: the tier below HBM and its size."""

from __future__ import annotations

from typing import Any

from planner.emit.deployment import Deployment, PoolPlan
from planner.emit.flags import problems_of_keys
from planner.emit.quoting import yaml_text
from planner.errors import InputError

VERSION = "0.5.6"
DISK = "/var/lib/plan-kv"
"""Where the nvme tier is mounted."""
_CHUNK_TOKENS = 256
"""LMCache's own default."""


def lmcache_settings(deployment: Deployment, pool: PoolPlan) -> dict[str, Any]:
    """Return the settings for one instance; LMCache takes sizes per rank, in GB of 2^30 bytes."""
    ranks = pool.instance_gpus
    each_gib = deployment.tier_bytes_per_instance(pool) / ranks / 2**30
    settings: dict[str, Any] = {"chunk_size": _CHUNK_TOKENS, "save_decode_cache": True}
    if deployment.decision.offload.tier == "nvme":
        settings |= {"local_cpu": False, "local_disk": f"file://{DISK}/", "max_local_disk_size": each_gib}
    else:
        settings |= {"local_cpu": True, "max_local_cpu_size": each_gib}
    return settings


def lmcache_file(deployment: Deployment, pool: PoolPlan) -> str:
    """Return the YAML file.

    Raises
    ------
    InputError
        If LMCache wouldn't know one of the keys (it only warns, so they are checked here).
    """
    settings = lmcache_settings(deployment, pool)
    problems = problems_of_keys(settings, "config", "lmcache", VERSION)
    if problems:
        raise InputError(problems)
    return yaml_text(settings)
