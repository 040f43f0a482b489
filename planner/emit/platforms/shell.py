"""Plain shell: one script per pool that starts an instance, and one for the router."""

from __future__ import annotations

from planner.emit.checkpoint import MODELS
from planner.emit.deployment import Deployment
from planner.emit.launch import KEY_VARIABLE, Flags, Launch, Place, Value, flag_words, places
from planner.emit.platforms.making import script_name
from planner.emit.platforms.network import crosses_servers, network_environment
from planner.emit.quoting import comment, shell, shell_lines
from planner.emit.router import (
    HAPROXY,
    METRICS_PORT,
    PORT,
    client_port,
    is_routed,
    pool_key,
    router_environment,
    router_flags,
    router_of,
    worker_words,
)
from planner.emit.stamp import header
from planner.emit.weighing import CONFIG, OLDEST, PLACES, config_of, places_file

_START = "set -euo pipefail"
_HERE = 'here="$(cd "$(dirname "$0")" && pwd)"'


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return ``serve.sh`` (or ``prefill.sh`` and ``decode.sh``), ``router.sh`` and what they read."""
    written: dict[str, str] = {}
    if not launches[0].is_server:
        return {**own_files(launches[0]), "answer.sh": _offline_script(deployment, launches[0])}
    where = places(launches, deployment.cluster.gpus_per_node)
    for launch in launches:
        written[f"{launch.pool.name}.sh"] = serve_script(deployment, launch, where[launch.pool.name])
        written.update(own_files(launch))
    if deployment.mixed:
        return written | _weighing_files(deployment, launches, where)
    if is_routed(deployment):
        written["router.sh"] = _router_script(deployment, launches, where)
    return written


def own_files(launch: Launch) -> dict[str, str]:
    """Return the files that a launch reads, the program that makes its checkpoint among them."""
    made = {script_name(launch): launch.checkpoint_script} if launch.checkpoint_script else {}
    return {**launch.files, **made}


def serve_script(deployment: Deployment, launch: Launch, place: Place) -> str:
    """Return the script that starts one instance, or one server's part of it."""
    lines = _placement(launch, place)
    lines += _version_check(launch)
    shared = network_environment(deployment) if crosses_servers(deployment, launch) else {}
    lines += [f"export {name}={shell([value])}" for name, value in shared.items()]
    lines += [_export(name, value) for name, value in launch.environment.items()]
    if launch.pod_address_variable:
        lines.append(f'export {launch.pod_address_variable}="${{ADDRESS:-$(hostname -I | cut -d" " -f1)}}"')
    for name in launch.port_variables:
        lines.append(f"export {name}=$(( {launch.environment[name]} + 100 * (port - {launch.port}) ))")
    if launch.makes_checkpoint:
        lines += [
            f"checkpoint={_local(launch.model)}",
            'mkdir -p "$here/models"',
            "(",
            "  flock 9  # one of several instances makes it",
            '  if [ ! -e "$checkpoint" ]; then',
            f'    python3 "$here/{script_name(launch)}" "$checkpoint.part"',
            '    mv "$checkpoint.part" "$checkpoint"',
            "  fi",
            ') 9>"$checkpoint.lock"',
        ]
    lines += ["", _command(launch), ""]
    here = [_HERE] if any("$here" in line for line in lines) else []
    return "\n".join(["#!/usr/bin/env bash", header(deployment, launch).rstrip(), _START, *here, *lines])


def _placement(launch: Launch, place: Place) -> list[str]:
    """Return the lines that choose this call's GPUs and port, or its rank."""
    if launch.nodes > 1:
        return _one_of_several_servers(launch)
    if place.spots:
        return _one_of_a_kind(launch, place)
    if launch.pool.instances > 1 or place.first_gpu:
        return _one_of_several_instances(launch, place)
    gpus = ",".join(str(gpu) for gpu in range(launch.gpus_per_node))
    return [
        comment("CUDA_VISIBLE_DEVICES and PORT may be set to use other GPUs of the server, or another port."),
        f'export CUDA_VISIBLE_DEVICES="${{CUDA_VISIBLE_DEVICES:-{gpus}}}"',
        f'port="${{PORT:-{place.first_port}}}"',
    ]


def _one_of_several_servers(launch: Launch) -> list[str]:
    return [
        comment(
            f"Run on {launch.nodes} servers of {launch.gpus_per_node} GPUs: RANK=0 on the first, HEAD its address."
        ),
        'rank="${RANK:?set RANK to 0 on the first server, 1 on the next}"',
        'head="${HEAD:?set HEAD to the address of the first server}"',
        f"port={launch.port}",
    ]


