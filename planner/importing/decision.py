"""From vLLM's flags to a decision, and an account of what they leave open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from catalog.load import Catalog
from catalog.schema import Engine
from planner.decision import Decision
from planner.emit.stamp import services_hash
from planner.errors import InputError
from planner.importing.commands import Command, read_commands
from planner.importing.flags import Given, read_flags
from planner.request import resolve_cluster
from planner.service import Batch, Choice, Compression, OffloadChoice, Parallel, Pool, Pools, Service

M = TypeVar("M", Parallel, Batch)

WEIGHTS = {
    "fp8": "fp8",
    "awq": "awq4",
    "auto_awq": "awq4",
    "awq_marlin": "awq4",
    "gptq": "gptq4",
    "auto_gptq": "gptq4",
    "gptq_marlin": "gptq4",
    "bitsandbytes": "nf4",
}
"""``--quantization`` -> weights of a decision."""
_TRANSFER = ("NixlConnector", "NixlPullConnector", "NixlPushConnector", "MooncakeConnector", "MoRIIOConnector")
_OFFLOAD = ("OffloadingConnector", "SimpleCPUOffloadConnector", "LMCacheConnectorV1", "LMCacheMPConnector")
_STAMPED_ONLY = ("batch.resident_sessions",)
"""Fields that no flag expresses."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a running deployment decides, and what it doesn't say."""

    decision: Service
    model: str | None
    """As the command names it: a hub id or a path."""
    version: str
    context_tokens: int | None
    """``--max-model-len``: longest session that is served; None: the model's own window [tokens]."""
    gpus: str
    flags: Mapping[str, Any]
    """What the server is started with, of the decode pool where there are two; flags by their first name."""
    from_stamp: tuple[str, ...]
    """Fields that came from the file's own plan, which its stamp names."""
    undetermined: tuple[str, ...]
    """Fields that neither a flag nor the file's own plan gives."""
    notes: tuple[str, ...]
    unread: tuple[tuple[str, str], ...] = ()
    """Words of the command that aren't read, with the reason."""

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "model": self.model,
            "engine_version": self.version,
            "context_tokens": self.context_tokens,
            "gpus": self.gpus,
            "decision": Decision.anywhere([self.decision]).model_dump(mode="json"),
            "from_stamp": list(self.from_stamp),
            "undetermined": list(self.undetermined),
            "notes": list(self.notes),
        }


def import_text(text: str, gpus: str, catalog: Catalog, beside: Decision | None = None) -> Imported:
    """Read a vLLM command line, a compose file or Kubernetes manifests into a decision.

    Parameters
    ----------
    text
        The file's content.
    gpus
        The GPUs that it runs on, as ``--gpus`` takes them.
    catalog
        The facts.
    beside
        The decision of the ``plan.json`` beside the file; what no flag expresses is taken from the service that the
        file's stamp is of.

    Raises
    ------
    InputError
        If the text starts no vLLM server, or servers of several models.
    """
    resolve_cluster(gpus, catalog)
    commands = read_commands(text)
    given = [read_flags(command) for command in commands]
    models = sorted({g.model for g in given if g.model is not None})
    if len(models) > 1:
        raise InputError(f"the file: serves several models ({', '.join(models)}); give one deployment at a time")
    engine = catalog.get(Engine, "vllm")
    stamp = next((c.stamp for c in commands if c.stamp is not None), None)
    notes = [f"{c.where}: {note}" for c, g in zip(commands, given, strict=True) for note in g.notes]
    fields, open_fields = _fields(commands, given, engine, catalog, notes)
    from_stamp, undetermined = _fill_from_plan(fields, open_fields, _own_plan(stamp, beside, fields, notes), notes)
    lengths = [g.flags["--max-model-len"] for g in given if isinstance(g.flags.get("--max-model-len"), int)]
    return Imported(
        decision=_decision(fields),
        model=models[0] if models else None,
        version=given[0].version,
        context_tokens=max((n for n in lengths if n > 0), default=None),
        gpus=gpus,
        flags=_main(commands, given).flags,
        from_stamp=tuple(from_stamp),
        undetermined=tuple(undetermined),
        notes=tuple(dict.fromkeys(notes)),
        unread=tuple(dict.fromkeys(row for g in given for row in g.unread)),
    )


