"""The question: what is served, on which GPUs, to whom, within which limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from catalog.errors import nearest
from catalog.load import Catalog
from catalog.schema import Hardware, Node
from catalog.site import NOTHING_SAID, Site, site_of
from catalog.units import parse_quantity, parse_tokens
from planner.errors import InputError
from planner.limits import LIMITS
from planner.objectives import Name
from planner.pins import pins_text, read_pins
from planner.targets import check_targets

Task = Literal["mixed", "qa", "retrieval", "multiturn", "reasoning"]
Objective = Name

PAPER_MODEL = "yi-34b-200k"
"""Planned when no model is named and the context fits its window: the source paper's example."""


def _read(kind: str) -> Callable[[object], object]:
    """Read a string with its unit; numbers are SI already (plan files and Python callers)."""

    def read(value: object) -> object:
        return parse_quantity(value, kind) if isinstance(value, str) else value

    return read


def _check_target(text: str) -> str:
    check_targets(text)
    return text


def _read_pins(value: object) -> str | None:
    """Pins in one way of writing; ``none`` and nothing at all are no pins."""
    return None if value in (None, "none", "", [], {}) else pins_text(read_pins(value))


def _read_tokens(value: object) -> object:
    return parse_tokens(value) if isinstance(value, str) else value


def _read_tokens_or_none(value: object) -> object:
    return 0 if value in ("0", 0) else _read_tokens(value)


TokenCount = Annotated[int, BeforeValidator(_read_tokens), Field(ge=1, le=10**9)]
TokenCountOrNone = Annotated[int, BeforeValidator(_read_tokens_or_none), Field(ge=0, le=10**9)]
Seconds = Annotated[float, BeforeValidator(_read("seconds")), Field(ge=0, le=1e9, allow_inf_nan=False)]
Limit = Annotated[float, BeforeValidator(_read("seconds")), Field(gt=0, le=1e9, allow_inf_nan=False)]
Power = Annotated[float, BeforeValidator(_read("watts")), Field(gt=0, le=1e12, allow_inf_nan=False)]
Tolerance = Annotated[float, BeforeValidator(_read("percent")), Field(ge=0, lt=1, allow_inf_nan=False)]
PinText = Annotated[str | None, BeforeValidator(_read_pins)]
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
    """Catalog id, hub id, or the path of a ``config.json`` or its directory. None: chosen for the context."""
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
    max_power: Power | None = None
    """Limit on the board power of all GPUs that are used [W]."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    task: Task = "mixed"
    objective: Objective = "throughput"
    techniques: str = "deployable"
    """``none``: the model's own cache format and no technique in any dimension; `weights` have their own field."""
    weights: str = "any"
    pin: PinText = None
    """Fields of the plan's groups that are fixed: ``tp=4,prefill.pp=2,roles=prefill+decode``. None: all are free."""
    tolerance: Tolerance = 0.01
    """A simpler plan is shown whose objective is within this share of the best; 0: the strict optimum [fraction]."""
    spare: Annotated[int, Field(ge=0, le=1)] = 0
    """1: the promise holds with one server away, or on a cluster of one server one replica of each group."""
    efficiency: Literal["measured", "peak"] = "measured"
    usd_per_gpu_hour: Price | None = None
    """A price of your own; None: the cheapest dated on-demand offer of the catalog."""
    target: Annotated[str, AfterValidator(_check_target)] | None = None
    """Targets of an emission, with commas between: only what they can run is planned. None: everything."""


def read_request(values: Mapping[str, object], where: str = "") -> Request:
    """Make a request from what a user wrote, with every problem told at once by the option's name.

    Parameters
    ----------
    values
        Field -> text or number, as options or a file give them; None counts as left out.
    where
        Name of the file that the values come from; empty: the command line.

    Raises
    ------
    InputError
        For unknown or missing fields, and for every value that can't be used.
    """
    given = {name.replace("-", "_"): value for name, value in values.items() if value is not None}
    try:
        return Request.model_validate(given)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        found = [text for item in error.errors(include_url=False) for text in _problems(item, where)]
        raise InputError([prefix + text for text in found]) from None


def _problems(item: Any, where: str) -> list[str]:
    """What is wrong with one field: a line each where a value has several parts."""
    first, *others = _problem(item, where).split("\n")
    option = first.partition(":")[0]
    return [first, *(f"{option}: {text}" for text in others)]


