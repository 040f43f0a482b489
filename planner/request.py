"""The question: what is served, on which GPUs, to whom, within which limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog.load import Catalog
from catalog.schema import Hardware, Node
from catalog.units import parse_quantity, parse_tokens
from planner.errors import InputError

Task = Literal["mixed", "qa", "retrieval", "multiturn", "reasoning"]
Objective = Literal["throughput", "cost", "latency", "quality"]

PAPER_MODEL = "yi-34b-200k"
"""Planned when no model is named and the context fits its window: the source paper's example."""


def _read(kind: str) -> Callable[[object], object]:
    """Read a string with its unit; numbers are SI already (plan files and Python callers)."""

    def read(value: object) -> object:
        return parse_quantity(value, kind) if isinstance(value, str) else value

    return read


def _read_tokens(value: object) -> object:
    return parse_tokens(value) if isinstance(value, str) else value


TokenCount = Annotated[int, BeforeValidator(_read_tokens), Field(ge=1, le=10**9)]
TokenCountOrNone = Annotated[int, BeforeValidator(_read_tokens), Field(ge=0, le=10**9)]
Seconds = Annotated[float, BeforeValidator(_read("seconds")), Field(ge=0, le=1e9, allow_inf_nan=False)]
Limit = Annotated[float, BeforeValidator(_read("seconds")), Field(gt=0, le=1e9, allow_inf_nan=False)]
LossLimit = Annotated[float, BeforeValidator(_read("percent")), Field(ge=0, lt=1, allow_inf_nan=False)]
Price = Annotated[float, BeforeValidator(_read("USD/h")), Field(gt=0, allow_inf_nan=False)]


