"""The flags that turn a running vLLM into the planned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from catalog.load import Catalog
from planner.emit.capacity import with_running
from planner.emit.carried import Fate, fates
from planner.emit.engines import vllm
from planner.emit.launch import Launch, flag_words
from planner.emit.read_deployment import read_deployment
from planner.emit.running import Running
from planner.errors import InputError
from planner.importing import Command, Imported
from planner.importing.defaults import MEMORY_SHARE, Scheduling
from planner.importing.flags import read_flags
from planner.plan import Document

_INTERFACE = {
    "--host",
    "--port",
    "--served-model-name",
    "--dtype",
    "--api-server-count",
    "--node-rank",
    "--master-addr",
}
"""Where and as what it listens: no decision."""
_SAME_AS_ABSENT: dict[str, Any] = {
    "--pipeline-parallel-size": 1,
    "--tensor-parallel-size": 1,
    "--enable-chunked-prefill": True,
    "--enable-prefix-caching": True,
    "--gpu-memory-utilization": 0.92,
    "--block-size": 16,
}
"""Flags that change nothing where they are absent."""
_DROPPED = {
    "--kv-cache-dtype",
    "--attention-backend",
    "--quantization",
    "--enable-expert-parallel",
    "--decode-context-parallel-size",
    "--prefill-context-parallel-size",
    "--data-parallel-size",
    "--kv-offloading-size",
    "--kv-offloading-backend",
    "--kv-transfer-config",
    "--long-prefill-token-threshold",
    "--cpu-offload-gb",
    "--enforce-eager",
}
"""Flags of a decision that go where the plan doesn't give them."""


@dataclass(frozen=True, slots=True)
class FlagChange:
    """One flag of ``vllm serve``; the model's own name counts as one, ``MODEL``."""

    flag: str
    now: Any
    """None: not given."""
    planned: Any
    """None: to be dropped."""
    pool: str = "serve"


def planned_launches(
    plan: Document, catalog: Catalog, notes: list[str], running: Running
) -> tuple[list[Launch], tuple[Fate, ...]]:
    """Return how vLLM would be started in the place of what runs, and what becomes of the flags that it has now.

    Empty, with a note, where the plan isn't for vLLM or can't be emitted.
    """
    if plan.decision is None:
        return [], ()
    if any(service.engine != "vllm" for service in plan.decision.services):
        notes.append("the plan is for another engine; plan import --emit DIR writes its files")
        return [], ()
    try:
        deployment = with_running(read_deployment(plan, catalog, running=running))
        launches = vllm.launches(deployment, deployment.engine.version)
    except InputError as error:
        notes.append(f"no flags: {error}")
        return [], ()
    return launches, fates(deployment, launches)


def planned_scheduling(launches: list[Launch]) -> Scheduling | None:
    """Return the limits that the planned server is started with, of the decode pool where there are two."""
    if not launches:
        return None
    launch = launches[-1]
    sequences, held = launch.value("--max-num-seqs"), launch.value("--kv-cache-memory-bytes")
    share = launch.value("--gpu-memory-utilization")
    return Scheduling(
        sequences=int(sequences or 1),
        batched_tokens=launch.batched_tokens,
        memory_share=float(share or MEMORY_SHARE),
        kv_bytes_per_gpu=None if held is None else int(held),
        notes=(),
    )


def flag_changes(imported: Imported, launches: list[Launch]) -> tuple[FlagChange, ...]:
    """Return the flags that differ between what runs and what is planned."""
    changes: list[FlagChange] = []
    for launch in launches:
        words = ["MODEL", *flag_words(launch.flags)]
        planned = read_flags(Command(tuple(words), "the plan", version=launch.version)).flags
        now = imported.flags if launch.pool.role != "prefill" else {}
        if launch.makes_checkpoint:
            changes.append(
                FlagChange("MODEL", imported.model, launch.model.removeprefix("{models}/"), launch.pool.role)
            )
        for name, value in planned.items():
            if name not in _INTERFACE and not _same(name, now.get(name), value):
                changes.append(FlagChange(name, now.get(name), value, launch.pool.role))
        dropped = sorted(_DROPPED & now.keys() - planned.keys())
        changes += [FlagChange(name, now[name], None, launch.pool.role) for name in dropped]
    return tuple(changes)


def _same(name: str, now: Any, planned: Any) -> bool:
    if now is None:
        return name in _SAME_AS_ABSENT and _SAME_AS_ABSENT[name] == planned
    return bool(now == planned)
