"""Docker compose on one server: a service per instance with its own GPUs, and the router."""

from __future__ import annotations

from typing import Any

from planner.emit.checkpoint import SCRIPT
from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, Launch, Place, places
from planner.emit.lmcache import DISK
from planner.emit.platforms.shell import own_files
from planner.emit.quoting import compose_value, yaml_text
from planner.emit.router import IMAGE, LOAD_SECONDS, PORT, install_and_run, is_routed, router_environment, router_words
from planner.emit.stamp import header, stamp_of
from planner.errors import InputError

MODELS_DIRECTORY = "/models"


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return ``compose.yaml`` and the files that it mounts.

    Raises
    ------
    InputError
        If the plan needs more than one server.
    """
    if deployment.gpus > deployment.cluster.gpus_per_node:
        raise InputError(
            f"--target compose: the plan uses {deployment.gpus} GPUs, compose runs on one server of "
            f"{deployment.cluster.gpus_per_node}; use --target kubernetes or shell"
        )
    where = places(launches, deployment.cluster.gpus_per_node)
    services: dict[str, Any] = {}
    for launch in launches:
        for index in range(launch.pool.instances):
            name = f"{launch.pool.role}-{index}"
            services[name] = _service(deployment, launch, where[launch.pool.role], index)
    if is_routed(deployment):
        services["router"] = _router(deployment, launches)
    document: dict[str, Any] = {"name": deployment.slug, "services": services, "volumes": {"models": {}}}
    if any(launch.disk_bytes for launch in launches):
        document["volumes"]["kv"] = {}
    written = {"compose.yaml": header(deployment, launches[0]) + yaml_text(document)}
    for launch in launches:
        written.update(own_files(launch))
    return written


def _service(deployment: Deployment, launch: Launch, place: Place, index: int) -> dict[str, Any]:
    first = place.first_gpu + index * launch.gpus_per_node
    devices = [str(gpu) for gpu in range(first, first + launch.gpus_per_node)]
    words = _in_container(launch.arguments(CONFIG_DIRECTORY))
    service: dict[str, Any] = {
        "image": launch.image,
        "entrypoint": words[: launch.program_words],
        "command": words[launch.program_words :],
        "labels": {key: compose_value(value) for key, value in stamp_of(deployment, launch.pool).items()},
        "environment": _environment(launch, f"{launch.pool.role}-{index}"),
        "volumes": _volumes(deployment, launch),
        "shm_size": launch.shared_memory_bytes,
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", f"http://localhost:{launch.port}{launch.health_path}"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{LOAD_SECONDS}s",
        },
        "restart": "unless-stopped",
        **_gpus(deployment, devices),
    }
    if deployment.hardware.vendor == "amd":
        service["environment"]["HIP_VISIBLE_DEVICES"] = ",".join(devices)
    if not is_routed(deployment):
        service["ports"] = [f"{launch.port}:{launch.port}"]
    if launch.makes_checkpoint:
        # Makes the checkpoint on the first start; $0 is the checkpoint, the others the server's command.
        make = f'{launch.make_command(f"{CONFIG_DIRECTORY}/{SCRIPT}")} && exec "$@"'
        target = launch.model.replace("{models}", MODELS_DIRECTORY)
        service["entrypoint"] = ["sh", "-c", compose_value(make), compose_value(target), *words[: launch.program_words]]
    return service


def _gpus(deployment: Deployment, devices: list[str]) -> dict[str, Any]:
    """Return the keys that give a container its GPUs; AMD's are devices, and chosen by a variable."""
    if deployment.hardware.vendor == "amd":
        return {
            "devices": ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"],
            "group_add": ["video"],
            "security_opt": ["seccomp=unconfined"],
            "cap_add": ["SYS_PTRACE"],
        }
    reserved = [{"driver": "nvidia", "device_ids": devices, "capabilities": ["gpu"]}]
    return {"deploy": {"resources": {"reservations": {"devices": reserved}}}}


def _in_container(words: list[str]) -> list[str]:
    return [compose_value(word.replace("{models}", MODELS_DIRECTORY)) for word in words]


def _environment(launch: Launch, service: str) -> dict[str, str]:
    environment = {"HF_HOME": f"{MODELS_DIRECTORY}/hub", "HF_TOKEN": "${HF_TOKEN:-}"}
    for name, value in launch.environment.items():
        environment[name] = compose_value(value.replace("{directory}", CONFIG_DIRECTORY))
    if launch.pod_address_variable:
        environment[launch.pod_address_variable] = service
    return environment


def _volumes(deployment: Deployment, launch: Launch) -> list[Any]:
    mounted: list[Any] = [{"type": "volume", "source": "models", "target": MODELS_DIRECTORY}]
    for name in own_files(launch):
        mounted.append(_bind(f"./{name}", f"{CONFIG_DIRECTORY}/{name}"))
    for local in deployment.local_paths:
        mounted.append(_bind(compose_value(local), compose_value(local)))
    if launch.disk_bytes:
        mounted.append({"type": "volume", "source": "kv", "target": DISK})
    return mounted


def _bind(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def _router(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    addresses = {
        launch.pool.role: [f"http://{launch.pool.role}-{i}:{launch.port}" for i in range(launch.pool.instances)]
        for launch in launches
    }
    environment = router_environment(deployment)
    waits = {f"{launch.pool.role}-{i}" for launch in launches for i in range(launch.pool.instances)}
    return {
        "image": IMAGE,
        "command": [compose_value(word) for word in install_and_run(deployment, router_words(deployment, addresses))],
        **({"environment": environment} if environment else {}),
        "ports": [f"{PORT}:{PORT}"],
        "restart": "unless-stopped",
        "depends_on": {name: {"condition": "service_healthy"} for name in sorted(waits)},
    }
