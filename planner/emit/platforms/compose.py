"""Docker compose on one server: a service per instance with its own GPUs, and the router."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from planner.emit.checkpoint import SCRIPT
from planner.emit.deployment import Deployment
from planner.emit.launch import CONFIG_DIRECTORY, KEY_VARIABLE, Launch, Place, places
from planner.emit.lmcache import DISK
from planner.emit.loading import loading
from planner.emit.platforms.making import making, making_words, script_name, service_name
from planner.emit.platforms.network import leaves_its_pod, network_environment, network_warning
from planner.emit.platforms.pods import drain_seconds, site_image
from planner.emit.platforms.shell import own_files
from planner.emit.quoting import comment, compose_value, yaml_text
from planner.emit.router import (
    HAPROXY,
    METRICS_PORT,
    PORT,
    client_port,
    is_routed,
    pool_key,
    router_environment,
    router_of,
    router_words,
)
from planner.emit.stamp import header, stamp_of
from planner.emit.weighing import CONFIG, PLACES, config_of, places_file
from planner.errors import InputError

MODELS_DIRECTORY = "/models"
_INFINIBAND = "/dev/infiniband"


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
    for launch, name, index in instances(launches):
        services[name] = _service(deployment, launch, where[launch.pool.name], index)
        maker = service_name(launches, launch)
        if maker is not None:
            services[name]["depends_on"] = {maker: {"condition": "service_completed_successfully"}}
    for made in making(launches):
        services[str(service_name(launches, made))] = _maker(deployment, made, where[made.pool.name])
    if deployment.mixed:
        services["router"] = _weighing(deployment, launches)
    elif is_routed(deployment):
        services["router"] = _router(deployment, launches)
    document: dict[str, Any] = {"name": deployment.slug, "services": services, "volumes": {"models": {}}}
    if any(launch.disk_bytes for launch in launches):
        document["volumes"]["kv"] = {}
    warning = network_warning(deployment, launches, "containers")
    top = header(deployment, launches[0]) + ("" if warning is None else comment(warning) + "\n")
    written = {"compose.yaml": top + yaml_text(document)}
    for launch in launches:
        written.update(own_files(launch))
    return written | (_weighing_files(deployment, launches) if deployment.mixed else {})


def _service(deployment: Deployment, launch: Launch, place: Place, index: int) -> dict[str, Any]:
    first = place.gpu(index, launch.gpus_per_node)
    devices = [str(gpu) for gpu in range(first, first + launch.gpus_per_node)]
    service: dict[str, Any] = {
        "image": site_image(deployment, launch.image),
        **_command(launch),
        "labels": {key: compose_value(value) for key, value in stamp_of(deployment, launch.pool).items()},
        "environment": _environment(deployment, launch, f"{launch.pool.name}-{index}"),
        "volumes": _volumes(deployment, launch),
        "shm_size": launch.shared_memory_bytes,
        # RDMA and pinned caches lock memory.
        "ulimits": {"memlock": -1},
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", f"http://localhost:{launch.port}{launch.health_path}"],
            "interval": "10s",
            "timeout": "30s",
            "retries": 6,
            "start_period": f"{loading(deployment, launch).budget_s}s",
        },
        "restart": "unless-stopped",
        "stop_grace_period": f"{drain_seconds(deployment) + 30}s",
        **_devices(deployment, launch, devices),
    }
    if deployment.hardware.vendor == "amd":
        service["environment"]["HIP_VISIBLE_DEVICES"] = ",".join(devices)
    if not is_routed(deployment):
        service["ports"] = [f"{launch.port}:{launch.port}"]
    return service


def _maker(deployment: Deployment, launch: Launch, place: Place) -> dict[str, Any]:
    """Return the service that makes the checkpoint and ends; instances wait for it, so that it has their GPUs."""
    serving = _service(deployment, launch, place, 0)
    script = _bind(f"./{script_name(launch)}", f"{CONFIG_DIRECTORY}/{SCRIPT}")
    own = ("image", "environment", "shm_size", "ulimits", "deploy", "devices", "group_add", "security_opt", "cap_add")
    words = [compose_value(word) for word in making_words(launch, MODELS_DIRECTORY)]
    return {
        **{key: serving[key] for key in own if key in serving},
        "entrypoint": words,
        "volumes": [*(v for v in serving["volumes"] if v.get("source") != "kv"), script],
        "restart": "no",
    }


def _command(launch: Launch) -> dict[str, Any]:
    """Return entrypoint and command; a shell before them adds a key, if there is one."""
    words = [compose_value(w.replace("{models}", MODELS_DIRECTORY)) for w in launch.arguments(CONFIG_DIRECTORY)]
    program, arguments = words[: launch.program_words], words[launch.program_words :]
    if launch.key_flag is not None:
        program = ["sh", "-c", compose_value(f'exec "$0" "$@" {launch.key_words}'), *program]
    return {"entrypoint": program, "command": arguments}


def _devices(deployment: Deployment, launch: Launch, devices: list[str]) -> dict[str, Any]:
    """Return the keys that give a container its GPUs, its share of memory, and RDMA where pools talk over it."""
    node = deployment.cluster.node
    limits = {"memory": str(int(node.host_memory * launch.gpus_per_node / node.gpus))}
    rdma = leaves_its_pod(deployment, launch) and bool(deployment.cluster.site.network.hcas)
    own = [f"{_INFINIBAND}:{_INFINIBAND}"] if rdma else []
    locked = ["IPC_LOCK"] if rdma else []
    if deployment.hardware.vendor == "amd":
        # AMD's are devices, and chosen by a variable.
        return {
            "deploy": {"resources": {"limits": limits}},
            "devices": ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri", *own],
            "group_add": ["video"],
            "security_opt": ["seccomp=unconfined"],
            "cap_add": ["SYS_PTRACE", *locked],
        }
    reserved = [{"driver": "nvidia", "device_ids": devices, "capabilities": ["gpu"]}]
    keys: dict[str, Any] = {"deploy": {"resources": {"limits": limits, "reservations": {"devices": reserved}}}}
    return keys | ({"devices": own, "cap_add": locked} if rdma else {})


def _environment(deployment: Deployment, launch: Launch, service: str) -> dict[str, str | None]:
    environment: dict[str, str | None] = {"HF_HOME": f"{MODELS_DIRECTORY}/hub", "HF_TOKEN": "${HF_TOKEN:-}"}
    key = launch.key_variable or (KEY_VARIABLE if launch.key_flag else None)
    if key is not None:
        environment[key] = None  # the caller's, if it is set there
    shared = network_environment(deployment) if leaves_its_pod(deployment, launch) else {}
    own = {name: value.replace("{directory}", CONFIG_DIRECTORY) for name, value in launch.environment.items()}
    environment |= {name: compose_value(value) for name, value in (shared | own).items()}
    if launch.pod_address_variable:
        environment[launch.pod_address_variable] = service
    return environment


def _volumes(deployment: Deployment, launch: Launch) -> list[Any]:
    """Return what is mounted; instances share the models, whose downloads the hub's client locks."""
    mounted: list[Any] = [{"type": "volume", "source": "models", "target": MODELS_DIRECTORY}]
    for name in launch.files:
        mounted.append(_bind(f"./{name}", f"{CONFIG_DIRECTORY}/{name}"))
    for local in deployment.of(launch.pool).local_paths:
        mounted.append(_bind(compose_value(local), compose_value(local)))
    if launch.disk_bytes:
        mounted.append({"type": "volume", "source": "kv", "target": DISK})
    return mounted