def _problem(item: Any, where: str) -> str:
    field = str(item["loc"][0]) if item["loc"] else "the request"
    name = field if where else f"--{field.replace('_', '-')}"
    if item["type"] == "missing":
        return f"{name}: missing; add it, for example {_EXAMPLES.get(field, 'its value')}"
    if item["type"] == "extra_forbidden":
        near = nearest(field, Request.model_fields)
        return f"{name}: unknown; " + (f"did you mean {near[0]}?" if near else "remove it")
    what = str(item["msg"]).removeprefix("Value error, ")
    shown = "" if item["type"] == "value_error" else f", not {str(item['input'])[:60]!r}"
    example = f"; write for example {_EXAMPLES[field]}" if shown and field in _EXAMPLES else ""
    return f"{name}: {what[:1].lower() + what[1:]}{shown}{example}"


_EXAMPLES = {
    "ctx": "1M",
    "gpus": "8xA100",
    **{limit.field: limit.example for limit in LIMITS},
    "confidence": "0.8",
    "think_time": "60s",
    "utilisation": "0.85",
    "rounds": "5",
    "tolerance": "1%",
    "spare": "1",
    "usd_per_gpu_hour": "1.79 USD/h",
}


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
    site: Site = NOTHING_SAID
    """What a cluster file says of its network, storage and Kubernetes."""

    @property
    def nodes(self) -> int:
        """Servers in use, the last one perhaps in part."""
        return -(-self.gpus // self.gpus_per_node)


_COUNT = re.compile(r"([+-]?[0-9]+)\s*[x×]\s*", re.IGNORECASE)
_MOST_GPUS = 65_536
_EXAMPLE = "write for example 8xA100, 2x8xH100 (nodes x GPUs), p4d.24xlarge or a cluster file"


def resolve_cluster(text: str, catalog: Catalog) -> Cluster:
    """Read ``8xA100``, ``2x8xH100``, ``A100``, ``p4d.24xlarge``, ``2xp4d.24xlarge`` or a cluster file.

    GPUs without a node fill the catalog's default servers for them, the last one perhaps in part.

    Raises
    ------
    InputError
        If the text has another form, a count is out of range, nothing in the catalog has that name,
        or a server isn't large enough; every problem of the text at once.
    """
    shown = f"--gpus {text if len(text) <= 80 else text[:77] + '...'!r}"
    if text.strip().lower().endswith((".yaml", ".yml", ".json")):
        return _cluster_from_file(Path(text.strip()), catalog)
    counts, name = _counts_and_name(text)
    problems = []
    if any(not 1 <= count <= _MOST_GPUS for count in counts):
        problems.append(f"counts must be whole numbers from 1 to {_MOST_GPUS}; {_EXAMPLE}")
    if len(counts) > 2:
        problems.append("has more than two counts; give nodes x GPUs, for example 2x8xH100")
    if not name:
        problems.append(f"names no GPU; {_EXAMPLE}")
    elif not catalog.has(Hardware, name) and not catalog.has(Node, name):
        if not counts and _is_file(text.strip()):
            return _cluster_from_file(Path(text.strip()), catalog)
        problems.append(_unknown_gpu(name, catalog))
    if problems:
        raise InputError([f"{shown}: {problem}" for problem in problems])
    if catalog.has(Hardware, name):
        return _cluster_of_gpus(catalog.get(Hardware, name), counts, catalog, shown)
    return _cluster_of_nodes(catalog.get(Node, name), counts, catalog, shown)


def _counts_and_name(text: str) -> tuple[list[int], str]:
    """Split ``2x8xH100`` into its counts and the name; numbers of absurd length stay out of range."""
    counts = []
    rest = text.strip()
    while match := _COUNT.match(rest):
        digits = match.group(1)
        counts.append(int(digits) if len(digits) <= 9 else _MOST_GPUS + 1)
        rest = rest[match.end() :]
    return counts, rest


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False  # Too long for a path, or with characters that no path has.


def _unknown_gpu(name: str, catalog: Catalog) -> str:
    from catalog.errors import nearest

    known = [spelling for e in catalog.all(Hardware) for spelling in (e.id, *e.aliases)]
    known += [spelling for n in catalog.all(Node) for spelling in (n.id, *n.aliases)]
    near = nearest(name[:80], known)
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    return f"unknown GPU or node {name[:80]!r}{meant} (plan catalog list hardware and plan catalog list nodes show all)"


def _cluster_of_gpus(hardware: Hardware, counts: list[int], catalog: Catalog, shown: str) -> Cluster:
    node = catalog.default_node(hardware)
    if node is None:
        raise InputError(f"{shown}: the catalog knows no server for {hardware.id}; name a node or write a cluster file")
    if len(counts) < 2:
        gpus = counts[0] if counts else 1
        return Cluster(hardware, node, gpus, min(gpus, node.gpus), assumed_node=True)
    nodes, per_node = counts
    if per_node > node.gpus:
        raise InputError(
            f"{shown}: {per_node} GPUs in one server, but {node.id}, the default for {hardware.id}, has {node.gpus}; "
            f"write {nodes * per_node}x{hardware.id} to spread them, or a cluster file with your server"
        )
    _check_total(nodes * per_node, shown)
    return Cluster(hardware, node, nodes * per_node, per_node, assumed_node=True)


def _cluster_of_nodes(node: Node, counts: list[int], catalog: Catalog, shown: str) -> Cluster:
    if len(counts) == 2:
        raise InputError(
            f"{shown}: a {node.id} has its {node.gpus} GPUs anyway; "
            f"write {counts[0]}x{node.id}, or {counts[0]}x{counts[1]}x{node.hardware} to use fewer of them"
        )
    gpus = node.gpus * (counts[0] if counts else 1)
    _check_total(gpus, shown)
    return Cluster(catalog.get(Hardware, node.hardware), node, gpus, node.gpus, assumed_node=False)


def _check_total(gpus: int, shown: str) -> None:
    if gpus > _MOST_GPUS:
        raise InputError(f"{shown}: {gpus} GPUs in all; plan at most {_MOST_GPUS} at once")


def _cluster_from_file(path: Path, catalog: Catalog) -> Cluster:
    """Read a cluster file: ``node`` or ``hardware``, ``nodes``, node fields to override, and the site's blocks."""
    where = f"--gpus {path}"
    raw = _read_cluster_file(path, where)
    problems: list[str] = []
    site = _site_of_file(raw, problems)
    nodes = raw.pop("nodes", 1)
    assumed = raw.keys() == {"hardware"}
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= _MOST_GPUS:
        problems.append(f"nodes: must be a whole number from 1 to {_MOST_GPUS}; got {str(nodes)[:60]!r}")
    node = _node_of_file(raw, catalog, problems)
    if node is None or problems:
        raise InputError([f"{where}: {problem}" for problem in problems])
    _check_total(nodes * node.gpus, where)
    hardware = catalog.get(Hardware, node.hardware)
    return Cluster(hardware, node, nodes * node.gpus, node.gpus, assumed_node=assumed, site=site)


def _site_of_file(raw: dict[str, Any], problems: list[str]) -> Site:
    """Take the blocks ``network``, ``storage`` and ``kubernetes`` out of a cluster file."""
    from catalog.read_yaml import describe

    try:
        return site_of(raw)
    except ValidationError as error:
        problems.extend(describe(error, Site))
        return NOTHING_SAID


def _read_cluster_file(path: Path, where: str) -> dict[str, Any]:
    from catalog.read_yaml import parse_yaml

    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: isn't UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where}: holds no cluster; write for example 'node: dgx-a100-80gb' and 'nodes: 2'")
    return raw


def _node_of_file(raw: dict[str, Any], catalog: Catalog, problems: list[str]) -> Node | None:
    """The node that a cluster file names, or the default of its GPU, with the file's own fields on top."""
    from pydantic import ValidationError

    from catalog.errors import UnknownEntryError
    from catalog.read_yaml import describe

    fields = dict(raw)
    name = fields.pop("node", None)
    base: Node | None = None
    try:
        if "hardware" in fields:
            hardware = catalog.get(Hardware, str(fields["hardware"]))
            fields["hardware"] = hardware.id
            base = catalog.default_node(hardware)
        if name is not None:
            base = catalog.get(Node, str(name))
    except UnknownEntryError as error:
        problems.append(str(error))
        return None
    if base is None:
        problems.append("node: missing; name a catalog node, or the hardware of its default node")
        return None
    if fields.get("hardware", base.hardware) != base.hardware:
        problems.append(f"hardware: a {base.id} holds {base.hardware}; give either node or hardware")
    try:
        return Node.model_validate({**_as_written(base), **fields})
    except ValidationError as error:
        problems.extend(describe(error, Node))
        return None


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