def _one_of_several_instances(launch: Launch, place: Place) -> list[str]:
    last = launch.pool.instances - 1
    return [
        comment(f"Usage: {launch.pool.name}.sh [INSTANCE], 0 to {last}; {place.slots} of them fit a server."),
        'instance="${1:-0}"',
        f"slot=$(( instance % {place.slots} ))",
        f"first=$(( {place.first_gpu} + slot * {launch.gpus_per_node} ))",
        f'CUDA_VISIBLE_DEVICES="$(seq -s, "$first" "$(( first + {launch.gpus_per_node - 1} ))")"',
        "export CUDA_VISIBLE_DEVICES",
        f"port=$(( {place.first_port} + slot ))",
    ]


def _one_of_a_kind(launch: Launch, place: Place) -> list[str]:
    last = launch.pool.instances - 1
    servers = ", ".join(dict.fromkeys(str(spot.server) for spot in place.spots))
    return [
        comment(f"Usage: {launch.pool.name}.sh [INSTANCE], 0 to {last}, on the plan's servers {servers}."),
        'instance="${1:-0}"',
        f"first_gpus=({' '.join(str(spot.first_gpu) for spot in place.spots)})",
        f"ports=({' '.join(str(spot.port) for spot in place.spots)})",
        'first="${first_gpus[$instance]}"',
        f'CUDA_VISIBLE_DEVICES="$(seq -s, "$first" "$(( first + {launch.gpus_per_node - 1} ))")"',
        "export CUDA_VISIBLE_DEVICES",
        'port="${ports[$instance]}"',
    ]


def _version_check(launch: Launch) -> list[str]:
    lines = []
    for package in launch.packages:
        lines += [
            f'found="$(python3 -c \'import importlib.metadata as m; print(m.version("{package}"))\')"',
            f'case "$found" in {launch.version}|{launch.version}[+.]*) ;; *)',
            f'  echo "{package} $found is installed; this plan was written for {launch.version}" >&2; exit 1 ;;',
            "esac",
        ]
    return lines


def _export(name: str, value: str) -> str:
    return f"export {name}={_local(value) if _is_local(value) else shell([value])}"


def _is_local(value: Value) -> bool:
    return isinstance(value, str) and value.startswith(("{directory}", MODELS))


def _local(value: Value) -> str:
    """Return a path below the script's directory, quoted; such paths are made here and hold no user's text."""
    return '"' + str(value).replace("{directory}", "$here").replace(MODELS, "$here/models") + '"'


def _command(launch: Launch) -> str:
    """Return the command, with the port, the rank and local paths left to the shell."""
    command = _server_command(launch, launch.flags)
    if not (launch.worker_flags or launch.first_node_flags) or launch.nodes == 1:
        return command
    worker = _server_command(launch, launch.shared_flags)
    added = shell(flag_words(launch.worker_flags))
    worker += f" \\\n  {added}" if added else ""
    return f'if [ "$rank" = 0 ]; then\n{command}\nelse\n{worker}\nfi'


def _server_command(launch: Launch, flags: Flags) -> str:
    """Return the command of one server with these of the launch's flags."""
    # In order: vllm serve takes the model only before the flags.
    program = " ".join(_local(word) if _is_local(word) else shell([word]) for word in launch.program)
    raw: list[str] = []
    given = [name for name, _ in flags]
    own = {launch.port_flag, *launch.port_flags}
    plain = tuple(f for f in flags if f[0] not in own and not _is_local(f[1]))
    raw += [f"{name} {_local(value)}" for name, value in flags if _is_local(value)]
    if launch.port_flag in given:
        raw.append(f'{launch.port_flag} "$port"')
    raw += [f"{name} {_with_slot(launch.value(name), launch.port)}" for name in launch.port_flags if name in given]
    raw += [launch.key_words] if launch.key_words else []
    for name, value in launch.node_flags:
        spelled = str(value).replace("{rank}", "$rank").replace("{head}", "$head")
        raw.append(f'{name} "{spelled}"')
    return "exec " + shell_lines(program, flag_words(plain), raw=tuple(raw))


def _with_slot(port: Value | None, first: int) -> str:
    """Return a port that differs between the instances of a server, as their main ports do."""
    return f'"$(( {port} + port - {first} ))"'


