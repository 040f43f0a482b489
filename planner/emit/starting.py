"""How an operator starts a deployment: which command where, how long it takes, and whether the network is right."""

from __future__ import annotations

import re
from collections.abc import Set

from planner.emit.deployment import Deployment
from planner.emit.launch import Launch, Place, places
from planner.emit.loading import ENGINE_START_S, loading
from planner.emit.platforms.making import FILE, how_to_make
from planner.emit.platforms.network import crosses_servers
from planner.emit.platforms.systemd import ENVIRONMENT, directory
from planner.emit.quoting import code, shell
from planner.emit.router import client_port

_GB = 1e9
_MB = 1e6


def start_lines(deployment: Deployment, launches: list[Launch], files: Set[str]) -> list[str]:
    """Return what to run, for every kind of file that is there, as lines of a Markdown list."""
    lines = _shell(deployment, launches, files)
    lines += _systemd(deployment, files)
    if "compose/compose.yaml" in files:
        up = code("docker compose -f compose/compose.yaml up -d")
        lines.append(f"- compose: {up} (HF_TOKEN from the environment)")
    lines += [
        f"- the weights first, once: {code(how_to_make(deployment, launches, folder))}; "
        "they go into the claim of the pods"
        for folder in ("kubernetes", "kserve")
        if f"{folder}/{FILE}" in files
    ]
    if "kubernetes/kubernetes.yaml" in files:
        lines += _kubernetes(launches)
    if "kserve/llm-inference-service.yaml" in files:
        lines.append(f"- KServe: {code('kubectl apply -f kserve/llm-inference-service.yaml')}, with the same secret")
    if "ray/application.yaml" in files:
        lines.append(f"- Ray: {code('serve deploy ray/application.yaml')} on a cluster with ray[serve,llm]")
    if launches[0].is_server:
        port = client_port(deployment, launches[0].port)
        name = launches[-1].api_name or deployment.served_name
        lines.append(f"- clients: an OpenAI-compatible API on port {port}, model {code(name)}")
        lines.append(_ready(deployment, launches))
    return lines


def _systemd(deployment: Deployment, files: Set[str]) -> list[str]:
    units = sorted(name.removeprefix("systemd/") for name in files if re.fullmatch(r"systemd/.*\.service", name))
    if not units:
        return []
    where = directory(deployment)
    names = " ".join(name.replace("@.", "@0.") for name in units)
    copy, link = code(f"sudo cp -r systemd {where}"), code(f"sudo systemctl link {where}/*.service")
    lines = [
        f"- systemd: {copy} on each server, variables into {code(f'{where}/{ENVIRONMENT}')}, then",
        f"  {link} and {code(f'sudo systemctl enable --now {names}')}",
    ]
    if any("@." in name for name in units):
        lines.append("  (the number behind @ is the instance: 0, 1, 2, ..., each on its server)")
    return lines


def _kubernetes(launches: list[Launch]) -> list[str]:
    secret = code("kubectl create secret generic hf-token --from-literal=token=$HF_TOKEN")
    key = code("kubectl create secret generic plan-api-key --from-literal=key=...")
    lines = [
        f"- Kubernetes: {secret} once, then {code('kubectl apply -f kubernetes/kubernetes.yaml')}",
        f"  (with {key} clients need that key; without it they need none)",
    ]
    if any(launch.nodes > 1 for launch in launches):
        lines.append("  (an instance spans servers: the cluster needs the LeaderWorkerSet controller)")
    return lines


def _shell(deployment: Deployment, launches: list[Launch], files: Set[str]) -> list[str]:
    folder = next((f for f in (launches[0].engine, "shell") if f"{f}/{launches[0].pool.name}.sh" in files), None)
    if folder is None:
        return [f"- {code(f'{launches[0].engine}/answer.sh QUESTION')}"] if not launches[0].is_server else []
    where = places(launches, deployment.cluster.gpus_per_node)
    lines = [_instances(launch, where[launch.pool.name], f"{folder}/{launch.pool.name}.sh") for launch in launches]
    if f"{folder}/router.sh" in files:
        router = _weighing_router if deployment.mixed else _router
        lines.append(router(launches, where, f"{folder}/router.sh"))
    (first, *others) = launches
    if not others and f"{folder}/{first.pool.name}.yaml" in files and _config_is_whole(deployment, first):
        command = first.config_command.format(file=f"{folder}/{first.pool.name}.yaml")
        variables = [f"{name}={value.replace('{directory}', folder)}" for name, value in first.environment.items()]
        given = f"{shell(['env', *variables])} " if variables else ""
        lines.append(f"- or with the engine's own config file: {code(given + command)}")
    return lines


def _config_is_whole(deployment: Deployment, launch: Launch) -> bool:
    """Whether a config file says all: not which GPUs of several instances, nor ranks, nor how a checkpoint is made."""
    whole = launch.pool.instances == 1 and launch.nodes == 1 and not launch.makes_checkpoint
    return whole and not crosses_servers(deployment, launch)