def _fields(
    commands: Sequence[Command], given: Sequence[Given], engine: Engine, catalog: Catalog, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the flags say, by dotted field, and the fields that they leave open."""
    fields: dict[str, Any] = {"engine": "vllm"}
    open_fields: list[str] = []
    first = given[0]
    _hidden(first, engine, catalog, fields, open_fields)
    _weights(first, fields, open_fields, notes)
    roles = {c.role for c in commands}
    transfers = any(set(_connectors(g)) & set(_TRANSFER) for g in given)
    _offload(_holder(commands, given, transfers), fields, open_fields)
    fields["serving"] = "disaggregated" if transfers else "aggregated"
    if not transfers:
        _check_one_kind(given)
        _pool("", commands, given, fields, open_fields)
        return fields, open_fields
    for role in ("prefill", "decode"):
        own = [(c, g) for c, g in zip(commands, given, strict=True) if c.role == role]
        if own:
            _pool(f"pools.{role}.", [c for c, _ in own], [g for _, g in own], fields, open_fields)
        else:
            open_fields.append(f"pools.{role}")
            notes.append(f"the {role} pool isn't in the file; give a compose file or manifests with both pools")
    if None in roles:
        notes.append(
            "a server passes its caches on, but neither its name nor a stamp says whether it prefills or decodes"
        )
    return fields, open_fields


def _check_one_kind(given: Sequence[Given]) -> None:
    """Refuse servers of different size side by side, which are no replicas of each other."""
    sizes = {
        (_whole(g.flags, "--tensor-parallel-size", 1), _whole(g.flags, "--pipeline-parallel-size", 1)) for g in given
    }
    if len(sizes) > 1:
        told = " and ".join(f"tp {tp}, pp {pp}" for tp, pp in sorted(sizes))
        raise InputError(
            f"the file starts several kinds of replicas ({told}), and one kind is read at a time; give a file with one "
            "of them, or price its plan.json with plan verify"
        )


def _main(commands: Sequence[Command], given: Sequence[Given]) -> Given:
    """Which server answers: one of the decode pool where there are two, whatever their order in the file."""
    decoding = (g for c, g in zip(commands, given, strict=True) if c.role == "decode")
    return next(decoding, given[-1])


def _holder(commands: Sequence[Command], given: Sequence[Given], transfers: bool) -> Given | None:
    """Where sessions wait between rounds: in the prefill pool where there are two; None where it isn't in the file."""
    prefilling = (g for c, g in zip(commands, given, strict=True) if c.role == "prefill")
    return next(prefilling, None if transfers else given[-1])


def _pool(
    prefix: str, commands: Sequence[Command], given: Sequence[Given], fields: dict[str, Any], open_fields: list[str]
) -> None:
    flags = given[0].flags
    tp = _whole(flags, "--tensor-parallel-size", 1)
    data = _whole(flags, "--data-parallel-size", 1)
    fields[f"{prefix}parallel.tp"] = tp
    fields[f"{prefix}parallel.pp"] = _whole(flags, "--pipeline-parallel-size", 1)
    fields[f"{prefix}parallel.dcp"] = _whole(flags, "--decode-context-parallel-size", 1)
    fields[f"{prefix}parallel.pcp"] = _whole(flags, "--prefill-context-parallel-size", 1)
    fields[f"{prefix}parallel.ep"] = tp * data if flags.get("--enable-expert-parallel") else 1
    instances = sum(command.replicas for command in commands)
    fields[f"{prefix}parallel.replicas"] = instances * data
    if commands[0].where.startswith("command "):
        open_fields.append(f"{prefix}parallel.replicas")  # a script starts one instance, how often isn't in it
    sequences = flags.get("--max-num-seqs")
    if isinstance(sequences, int):
        fields[f"{prefix}batch.decode_sequences"] = max(1, sequences - 1)
    else:
        open_fields.append(f"{prefix}batch.decode_sequences")
    _chunk(prefix, flags, fields, open_fields)
    open_fields += [f"{prefix}{name}" for name in _STAMPED_ONLY]


def _chunk(prefix: str, flags: Mapping[str, Any], fields: dict[str, Any], open_fields: list[str]) -> None:
    batched = flags.get("--max-num-batched-tokens")
    threshold = flags.get("--long-prefill-token-threshold", 0)
    fields[f"{prefix}batch.prefill_throttled"] = isinstance(threshold, int) and threshold > 0
    if flags.get("--enable-chunked-prefill") is False:
        fields[f"{prefix}batch.prefill_chunk_tokens"] = None
    elif isinstance(batched, int):
        decoding = fields.get(f"{prefix}batch.decode_sequences", 1)
        fields[f"{prefix}batch.prefill_chunk_tokens"] = max(1, batched - decoding)
    else:
        open_fields.append(f"{prefix}batch.prefill_chunk_tokens")


def _hidden(given: Given, engine: Engine, catalog: Catalog, fields: dict[str, Any], open_fields: list[str]) -> None:
    option = str(given.flags.get("--kv-cache-dtype", "auto"))
    option = {"fp8": "fp8_e4m3"}.get(option, option)
    plain = option in ("auto", "bfloat16", "bf16", "float16")
    point = next((f.technique_point for f in engine.kv_formats if f.option == option), "kv_bf16" if plain else None)
    if point is None:
        open_fields.append("compression.hidden")
    elif point == "kv_bf16":
        fields["compression.hidden"] = Choice()
    else:
        technique, found = catalog.point(point)
        fields["compression.hidden"] = Choice(technique=technique.id, strength=found.strength, point=found.id)


def _weights(given: Given, fields: dict[str, Any], open_fields: list[str], notes: list[str]) -> None:
    method = given.flags.get("--quantization")
    name = (given.model or "").lower()
    if method is not None and str(method) in WEIGHTS:
        fields["weights"] = WEIGHTS[str(method)]
        return
    marks = {"awq": "awq4", "gptq": "gptq4", "fp8": "fp8", "w4a16": "gptq4", "w8a16": "gptq8", "w8a8": "int8_w8a8"}
    marked = next((weights for mark, weights in marks.items() if mark in name), None)
    if method is not None and marked is None:
        open_fields.append("weights")
        return
    fields["weights"] = marked or "bf16"
    if marked:
        notes.append(f"weights taken to be {marked} from the model's name")


def _offload(given: Given | None, fields: dict[str, Any], open_fields: list[str]) -> None:
    if given is None:
        fields["offload.policy"], fields["offload.tier"] = "none", None
        open_fields += ["offload.policy", "offload.tier"]
        return
    size = given.flags.get("--kv-offloading-size")
    if size is not None or set(_connectors(given)) & set(_OFFLOAD):
        on_disk = "TieringOffloadingSpec" in str(given.flags.get("--kv-transfer-config", ""))
        fields["offload.policy"], fields["offload.tier"] = "swap", "nvme" if on_disk else "ddr"
    else:
        recompute = given.flags.get("--enable-prefix-caching") is False
        fields["offload.policy"], fields["offload.tier"] = ("recompute" if recompute else "none"), None


def _connectors(given: Given) -> list[str]:
    """Return the KV connectors of a server, those inside a MultiConnector too."""
    try:
        config = json.loads(str(given.flags.get("--kv-transfer-config", "{}")))
        inner = config.get("kv_connector_extra_config", {}).get("connectors", [])
        return [str(c.get("kv_connector")) for c in [config, *inner]]
    except (ValueError, AttributeError, TypeError):
        return []


def _whole(flags: Mapping[str, Any], name: str, default: int) -> int:
    value = flags.get(name, default)
    return value if isinstance(value, int) and value >= 1 else default


def _own_plan(stamp: str | None, beside: Decision | None, fields: dict[str, Any], notes: list[str]) -> Service | None:
    """Return the service of the plan beside the file that the file was written for; note where it isn't there."""
    if stamp is None:
        return None
    if beside is None:
        notes.append(
            f"the file was written for plan {stamp}, whose plan.json isn't beside it or one folder up; only the flags "
            "were used"
        )
        return None
    found = services_hash(beside.services)
    if found != stamp:
        notes.append(f"the plan.json beside the file is plan {found}, the file is of {stamp}; only flags were used")
        return None
    alike = [one for one in beside.services if len(beside.services) == 1 or _is_split_so(one, fields)]
    if len(alike) != 1:
        notes.append(f"the plan.json beside the file has {len(alike)} kinds that are split so; only flags were used")
        return None
    return alike[0]


def _is_split_so(service: Service, fields: dict[str, Any]) -> bool:
    """Whether a service's replicas are split as the flags say."""
    sizes = service.parallel.model_dump(exclude={"replicas"})
    return all(fields.get(f"parallel.{name}", size) == size for name, size in sizes.items())


def _fill_from_plan(
    fields: dict[str, Any], open_fields: list[str], planned: Service | None, notes: list[str]
) -> tuple[list[str], list[str]]:
    """Fill open fields from the file's own plan; note where a flag says something else than it."""
    if planned is None:
        return [], list(dict.fromkeys(open_fields))
    filled = []
    for name in dict.fromkeys(open_fields):
        fields[name] = _at(planned, name)
        filled.append(name)
    for dimension in ("layer", "head", "token", "attention"):
        fields[f"compression.{dimension}"] = getattr(planned.compression, dimension)
    if planned.weights == "native" and fields.get("weights") == "bf16":
        fields["weights"] = "native"  # the checkpoint's own, which no flag names
        filled.append("weights")
    if planned.offload.tier == "nvme" and fields.get("offload.policy") == "swap":
        fields["offload.tier"] = "nvme"
        filled.append("offload.tier")
    for name, value in fields.items():
        said = _at(planned, name)
        if name not in filled and said is not None and not _same(said, value):
            notes.append(f"{name}: the flags say {_shown(value)}, its plan {_shown(said)}; the flags are taken")
    return filled, []


def _same(planned: Any, read: Any) -> bool:
    if isinstance(planned, Choice) and isinstance(read, Choice):
        return (planned.point or planned.technique) in (
            read.point,
            read.technique,
        ) or planned.technique == read.technique
    return bool(planned == read)


def _shown(value: Any) -> str:
    return (value.point or value.technique) if isinstance(value, Choice) else str(value)


def _at(decision: Service, name: str) -> Any:
    found: Any = decision
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _decision(fields: Mapping[str, Any]) -> Service:
    compression = {n.partition(".")[2]: v for n, v in fields.items() if n.startswith("compression.")}
    offload = OffloadChoice(policy=fields["offload.policy"], tier=fields["offload.tier"])
    common: dict[str, Any] = {
        "engine": fields["engine"],
        "weights": fields.get("weights", "bf16"),
        "compression": Compression(**compression),
        "offload": offload,
        "serving": fields["serving"],
    }
    if fields["serving"] == "aggregated":
        return Service(**common, parallel=_part(fields, "parallel.", Parallel), batch=_part(fields, "batch.", Batch))
    return Service(**common, pools=Pools(prefill=_pool_of(fields, "prefill"), decode=_pool_of(fields, "decode")))


def _pool_of(fields: Mapping[str, Any], role: str) -> Pool:
    whole = fields.get(f"pools.{role}")
    if isinstance(whole, Pool):
        return whole
    prefix = f"pools.{role}."
    return Pool(parallel=_part(fields, f"{prefix}parallel.", Parallel), batch=_part(fields, f"{prefix}batch.", Batch))


def _part(fields: Mapping[str, Any], prefix: str, model: type[M]) -> M:
    return model(**{n.removeprefix(prefix): v for n, v in fields.items() if n.startswith(prefix)})