class Request(BaseModel):
    """One question to the planner. Strings carry units (``1M``, ``200ms``); numbers are SI.

    Examples
    --------
    >>> Request(ctx="1M", gpus="8xA100", max_latency="200ms").max_latency
    0.2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ctx: TokenCount
    """Length of the document that opens a session [tokens]."""
    gpus: str
    """``8xA100``, ``2x8xH100`` (nodes x GPUs), a catalog node (``p4d.24xlarge``), or a cluster file."""
    model: str | None = None
    """Catalog id, or the path of a ``config.json`` or its directory. None: chosen for the context."""
    engine: str = "any"
    rounds: Annotated[int, Field(ge=1, le=1000)] = 5
    output_tokens: TokenCount = 250
    question_tokens: TokenCountOrNone = 100
    think_time: Seconds = 60.0
    """Time that a user reads an answer before the next question [s]."""
    users: Annotated[int, Field(ge=1)] | None = None
    shared_prefix_tokens: TokenCountOrNone = 0
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Planned share of the GPUs' time; 1 under ``efficiency='peak'``."""
    max_latency: Limit | None = None
    """Limit on TPOT in the worst interleaved step [s]."""
    max_ttft: Limit | None = None
    max_warm_ttft: Limit | None = None
    max_switch: Limit | None = None
    max_quality_loss: LossLimit = 0.05
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    task: Task = "mixed"
    objective: Objective = "throughput"
    techniques: str = "deployable"
    weights: str = "any"
    efficiency: Literal["measured", "peak"] = "measured"
    usd_per_gpu_hour: Price | None = None
    """A price of your own; None: the cheapest dated on-demand offer of the catalog."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The GPUs of a request and the servers that hold them."""

    hardware: Hardware
    node: Node
    gpus: int
    """GPUs in all."""
    gpus_per_node: int
    """GPUs of one server that the request may use: the most for tensor parallelism over NVLink."""
    assumed_node: bool
    """True when the request named only GPUs and the node is the catalog's default for them."""

    @property
    def nodes(self) -> int:
        """Servers in use, the last one perhaps in part."""
        return -(-self.gpus // self.gpus_per_node)


_GPUS = re.compile(r"(?:(\d+)x)?(?:(\d+)x)?(.+)", re.IGNORECASE)
_MOST_GPUS = 65_536


def resolve_cluster(text: str, catalog: Catalog) -> Cluster:
    """Read ``8xA100``, ``2x8xH100``, ``A100``, ``p4d.24xlarge``, ``2xp4d.24xlarge`` or a cluster file.

    Raises
    ------
    InputError
        If the text has another form, a count is zero, or nothing in the catalog has that name.
    """
    from pathlib import Path

    if text.endswith((".yaml", ".yml", ".json")) or Path(text).is_file():
        return _cluster_from_file(Path(text), catalog)
    match = _GPUS.fullmatch(text.strip())
    if match is None or not match.group(3).strip():
        raise InputError(f"--gpus {text!r}: names no GPU; write for example 8xA100, 2x8xH100 or a node such as dgx-a100")
    counts = [int(group) for group in match.groups()[:2] if group is not None]
    name = match.group(3).strip()
    if any(count < 1 or count > _MOST_GPUS for count in counts):
        raise InputError(f"--gpus {text!r}: counts must be between 1 and {_MOST_GPUS}; write for example 8xA100")
    if catalog.has(Hardware, name):
        return _cluster_of_gpus(catalog.get(Hardware, name), counts, catalog)
    if catalog.has(Node, name) and len(counts) < 2:
        node = catalog.get(Node, name)
        gpus = node.gpus * (counts[0] if counts else 1)
        return Cluster(catalog.get(Hardware, node.hardware), node, gpus, node.gpus, assumed_node=False)
    raise InputError(f"--gpus {text!r}: {_unknown_gpu(name, catalog)}")


def _unknown_gpu(name: str, catalog: Catalog) -> str:
    from catalog.errors import nearest

    known = [spelling for e in catalog.all(Hardware) for spelling in (e.id, *e.aliases)]
    known += [spelling for n in catalog.all(Node) for spelling in (n.id, *n.aliases)]
    near = nearest(name, known)
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    return f"unknown GPU or node {name!r}{meant} (plan catalog list hardware shows all)"


def _cluster_of_gpus(hardware: Hardware, counts: list[int], catalog: Catalog) -> Cluster:
    node = catalog.default_node(hardware)
    if node is None:
        raise InputError(f"--gpus: the catalog knows no server for {hardware.id}; name a node or write a cluster file")
    if len(counts) == 2:
        nodes, per_node = counts
        return Cluster(hardware, node, nodes * per_node, per_node, assumed_node=True)
    gpus = counts[0] if counts else 1
    return Cluster(hardware, node, gpus, min(gpus, node.gpus), assumed_node=True)


def _cluster_from_file(path: Any, catalog: Catalog) -> Cluster:
    """Read a cluster file: ``node`` or ``hardware``, ``nodes``, and node fields to override."""
    from pydantic import ValidationError

    from catalog.read_yaml import describe, parse_yaml

    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--gpus {path}: can't be read: {getattr(error, 'strerror', 'not UTF-8 text')}") from None
    except ValueError as error:
        raise InputError(f"--gpus {path}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"--gpus {path}: holds no cluster; write 'node: dgx-a100-80gb' and 'nodes: 2'")
    raw = dict(raw)
    nodes = raw.pop("nodes", 1)
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= _MOST_GPUS:
        raise InputError(f"--gpus {path}: nodes: must be a whole number from 1; got {nodes!r}")
    base_name = raw.pop("node", None)
    if base_name is not None:
        base = catalog.get(Node, str(base_name))
    else:
        hardware_name = raw.get("hardware")
        if hardware_name is None:
            raise InputError(f"--gpus {path}: node: missing; name a catalog node, or hardware and gpus")
        default = catalog.default_node(catalog.get(Hardware, str(hardware_name)))
        if default is None:
            raise InputError(f"--gpus {path}: hardware: the catalog knows no server for it; give node")
        base = default
    try:
        overrides = Node.model_validate({**_as_written(base), **raw})
    except ValidationError as error:
        raise InputError([f"--gpus {path}: {problem}" for problem in describe(error, Node)]) from None
    hardware = catalog.get(Hardware, overrides.hardware)
    return Cluster(hardware, overrides, nodes * overrides.gpus, overrides.gpus, assumed_node=False)


def _as_written(node: Node) -> dict[str, Any]:
    """Return a node's fields as a file would give them, with units."""
    raw: dict[str, Any] = node.model_dump(mode="json", exclude_none=True)
    raw["host_memory"] = f"{node.host_memory} B"
    if node.nvme is not None:
        raw["nvme"] = {
            "capacity": f"{node.nvme.capacity} B",
            "read": f"{node.nvme.read} B/s",
            "write": f"{node.nvme.write} B/s",
        }
    if node.nic is not None:
        raw["nic"] = {"kind": node.nic.kind, "bandwidth": f"{node.nic.bandwidth} B/s"}
    return raw