def _offline_script(deployment: Deployment, launch: Launch) -> str:
    words = [_local(word) if _is_local(word) else shell([word]) for word in launch.program]
    for name, value in launch.flags:
        words += [name, _local(value) if _is_local(value) else shell([str(value)])]
    lines = ["#!/usr/bin/env bash", header(deployment, launch).rstrip(), _START, _HERE, *_version_check(launch)]
    return "\n".join([*lines, f'exec {" ".join(words)} "$@"', ""])


def _router_script(deployment: Deployment, launches: list[Launch], where: dict[str, Place]) -> str:
    """Return the router's script for instances on this server, or on the hosts that it is told."""
    router = router_of(deployment)
    before = f"{router.name} {router.version}, before {launches[0].engine},"
    lines = ["#!/usr/bin/env bash", header(deployment, launches[-1], before).rstrip(), _START]
    lines += [_export(name, value) for name, value in router_environment(deployment).items()]
    key = pool_key(deployment)
    if key is not None:
        lines.append(f'export {key}="${{{launches[0].key_variable or KEY_VARIABLE}:-}}"')
    port = client_port(deployment, PORT)
    host = (deployment.running.host if deployment.running is not None else None) or "0.0.0.0"  # noqa: S104
    lines.append(comment(f"Needs: pip install {router.requirement}. Clients talk to port {port}."))
    lines.append("workers=()")
    for launch in launches:
        lines += _addresses(deployment, launch, where[launch.pool.name])
    program = shell_lines(router.program, flag_words(router_flags(deployment, port, host)))
    lines += [f'exec {program} \\\n  "${{workers[@]}}"', ""]
    return "\n".join(lines)


def _weighing_files(deployment: Deployment, launches: list[Launch], where: dict[str, Place]) -> dict[str, str]:
    """Return HAProxy's files, and the script that tells it where the servers are."""
    servers = sorted({spot.server for place in where.values() for spot in place.spots})
    addresses = {
        name: [f'"${{SERVER_{spot.server}}}:{spot.port}"' for spot in place.spots] for name, place in where.items()
    }
    host = (deployment.running.host if deployment.running is not None else None) or "0.0.0.0"  # noqa: S104
    config = config_of(
        deployment,
        launches,
        addresses,
        bind=f"{host}:{client_port(deployment, PORT)}",
        metrics=f"127.0.0.1:{METRICS_PORT}",
        platform="shell",
    )
    before = f"{HAPROXY.name}, before {len(launches)} kinds of replicas,"
    missing = f"HAProxy {OLDEST} or later with Lua isn't installed here (apt-get install haproxy)"
    count, numbers = len(servers), " ".join(map(str, servers))
    lines = [
        "#!/usr/bin/env bash",
        header(deployment, launches[0], before).rstrip(),
        _START,
        _HERE,
        comment(f"SERVERS: addresses of the plan's servers {numbers}, in this order, separated by spaces."),
        "read -ra servers <<<" + '"${SERVERS:-' + ("localhost" if count == 1 else "") + '}"',
        f'[ "${{#servers[@]}}" -eq {count} ] || {{',
        f'  echo "set SERVERS to the addresses of the plan\'s servers {numbers}" >&2; exit 1',
        "}",
        *(f'export SERVER_{server}="${{servers[{index}]}}"' for index, server in enumerate(servers)),
        'case "$(haproxy -vv 2>/dev/null)" in *+LUA*) ;; *)',
        f'  echo "{missing}" >&2; exit 1 ;;',
        "esac",
        f'exec haproxy -db -f "$here/{CONFIG}"',
        "",
    ]
    top = header(deployment, launches[0], before)
    return {"router.sh": "\n".join(lines), CONFIG: top + config, PLACES: places_file()}


def _addresses(deployment: Deployment, launch: Launch, place: Place) -> list[str]:
    pool = launch.pool
    option, *after = worker_words(deployment, pool.role, "")
    rest = "".join(f" {_with_slot(int(word), launch.port)}" for word in after if word)
    hosts = f"{pool.role.upper()}_HOSTS"
    before = [f"workers+=({option})"] if pool.role == "serve" else []
    each = '"http://$host:$port"' if pool.role == "serve" else f'{option} "http://$host:$port"{rest}'
    return [
        comment(f"{hosts}: servers with {pool.role} instances, {place.slots} on each, separated by spaces."),
        *before,
        f"missing={pool.instances}",
        f"for host in ${{{hosts}:-localhost}}; do",
        f"  for port in $(seq {place.first_port} {place.first_port + place.slots - 1}); do",
        '    if [ "$missing" -gt 0 ]; then',
        f"      workers+=({each}); missing=$(( missing - 1 ))",
        "    fi",
        "  done",
        "done",
    ]