def _bind(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def _router(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    addresses = {
        launch.pool.role: [f"http://{launch.pool.name}-{i}:{launch.port}" for i in range(launch.pool.instances)]
        for launch in launches
    }
    environment = router_environment(deployment)
    key = pool_key(deployment)
    if key is not None:
        environment[key] = f"${{{launches[0].key_variable or KEY_VARIABLE}:-}}"
    waits = [name for _, name, _ in instances(launches)]
    router = router_of(deployment)
    words = [compose_value(word) for word in router_words(deployment, addresses, in_image=True)]
    probe = f"import urllib.request as u; u.urlopen('http://localhost:{PORT}/readiness', timeout=5)"
    return {
        "image": site_image(deployment, router.image),
        "entrypoint": words[: len(router.image_program)],
        "command": words[len(router.image_program) :],
        **({"environment": environment} if environment else {}),
        **_before(deployment, ["python3", "-c", probe], waits),
    }


def _before(deployment: Deployment, probe: list[str], waits: Iterable[str]) -> dict[str, Any]:
    """Return what any router's container has: the clients' port, no rights, a check, and whom it waits for."""
    return {
        "ports": [f"{client_port(deployment, PORT)}:{PORT}"],
        "user": "65532:65532",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "deploy": {"resources": {"limits": {"memory": str(4 << 30)}}},
        "healthcheck": {"test": ["CMD", *probe], "interval": "10s", "timeout": "10s", "retries": 6},
        "restart": "unless-stopped",
        "stop_grace_period": f"{drain_seconds(deployment) + 30}s",
        "depends_on": {name: {"condition": "service_healthy"} for name in sorted(waits)},
    }


def _weighing(deployment: Deployment, launches: list[Launch]) -> dict[str, Any]:
    """Return HAProxy's container; its image has a shell, and nothing that asks over HTTP."""
    ask = f"exec 3<>/dev/tcp/localhost/{PORT}; printf 'GET /readiness HTTP/1.0\\r\\n\\r\\n' >&3; grep -q ' 200 ' <&3"
    return {
        "image": site_image(deployment, HAPROXY.image),
        "entrypoint": ["haproxy"],
        "command": ["-db", "-f", f"{CONFIG_DIRECTORY}/{CONFIG}"],
        "volumes": [_bind(f"./{name}", f"{CONFIG_DIRECTORY}/{name}") for name in (CONFIG, PLACES)],
        "stop_signal": "SIGUSR1",  # it then ends when the last answer has passed
        **_before(deployment, ["bash", "-c", ask], [name for _, name, _ in instances(launches)]),
    }


def _weighing_files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    addresses: dict[str, list[str]] = {}
    for launch, name, _ in instances(launches):
        addresses.setdefault(launch.pool.name, []).append(f"{name}:{launch.port}")
    everywhere = "0.0.0.0"  # noqa: S104
    config = config_of(
        deployment,
        launches,
        addresses,
        bind=f"{everywhere}:{PORT}",
        metrics=f"{everywhere}:{METRICS_PORT}",
        platform="compose",
    )
    return {CONFIG: header(deployment, launches[0], HAPROXY.name) + config, PLACES: places_file()}


def instances(launches: list[Launch]) -> list[tuple[Launch, str, int]]:
    """Return every instance: its launch, its service's name, and its number."""
    return [(one, f"{one.pool.name}-{index}", index) for one in launches for index in range(one.pool.instances)]