def _instances(launch: Launch, place: Place, script: str) -> str:
    pool = launch.pool
    start = "- shell:" if pool.name == "serve" else f"- shell, {pool.name}:"
    ranks = f", its {pool.data_parallel} data-parallel ranks with it" if pool.data_parallel > 1 else ""
    last = pool.instances - 1
    if launch.nodes > 1:
        first, other = code(f"RANK=0 HEAD=ADDRESS {script}"), code(f"RANK=1 HEAD=ADDRESS {script}")
        rest = f" to {code(f'RANK={launch.nodes - 1}')}" if launch.nodes > 2 else ""
        each = f", for each of the {pool.instances} instances on servers of its own" if last else ""
        return (
            f"{start} {first} on the first of {launch.nodes} servers, {other}{rest} on the next, all with the "
            f"first one's address{each}{ranks}"
        )
    if place.spots:
        return f"{start} {_calls_of_a_kind(place, script)}, {launch.gpus_per_node} GPUs each{ranks}"
    if not last and not place.first_gpu:
        return f"{start} {code(script)}, an instance on {launch.gpus_per_node} GPUs of one server{ranks}"
    calls = f"{code(f'{script} 0')} to {code(f'{script} {last}')}" if last else code(f"{script} 0")
    each = "" if place.slots > last else f", {place.slots} on a server: 0 to {place.slots - 1} on the first, and so on"
    return f"{start} {calls}, a process per instance{each}{ranks}"


def _calls_of_a_kind(place: Place, script: str) -> str:
    """Return which instances are started on which of the plan's servers."""
    calls: dict[int, list[str]] = {}
    for index, spot in enumerate(place.spots):
        calls.setdefault(spot.server, []).append(code(f"{script} {index}"))
    return "; ".join(f"{', '.join(found)} on server {server}" for server, found in calls.items())


def _weighing_router(launches: list[Launch], where: dict[str, Place], script: str) -> str:
    servers = {spot.server for place in where.values() for spot in place.spots}
    given = f'SERVERS="{" ".join(f"ADDRESS{server}" for server in sorted(servers))}" ' if len(servers) > 1 else ""
    return (
        f"- then the router: {code(given + script)}, once an instance is ready; it is HAProxy, which has to be "
        f"installed there ({code('apt-get install haproxy')})"
    )


def _router(launches: list[Launch], where: dict[str, Place], script: str) -> str:
    hosts = []
    for launch in launches:
        place = where[launch.pool.name]
        servers = -(-launch.pool.instances // place.slots)
        if servers > 1 or launch.nodes > 1 or (len(launches) > 1 and not _together(where)):
            first = "first " if launch.nodes > 1 else ""
            which = f"{first}servers of the {launch.pool.name} instances ({servers})"
            hosts.append((f'{launch.pool.name.upper()}_HOSTS="ADDRESS ..."', which))
    command = " ".join([*(name for name, _ in hosts), script])
    named = f", with the addresses of the {' and the '.join(text for _, text in hosts)}" if hosts else ""
    return f"- then the router: {code(command)}{named}; it waits for the instances"


def _together(where: dict[str, Place]) -> bool:
    return any(place.first_gpu for place in where.values())


def _ready(deployment: Deployment, launches: list[Launch]) -> str:
    """Return how long the slowest instance takes to start, and what of that is assumed."""
    slowest = max((loading(deployment, launch) for launch in launches), key=lambda found: found.first_start_s)
    assumed = [f"{ENGINE_START_S / 60:.0f} min for the engine itself"]
    steps = []
    if slowest.downloaded_bytes:
        speed = f"{slowest.download_bytes_per_s / _MB:.0f} MB/s"
        steps.append(f"{slowest.downloaded_bytes / _GB:.0f} GB to download at {speed}")
        if slowest.download_is_assumed:
            assumed.append(f"{speed} from the hub (storage.download in the cluster file says it)")
    speed = f"{slowest.read_bytes_per_s / _MB:.0f} MB/s"
    steps.append(f"{slowest.read_bytes / _GB:.0f} GB to read at {speed}")
    if slowest.read_is_assumed:
        assumed.append(f"{speed} from storage (storage.bandwidth says it)")
    made = ", and what making the checkpoint takes, which isn't known here" if slowest.made_bytes else ""
    return (
        f"- ready: about {duration(slowest.first_start_s)} after the first start{made}, "
        f"{duration(slowest.restart_s)} after a later one: {', '.join(steps)}; assumed: {', '.join(assumed)}"
    )


def network_check(deployment: Deployment, launches: list[Launch]) -> str | None:
    """Say how to see that GPUs of several servers talk by RDMA; None where they don't talk."""
    if not any(crosses_servers(deployment, launch) for launch in launches):
        return None
    lines = [
        "The plan's times count on RDMA between servers. Before the load test:",
        f"- {code('ibv_devinfo')} on every server (and in a pod) lists the devices, with {code('PORT_ACTIVE')}.",
        f"- With {code('NCCL_DEBUG=INFO')} in the instances' environment their logs name {code('NET/IB')}; "
        f"{code('NET/Socket')} is TCP, and steps then take many times longer than planned.",
    ]
    if deployment.disaggregated:
        lines.append(
            f"- Caches go between the pools through UCX: with {code('UCX_LOG_LEVEL=info')} the logs name "
            f"{code('rc_mlx5')} or another RDMA transport, and not only {code('tcp')}."
        )
    return "\n".join(lines[:1]) + "\n\n" + "\n".join(lines[1:])


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(45), duration(600), duration(7200)
    ('45 s', '10 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
