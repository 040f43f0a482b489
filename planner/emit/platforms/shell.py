"""Plain shell: one script per pool that starts an instance, and one for the router."""

from __future__ import annotations

from planner.emit.checkpoint import MODELS, SCRIPT, checkpoint_script
from planner.emit.deployment import Deployment
from planner.emit.launch import Launch, Place, Value, flag_words, places
from planner.emit.quoting import comment, shell, shell_lines
from planner.emit.router import PORT, VERSION, address_option, is_routed, router_flags
from planner.emit.stamp import header

PACKAGES = {"vllm": "vllm", "sglang": "sglang", "lmdeploy": "lmdeploy", "tensorrt-llm": "tensorrt_llm"}
"""Engine -> Python package whose version the script checks; llama.cpp isn't one."""
_START = ["set -euo pipefail", 'here="$(cd "$(dirname "$0")" && pwd)"']


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return ``serve.sh`` (or ``prefill.sh`` and ``decode.sh``), ``router.sh`` and what they read."""
    written: dict[str, str] = {}
    where = places(launches, deployment.cluster.gpus_per_node)
    for launch in launches:
        written[f"{launch.pool.role}.sh"] = serve_script(deployment, launch, where[launch.pool.role])
        written.update(launch.files)
    if needs_checkpoint(launches):
        written[SCRIPT] = checkpoint_script(deployment)
    if is_routed(deployment):
        written["router.sh"] = _router_script(deployment, launches, where)
    return written


def needs_checkpoint(launches: list[Launch]) -> bool:
    """Tell whether a launch serves a checkpoint that has to be made first."""
    return any(MODELS in word for launch in launches for word in launch.program)


def serve_script(deployment: Deployment, launch: Launch, place: Place) -> str:
    """Return the script that starts one instance, or one server's part of it."""
    lines = ["#!/usr/bin/env bash", header(deployment, launch).rstrip(), *_START]
    lines += _one_of_several_servers(launch) if launch.nodes > 1 else _one_of_several_instances(launch, place)
    lines += _version_check(launch)
    lines += [_export(name, value) for name, value in launch.environment.items()]
    if launch.pod_address_variable:
        lines.append(f'export {launch.pod_address_variable}="${{ADDRESS:-$(hostname -I | cut -d" " -f1)}}"')
    for name in launch.port_variables:
        lines.append(f"export {name}=$(( {launch.environment[name]} + 100 * (port - {launch.port}) ))")
    if needs_checkpoint([launch]):
        target = _local(launch.program[-1])
        lines.append(f'[ -d {target} ] || python3 "$here/{SCRIPT}" {target}')
    lines += ["", _command(launch), ""]
    return "\n".join(lines)


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
        comment(f"Usage: {launch.pool.role}.sh [INSTANCE], 0 to {last}; {place.slots} of them fit a server."),
        'instance="${1:-0}"',
        f"slot=$(( instance % {place.slots} ))",
        f"first=$(( {place.first_gpu} + slot * {launch.gpus_per_node} ))",
        f'CUDA_VISIBLE_DEVICES="$(seq -s, "$first" "$(( first + {launch.gpus_per_node - 1} ))")"',
        "export CUDA_VISIBLE_DEVICES",
        f"port=$(( {place.first_port} + slot ))",
    ]


def _version_check(launch: Launch) -> list[str]:
    package = PACKAGES.get(launch.engine)
    if package is None:
        return []
    return [
        f'found="$(python3 -c \'import importlib.metadata as m; print(m.version("{package}"))\')"',
        f'case "$found" in {launch.version}|{launch.version}[+.]*) ;; *)',
        f'  echo "{package} $found is installed; this plan was written for {launch.version}" >&2; exit 1 ;;',
        "esac",
    ]


def _export(name: str, value: str) -> str:
    return f"export {name}={_local(value) if _is_local(value) else shell([value])}"


def _is_local(value: Value) -> bool:
    return isinstance(value, str) and value.startswith(("{directory}", MODELS))


def _local(value: Value) -> str:
    """Return a path below the script's directory, quoted; such paths are made here and hold no user's text."""
    return '"' + str(value).replace("{directory}", "$here").replace(MODELS, "$here/models") + '"'


def _command(launch: Launch) -> str:
    """Return the command, with the port, the rank and local paths left to the shell."""
    program = [word for word in launch.program if not _is_local(word)]
    raw = [_local(word) for word in launch.program if _is_local(word)]
    plain = tuple(f for f in launch.flags if f[0] != launch.port_flag and not _is_local(f[1]))
    raw += [f"{name} {_local(value)}" for name, value in launch.flags if _is_local(value)]
    raw.append(f'{launch.port_flag} "$port"')
    for name, value in launch.node_flags:
        spelled = str(value).replace("{rank}", "$rank").replace("{head}", "$head")
        raw.append(f'{name} "{spelled}"')
    command = "exec " + shell_lines(program, flag_words(plain), raw=tuple(raw))
    if not launch.worker_flags:
        return command
    workers = shell(flag_words(launch.worker_flags))
    return f'if [ "$rank" = 0 ]; then\n{command}\nelse\n{command} \\\n  {workers}\nfi'


def _router_script(deployment: Deployment, launches: list[Launch], where: dict[str, Place]) -> str:
    """Return the router's script for instances on this server, or on the hosts that it is told."""
    lines = ["#!/usr/bin/env bash", header(deployment, launches[-1]).rstrip(), _START[0]]
    lines.append(comment(f"Needs: pip install vllm-router=={VERSION}. Clients talk to port {PORT}."))
    lines.append("workers=()")
    for launch in launches:
        lines += _addresses(launch, where[launch.pool.role])
    lines += [f'exec {shell_lines(["vllm-router"], flag_words(router_flags(deployment)))} \\\n  "${{workers[@]}}"', ""]
    return "\n".join(lines)


def _addresses(launch: Launch, place: Place) -> list[str]:
    pool = launch.pool
    option = address_option(pool.role)
    hosts = f"{pool.role.upper()}_HOSTS"
    before = [f"workers+=({option})"] if pool.role == "serve" else []
    each = '"http://$host:$port"' if pool.role == "serve" else f'{option} "http://$host:$port"'
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
