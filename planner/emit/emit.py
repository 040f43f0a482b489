"""From a plan and targets to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from catalog.load import Catalog
from planner import targets as targets_known
from planner.emit.capacity import with_running
from planner.emit.carried import fates, section
from planner.emit.checkpoint import weights_notes
from planner.emit.deployment import Deployment
from planner.emit.engines import kvpress, llama_cpp, lmdeploy, sglang, tensorrt_llm, vllm
from planner.emit.flags import problems_of_environment, problems_of_flags, snapshot
from planner.emit.launch import Launch, Value
from planner.emit.load_test import load_test_files
from planner.emit.platforms import compose, kserve, kubernetes, ray, shell, systemd
from planner.emit.platforms.notes import platform_notes
from planner.emit.read_deployment import read_deployment
from planner.emit.readme import provenance_file, readme
from planner.emit.running import Running
from planner.emit.several import check_side_by_side, in_files_of_its_own
from planner.errors import InputError
from planner.files import document_text
from planner.plan import Document

Build = Callable[[Deployment, str], list[Launch]]
Arrange = Callable[[Deployment, list[Launch]], dict[str, str]]

ENGINES: dict[str, Build] = {
    "vllm": vllm.launches,
    "sglang": sglang.launches,
    "tensorrt-llm": tensorrt_llm.launches,
    "lmdeploy": lmdeploy.launches,
    "llama.cpp": llama_cpp.launches,
    "transformers-kvpress": kvpress.launches,
}
"""Engine -> what turns a plan into its launches."""
ARRANGE: dict[str, Arrange] = {
    "shell": shell.files,
    "compose": compose.files,
    "kubernetes": kubernetes.files,
    "kserve": kserve.files,
    "ray": ray.files,
    "systemd": systemd.files,
}
"""Platform -> what turns launches into files."""

ON_SERVERS = ("shell", "systemd")
"""Platforms whose files are for the very servers that they lie on."""

THROUGH_LMCACHE = {"vllm", "sglang"}
"""Engines that are started with LMCache."""


def emit(
    document: Document,
    targets: str | Sequence[str],
    catalog: Catalog,
    *,
    engine_version: str | None = None,
    checkpoint: str | None = None,
    running: Running | None = None,
) -> dict[str, str]:
    """Return deployment files of a plan, by relative path.

    Parameters
    ----------
    document
        The plan.
    targets
        Engines and platforms: ``vllm``, ``compose``, ``kubernetes``, ... An engine alone gives its shell
        scripts and config file; a platform alone takes the plan's engine.
    catalog
        The facts.
    engine_version
        Another version of the engine than the catalog's; its flags must be known.
    checkpoint
        What to serve in the model's place: a fine-tune of it, or a checkpoint that is quantised as planned; None: the
        model, quantised on the first start where the plan says so.
    running
        A server that the deployment takes the place of: its name, port, window and what else clients see are kept.

    Raises
    ------
    InputError
        With everything that the engine can't do, or that the plan lacks; with what platforms can't run where none is
        left. Else ``provenance.json`` says which ones weren't written, and why.
    """
    engines, platforms, backend = targets_known.check_targets(
        targets if isinstance(targets, str) else ",".join(targets)
    )
    deployment = read_deployment(
        document,
        catalog,
        engine=engines[0] if engines else None,
        checkpoint=checkpoint,
        offload_backend=backend,
        engine_version=engine_version,
        running=running,
    )
    deployment = _told(deployment)
    for service in deployment.services or (deployment,):
        _check_engine(service, backend)
    launches = launches_of(deployment, engine_version)
    _check(launches)
    own = bool(engines) or not platforms
    held, refused = _arranged(deployment, launches, platforms, engine_version)
    if not held and not own:
        raise InputError(refused)
    known = platform_notes(deployment, launches, [*held, *(["shell"] if own else [])])
    deployment = replace(deployment, notes=(*deployment.notes, *known))
    files: dict[str, str] = {}
    if own:
        files |= _below(own_folder(launches), shell.files(deployment, launches))
        files |= _below(own_folder(launches), _config_files(launches))
    for platform, written in held.items():
        files |= _below(platform, written)
    if launches[0].is_server:
        files |= load_test_files(deployment)
    files["plan.json"] = document_text(document)
    files["provenance.json"] = provenance_file(
        deployment, launches, {one.pool.name: _snapshot(one) for one in launches}, refused
    )
    files["README.md"] = readme(deployment, launches, files) + section(fates(deployment, launches))
    return files


def _told(deployment: Deployment) -> Deployment:
    """Return a deployment with notes on its weights, and the window of the server before, where there is one."""
    if not deployment.services:
        return with_running(replace(deployment, notes=(*deployment.notes, *weights_notes(deployment))))
    notes = {
        f"{service.pools[0].name}: {note}": None for service in deployment.services for note in weights_notes(service)
    }
    return replace(deployment, notes=(*deployment.notes, *notes))


def _check_engine(service: Deployment, backend: str) -> None:
    """Refuse an engine that no files are written for, or that has no connector to what was asked for."""
    if service.engine.id not in ENGINES:
        raise InputError(f"--target {service.engine.id}: no files are written for it; use {', '.join(ENGINES)}")
    if backend == targets_known.LMCACHE and service.engine.id not in THROUGH_LMCACHE:
        raise InputError(
            f"--target lmcache: {service.engine.id} has no connector to it here; leave lmcache out, and caches go "
            "below HBM by its own means"
        )


def launches_of(deployment: Deployment, version: str | None) -> list[Launch]:
    """Return the launches of a deployment, of each of its kinds with files of its own.

    Parameters
    ----------
    deployment
        The plan.
    version
        Of the engine; None: the catalog's.

    Raises
    ------
    InputError
        If an engine can't start it, or its kinds can't stand side by side.
    """
    if not deployment.services:
        return ENGINES[deployment.engine.id](deployment, version or deployment.engine.version)
    found = [
        in_files_of_its_own(launch)
        for service in deployment.services
        for launch in ENGINES[service.engine.id](service, version or service.engine.version)
    ]
    check_side_by_side(found)
    return found


def own_folder(launches: list[Launch]) -> str:
    """Return where scripts that belong to no platform go: by the engine, or all engines' together."""
    return launches[0].engine if len({launch.engine for launch in launches}) == 1 else "shell"


