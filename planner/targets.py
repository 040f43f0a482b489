"""What each target of an emission can run: the one place that says so.

Planning for a target leaves out what it can't run (`planner.space.emission`), and emission refuses it
(`planner.emit`). A target is an engine, whose own scripts and config file are written, a platform, or what
moves caches below HBM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from catalog.errors import nearest
from planner.errors import InputError

LMCACHE = "lmcache"
"""Not a platform: caches go below HBM through LMCache instead of the engine's own offloading."""


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """What the files of an engine express."""

    dimensions: frozenset[str] = frozenset({"hidden"})
    """Compression dimensions whose techniques its flags express."""
    weights: frozenset[str] = frozenset()
    """Catalog points of weights that its files make, or have made, from bf16; ready checkpoints load beside them."""
    statuses: frozenset[str] = frozenset({"ships"})
    """How far a technique must be supported: also as an experiment, where that is what the engine is for."""
    pools: bool = False
    """Separate prefill and decode pools."""
    several_servers: bool = False
    """An instance over several servers."""
    tensors_and_layers: bool = True
    """Tensor and pipeline parallelism at once."""
    lmcache_windows: bool = True
    """Windowed layers keep no whole caches beside LMCache's connector."""
    is_server: bool = True
    images: Mapping[str, str] = field(default_factory=dict)
    """Container image by the GPU's maker, with ``{version}``."""

    def image(self, vendor: str, version: str) -> str:
        """Return the container image for GPUs of a maker; empty where none is known."""
        return self.images.get(vendor, "").format(version=version)


@dataclass(frozen=True, slots=True)
class Platform:
    """What a platform runs of what an engine's files express."""

    engines: frozenset[str] | None = None
    """None: all that are servers."""
    pools: bool = True
    """Separate pools, of engines whose pools can be written."""
    pool_engines: frozenset[str] | None = None
    """Engines whose pools it runs; None: all."""
    several_servers: Literal["all", "ranks", "none"] = "all"
    """Which instances may span servers: all, those with whole data-parallel ranks on each, or none."""
    one_server: bool = False
    """The whole plan is on one server."""
    mixed: bool = True
    """Several kinds of replicas, behind a router that knows how many sessions each instance has place for."""
    makes_checkpoints: bool = True
    """Whether a quantised checkpoint can be made before the first start."""
    tiers: frozenset[str] = frozenset({"ddr", "nvme"})
    in_containers: bool = True
    keeps_in_claims: bool = False
    """Checkpoints that are made are kept in a claim, which all pods must be able to read."""


ENGINES: dict[str, EngineFiles] = {
    "vllm": EngineFiles(
        weights=frozenset({"w_fp8", "w_int8_w8a8", "w_gptq8", "w_awq4", "w_gptq4"}),
        pools=True,
        several_servers=True,
        lmcache_windows=False,
        images={"nvidia": "vllm/vllm-openai:v{version}", "amd": "vllm/vllm-openai-rocm:v{version}"},
    ),
    "sglang": EngineFiles(
        weights=frozenset({"w_fp8", "w_int8_w8a8", "w_gptq8", "w_gptq4", "w_awq4"}),
        pools=True,
        several_servers=True,
        images={"nvidia": "lmsysorg/sglang:v{version}"},
    ),
    # Pools start through an orchestrator's file, several servers through MPI; neither is written.
    "tensorrt-llm": EngineFiles(
        dimensions=frozenset({"hidden", "token"}),
        weights=frozenset({"w_fp8", "w_awq4"}),
        images={"nvidia": "nvcr.io/nvidia/tensorrt-llm/release:{version}"},
    ),
    "lmdeploy": EngineFiles(
        weights=frozenset({"w_awq4", "w_gptq4"}), images={"nvidia": "openmmlab/lmdeploy:v{version}"}
    ),
    "llama.cpp": EngineFiles(
        tensors_and_layers=False,
        images={
            "nvidia": "ghcr.io/ggml-org/llama.cpp:full-cuda-b{version}",
            "amd": "ghcr.io/ggml-org/llama.cpp:full-rocm-b{version}",
        },
    ),
    "transformers-kvpress": EngineFiles(
        dimensions=frozenset({"layer", "head", "token", "hidden"}),
        statuses=frozenset({"ships", "experimental"}),
        is_server=False,
    ),
}
"""Engines that have files."""
PLATFORMS: dict[str, Platform] = {
    "shell": Platform(in_containers=False),
    "systemd": Platform(in_containers=False),
    "compose": Platform(one_server=True, several_servers="none"),
    "kubernetes": Platform(keeps_in_claims=True),
    # KServe's own proxy stands before decode instances and speaks as vLLM's pools expect. Its scheduler and Ray's
    # router know no weights of instances (docs/adr/0008-a-router-with-places.md).
    "kserve": Platform(several_servers="ranks", pool_engines=frozenset({"vllm"}), mixed=False, keeps_in_claims=True),
    "ray": Platform(
        engines=frozenset({"vllm"}),
        pools=False,
        mixed=False,
        makes_checkpoints=False,
        tiers=frozenset({"ddr"}),
        in_containers=False,
    ),
}


def check_targets(text: str) -> tuple[list[str], list[str], Literal["native", "lmcache"]]:
    """Sort targets, with commas between, into engines, platforms and what moves caches below HBM.

    Raises
    ------
    InputError
        With every target that isn't known, and if there are none, or several engines.
    """
    names = [t.strip() for t in text.split(",")]
    known = [*ENGINES, *PLATFORMS, LMCACHE]
    problems = []
    for name in names:
        if name not in known:
            near = nearest(name, known)
            meant = f"did you mean {near[0]}? " if near else ""
            problems.append(f"--target {name!r}: unknown; {meant}targets are {', '.join(known)}")
    engines = [name for name in dict.fromkeys(names) if name in ENGINES]
    if len(engines) > 1:
        problems.append(f"--target {','.join(engines)}: a plan is for one engine; name one")
    if problems or not names:
        raise InputError(problems or f"--target: empty; targets are {', '.join(known)}")
    platforms = [name for name in dict.fromkeys(names) if name in PLATFORMS]
    return engines, platforms, "lmcache" if LMCACHE in names else "native"


def left_out(text: str) -> list[str]:
    """What isn't planned for some targets, in words, because they can't run it.

    >>> left_out("vllm,kubernetes"), left_out("tensorrt-llm")
    ([], ['separate pools', 'instances over several servers'])
    """
    engines, names, _ = check_targets(text)
    files, platforms = [ENGINES[name] for name in engines], [PLATFORMS[name] for name in names]
    others = [p.pool_engines is None or all(name in p.pool_engines for name in engines) for p in platforms]
    can = (
        ("separate pools", [*(f.pools for f in files), *(p.pools for p in platforms), *others]),
        ("several kinds of replicas", [*(f.is_server for f in files), *(p.mixed for p in platforms)]),
        (
            "instances over several servers",
            [*(f.several_servers for f in files), *(p.several_servers != "none" for p in platforms)],
        ),
        ("quantised checkpoints that have to be made", [p.makes_checkpoints for p in platforms]),
        ("caches on disks", ["nvme" in p.tiers for p in platforms]),
    )
    return [words for words, able in can if not all(able)]
