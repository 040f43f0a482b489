"""GPU traffic between servers: what pods and processes need for RDMA, and what is said where nobody gave it.

NCCL, RCCL, NIXL (through UCX) and NVSHMEM read these variables; their names are those of NVIDIA's documentation of
each, and the ones that KServe's own presets set (kserve/kserve, config/llmisvcconfig, aaac4e2, 2026-08-21).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from catalog.site import Network
from planner.emit.deployment import Deployment
from planner.emit.launch import Launch
from planner.errors import InputError

_PORT = ":1"
"""Of a device, as UCX and NVSHMEM want it: RDMA devices of servers have one."""


def crosses_servers(deployment: Deployment, launch: Launch) -> bool:
    """Tell whether GPUs of one server send to those of another: within an instance, or between its pools."""
    return launch.nodes > 1 or (deployment.disaggregated and deployment.gpus > deployment.cluster.gpus_per_node)


def leaves_its_pod(deployment: Deployment, launch: Launch) -> bool:
    """Tell whether GPUs of one pod send to those of another, which share no memory even on one server."""
    return launch.nodes > 1 or deployment.disaggregated


def network_environment(deployment: Deployment) -> dict[str, str]:
    """Return the variables that put GPU traffic on the network that the cluster file names."""
    network = deployment.cluster.site.network
    found: dict[str, str] = {}
    if network.interface is not None:
        found |= {"NCCL_SOCKET_IFNAME": network.interface, "GLOO_SOCKET_IFNAME": network.interface}
    if network.hcas:
        with_ports = ",".join(f"{name}{_PORT}" for name in network.hcas)
        found |= {"NCCL_IB_HCA": ",".join(network.hcas), "UCX_NET_DEVICES": with_ports, "NVSHMEM_HCA_LIST": with_ports}
    if network.gid_index is not None:
        names = ("NCCL_IB_GID_INDEX", "UCX_IB_GID_INDEX", "NVSHMEM_IB_GID_INDEX")
        found |= dict.fromkeys(names, str(network.gid_index))
    return found | network.environment


def pod_network(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return fields of a pod's spec that its network needs."""
    shared = _network(deployment).host_network and leaves_its_pod(deployment, launch)
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if shared else {}


def check_ports(deployment: Deployment, launches: list[Launch]) -> None:
    """Refuse pods that would want the same port of one server.

    Raises
    ------
    InputError
        If pods use their server's network and two of them fit a server.
    """
    sizes = sorted(size for la in launches for size in [la.gpus_per_node] * min(2, la.pool.instances * la.nodes))
    shared = any(pod_network(deployment, launch) for launch in launches)
    if shared and len(sizes) > 1 and sizes[0] + sizes[1] <= deployment.cluster.gpus_per_node:
        raise InputError(
            "--target kubernetes: network.host_network gives all pods of a server the same ports, and the plan puts "
            "several on one; leave it out and name network.rdma"
        )


def rdma_resource(deployment: Deployment) -> dict[str, str]:
    """Return the resource that gives a pod its RDMA devices."""
    rdma = _network(deployment).rdma
    return {} if rdma is None else {rdma.resource: str(rdma.count)}


def network_annotations(deployment: Deployment) -> dict[str, str]:
    """Return the annotations that give a pod its network."""
    return dict(_network(deployment).annotations)


Where = Literal["pods", "containers", "servers"]
"""What GPUs send between: pods see no RDMA device unless a resource gives it, containers unless devices are named."""
_GIVEN = {"pods": "network.rdma", "containers": "network.hcas", "servers": "network.hcas"}


def network_warning(deployment: Deployment, launches: Iterable[Launch], where: Where) -> str | None:
    """Say loudly that the plan's times need a network that nothing sets up; None if it is set up or not needed.

    Parameters
    ----------
    deployment
        The plan.
    launches
        Its pools.
    where
        What the files start.
    """
    needs = crosses_servers if where == "servers" else leaves_its_pod
    network = _network(deployment)
    named = network.rdma is not None if where == "pods" else bool(network.hcas or network.environment)
    if named or not any(needs(deployment, launch) for launch in launches):
        return None
    nic = deployment.cluster.node.nic
    assumed = f"{nic.kind}, {nic.bandwidth / 1e9:.0f} GB/s per server" if nic else "the servers' network"
    return (
        f"WARNING: GPUs send to other {where}, the plan's times count on RDMA ({assumed}), but no cluster file says "
        f"{_GIVEN[where]}: NCCL and NIXL may fall back to TCP, and the times don't hold. Set it, plan again, and check "
        "that the log says NET/IB with NCCL_DEBUG=INFO (NET/Socket is TCP)"
    )


def expert_note(deployment: Deployment, launches: Iterable[Launch]) -> str | None:
    """Say that an engine's default moves tokens between experts of several servers, where nobody chose better."""
    spread = [launch for launch in launches if launch.nodes > 1 and launch.pool.ep > 1]
    engines = dict.fromkeys(deployment.of(launch.pool).engine.id for launch in spread)
    by_default = [engine for engine in engines if engine not in _network(deployment).all2all]
    if not by_default:
        return None
    return (
        f"experts are on several servers, and {by_default[0]} moves tokens between them by its default, which "
        "is rarely the fastest: network.all2all in the cluster file names another (vllm: deepep_low_latency, ...)"
    )


def _network(deployment: Deployment) -> Network:
    return deployment.cluster.site.network