def usual_targets(
    document: Document, catalog: Catalog, checkpoint: str | None = None, running: Running | None = None
) -> list[str]:
    """Return what most operators want of a plan: its engine's files, Kubernetes, and compose if one server is enough.

    A model that is a directory of this machine, without a checkpoint that servers can load, gets its engine's files.

    Raises
    ------
    InputError
        If the plan can't be deployed.
    """
    deployment = read_deployment(document, catalog, checkpoint=checkpoint, running=running)
    engines = {service.engine.id for service in deployment.services or (deployment,)}
    own = deployment.engine.id if len(engines) == 1 else "shell"
    if not targets_known.ENGINES[deployment.engine.id].is_server:
        return [own]
    if deployment.is_local:
        return [own]
    one_server = deployment.gpus <= deployment.cluster.gpus_per_node
    return [own, *(["compose"] if one_server else []), "kubernetes"]


def _arranged(
    deployment: Deployment, launches: list[Launch], platforms: list[str], version: str | None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the files of every platform that can run the plan, and why each of the others can't."""
    inside, contained = _in_containers(deployment, launches, version)
    found: dict[str, dict[str, str]] = {}
    refused: list[str] = []
    for platform in platforms:
        try:
            for launch in launches:
                _refuse_platform(deployment, launch, platform)
            which = (deployment, launches) if platform in ON_SERVERS else (inside, contained)
            found[platform] = ARRANGE[platform](*which)
        except InputError as error:
            refused += error.problems
    return found, refused


def _refuse_platform(deployment: Deployment, launch: Launch, platform: str) -> None:
    """Refuse a platform that doesn't run what the launch is."""
    if not launch.is_server:
        raise InputError(f"--target {platform}: {launch.engine} is no server; leave the platform out")
    _check_source(deployment, [platform])
    if deployment.mixed and not targets_known.PLATFORMS[platform].mixed:
        able = ", ".join(name for name, one in targets_known.PLATFORMS.items() if one.mixed)
        raise InputError(
            f"--target {platform}: the plan has several kinds of replicas, and no router there knows how many sessions "
            f"each has place for; use {able}, or plan with --target {platform}"
        )
    if targets_known.PLATFORMS[platform].in_containers and not launch.image:
        raise InputError(
            f"--target {platform}: no image of {launch.engine} for {deployment.hardware.name} is known here; "
            "use --target shell"
        )


def _in_containers(
    deployment: Deployment, launches: list[Launch], version: str | None
) -> tuple[Deployment, list[Launch]]:
    """Return the same without the address of a server that runs already: a container has one of its own."""
    if deployment.running is None or deployment.running.host is None:
        return deployment, launches
    inside = replace(deployment, running=deployment.running.anywhere())
    return inside, launches_of(inside, version)


def _check_source(deployment: Deployment, platforms: list[str]) -> None:
    """Refuse to write a directory of this machine into files for other machines."""
    elsewhere = [name for name in platforms if name not in ON_SERVERS]
    if deployment.is_local and elsewhere:
        raise InputError(
            f"--target {elsewhere[0]}: the model is a directory of one machine, where no other finds it; add "
            "--checkpoint ID (of the model hub) or --checkpoint PATH (a directory on every server), or use "
            f"--target {deployment.engine.id}"
        )


def _check(launches: list[Launch]) -> None:
    """Refuse flags and environment variables that the engine wouldn't know."""
    problems: list[str] = []
    for launch in launches:
        if not launch.is_server:
            continue  # its own script; the presses' parameters are checked where they are written
        nodes = tuple((name, _example(value)) for name, value in launch.node_flags)
        found = problems_of_flags((*launch.flags, *launch.worker_flags, *nodes), launch.engine, launch.version)
        found += problems_of_environment(launch.environment, launch.engine, launch.version)
        problems += [problem for problem in found if problem not in problems]
    if problems:
        raise InputError(problems)


def _example(value: Value) -> Value:
    """Return what a server's rank or the first server's address may be."""
    if value == "{rank}":
        return 1
    return value.replace("{head}", "10.0.0.1") if isinstance(value, str) else value


def _snapshot(launch: Launch) -> dict[str, str]:
    found = snapshot(launch.engine.removeprefix("transformers-"), launch.version)
    return {"package": str(found["package"]), "sha256": str(found["sha256"])}


def _config_files(launches: list[Launch]) -> dict[str, str]:
    return {f"{launch.pool.name}.yaml": launch.config for launch in launches if launch.config}


def _below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}
