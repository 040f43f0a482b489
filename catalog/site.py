"""What only the operator knows about a place: its GPU network, its storage, how Kubernetes is set up there.

A cluster file may say it in three optional blocks. Nothing of it changes a plan's figures; it goes into the files
that are emitted, and what is missing there is told.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from catalog.schema import Bytes, BytesPerSecond, Fact, Text

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""Of a Kubernetes object."""
QualifiedName = Annotated[str, StringConstraints(pattern=rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}$")]
"""Of a Kubernetes label, annotation, taint or resource: ``rdma/roce_gdr``."""
LabelValue = Annotated[Text, StringConstraints(pattern=rf"^({_NAME})?$")]
Device = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
"""A network interface or RDMA device as the operating system names it."""
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._:/-]{0,200}[a-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Rdma(Fact):
    """The resource with which a device plugin gives a pod its RDMA devices."""

    resource: QualifiedName
    count: Annotated[int, Field(ge=1, le=64)] = 1


class Network(Fact):
    """The network between the GPUs of several servers."""

    rdma: Rdma | None = None
    annotations: dict[QualifiedName, Text] = Field(default_factory=dict)
    """Of pods: how they get the network (``k8s.v1.cni.cncf.io/networks: roce-p2``)."""
    interface: Device | None = None
    """For bootstrap and what goes over TCP (``eth0``)."""
    hcas: tuple[Device, ...] = ()
    """RDMA devices for GPU traffic (``mlx5_0``)."""
    gid_index: Annotated[int, Field(ge=0, le=255)] | None = None
    """Of RoCE version 2 on these devices."""
    all2all: dict[Literal["vllm", "sglang"], Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]] = Field(
        default_factory=dict
    )
    """Engine -> what moves tokens between experts of several servers."""
    host_network: bool = False
    """Pods use the server's own network instead of one of their own."""
    environment: dict[Variable, Text] = Field(default_factory=dict)
    """Further variables (``FI_PROVIDER: efa``)."""


class Storage(Fact):
    """Where checkpoints are kept."""

    model_config = ConfigDict(populate_by_name=True)

    storage_class: ObjectName | None = Field(default=None, alias="class")
    """None: the cluster's default."""
    access: Literal["ReadWriteMany", "ReadWriteOnce"] | None = None
    """None: many, where several pods read the claim."""
    claim: ObjectName | None = None
    """A claim that is there already; None: one is made."""
    size: Bytes | None = None
    """Of the claim that is made; None: the plan's checkpoints and a reserve."""
    bandwidth: BytesPerSecond | None = None
    """At which one server reads a checkpoint."""
    download: BytesPerSecond | None = None
    """At which a checkpoint comes from the model hub."""


class Toleration(Fact):
    """A taint of nodes that pods may run on in spite of."""

    key: QualifiedName | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _value_only_where_compared(self) -> Toleration:
        if (self.value is not None) != (self.operator == "Equal"):
            raise ValueError("operator Equal needs a value, and Exists takes none")
        return self


class Kubernetes(Fact):
    """How pods are scheduled, and where images come from."""

    registry: Image | None = None
    """A mirror: put before every image (``registry.example.com/mirror``)."""
    pull_secrets: tuple[ObjectName, ...] = ()
    node_selector: dict[QualifiedName, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class: ObjectName | None = None
    runtime_class: ObjectName | None = None


class Site(Fact):
    """The three blocks of a cluster file that no catalog entry has."""

    network: Network = Network()
    storage: Storage = Storage()
    kubernetes: Kubernetes = Kubernetes()


NOTHING_SAID = Site()
BLOCKS: frozenset[str] = frozenset(Site.model_fields)


def site_of(raw: dict[str, Any]) -> Site:
    """Take the site's blocks out of a cluster file's fields, and read them.

    Raises
    ------
    pydantic.ValidationError
        With every field that can't be used.
    """
    return Site.model_validate({name: raw.pop(name) for name in sorted(BLOCKS & raw.keys())})
