"""From an engine's flags to the fields of a decision, and which of them the flags leave open."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from catalog.errors import UnknownEntryError
from catalog.load import Catalog
from catalog.precision import precision_in_name, weights_of_method
from catalog.schema import Engine, Technique
from planner.emit.tables import TABLES
from planner.errors import InputError
from planner.importing.command import Command
from planner.importing.flags import Given
from planner.importing.model import is_native
from planner.service import Choice

TRANSFER = ("NixlConnector", "NixlPullConnector", "NixlPushConnector", "MooncakeConnector", "MoRIIOConnector")
_TRANSFER_WORDS = ("Nixl", "Mooncake", "MoRIIO", "P2pNccl", "PyNccl")
_OFFLOAD = ("OffloadingConnector", "SimpleCPUOffloadConnector", "LMCacheConnectorV1", "LMCacheMPConnector")
_LMCACHE = ("LMCacheConnectorV1", "LMCacheMPConnector")
_STAMPED_ONLY = ("batch.resident_sessions",)
"""Fields that no flag expresses."""
_PLAIN_KV = {"auto", "bfloat16", "bf16", "float16", "f16", "f16/f16", "f32/f32", "0"}
_OWN_LAYOUT = {"fp8_ds_mla"}
"""KV formats that are a model's own, and priced with it."""
_DIVISION = ("tp", "pp", "dcp", "pcp", "data", "experts_spread", "ep", "attention_data", "replicas")
_LARGEST_BLOCK = 256
"""Tokens to which engines round a window up, at most [tokens]."""
_ROLES = {"kv_producer": "prefill", "kv_consumer": "decode"}


def fields_of(
    commands: Sequence[Command], given: Sequence[Given], engine: Engine, catalog: Catalog, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the flags say, by dotted field, and the fields that they leave open."""
    fields: dict[str, Any] = {"engine": engine.id}
    open_fields: list[str] = []
    first = given[0]
    _hidden(first, engine, catalog, fields, open_fields)
    _token(first, catalog, fields)
    _weights(first, catalog, fields, open_fields, notes)
    roles = [role_of(c, g) for c, g in zip(commands, given, strict=True)]
    transfers = any(passes_on(g) for g in given)
    _offload(_holder(roles, given, transfers), fields, open_fields)
    fields["serving"] = "disaggregated" if transfers else "aggregated"
    if not transfers:
        _check_one_kind(given)
        _pool("", commands, given, fields, open_fields)
        return fields, open_fields
    for role in ("prefill", "decode"):
        own = [(c, g) for c, g, found in zip(commands, given, roles, strict=True) if found == role]
        if own:
            _pool(f"pools.{role}.", [c for c, _ in own], [g for _, g in own], fields, open_fields)
        else:
            open_fields.append(f"pools.{role}")
            notes.append(f"the {role} pool isn't in the file; give a compose file or manifests with both pools")
    if None in roles:
        notes.append(
            "a server passes its caches on, but neither its name, its kv_role nor a stamp says whether it prefills or "
            "decodes"
        )
    return fields, open_fields


def role_of(command: Command, given: Given) -> str | None:
    """Return the pool of a server: as its flags say, else as its name does."""
    said = str(given.said.get("role") or "").lower()
    if said in ("prefill", "decode"):
        return said
    roles = [_ROLES[role] for role in _kv_roles(given) if role in _ROLES]
    return roles[0] if roles else command.role


def passes_on(given: Given) -> bool:
    """Whether a server hands its caches to another pool, or takes them from one."""
    if str(given.said.get("role") or "").lower() in ("prefill", "decode"):
        return True
    connectors = connectors_of(given)
    if any(name in TRANSFER for name in connectors):
        return True
    known = any(word in name for name in connectors for word in _TRANSFER_WORDS)
    return known or any(role in _ROLES for role in _kv_roles(given))


def _check_one_kind(given: Sequence[Given]) -> None:
    """Refuse servers of different size side by side, which are no replicas of each other."""
    sizes = {(_number(g, "tp"), _number(g, "pp")) for g in given}
    if len(sizes) > 1:
        told = " and ".join(f"tp {tp}, pp {pp}" for tp, pp in sorted(sizes))
        raise InputError(
            f"the file starts several kinds of replicas ({told}), and one kind is read at a time; give a file with one "
            "of them, or price its plan.json with plan verify"
        )


def main_of(commands: Sequence[Command], given: Sequence[Given]) -> Given:
    """Which server answers: one of the decode pool where there are two, whatever their order in the file."""
    decoding = (g for c, g in zip(commands, given, strict=True) if role_of(c, g) == "decode")
    return next(decoding, given[-1])


def _holder(roles: Sequence[str | None], given: Sequence[Given], transfers: bool) -> Given | None:
    """Where sessions wait between rounds: in the prefill pool where there are two; None where it isn't in the file."""
    prefilling = (g for role, g in zip(roles, given, strict=True) if role == "prefill")
    return next(prefilling, None if transfers else given[-1])


def _pool(
    prefix: str, commands: Sequence[Command], given: Sequence[Given], fields: dict[str, Any], open_fields: list[str]
) -> None:
    first = given[0]
    tp, data, replicas = _division(first)
    fields[f"{prefix}parallel.tp"] = tp
    for name in ("pp", "dcp", "pcp"):
        fields[f"{prefix}parallel.{name}"] = _number(first, name)
    spread = bool(first.said.get("experts_spread"))
    fields[f"{prefix}parallel.ep"] = tp * data if spread else _number(first, "ep")
    instances = sum(command.replicas for command in commands)
    fields[f"{prefix}parallel.replicas"] = max(1, instances * data * replicas)
    open_fields += [
        f"{prefix}parallel.{'tp' if n in ('data', 'replicas') else n}" for n in _DIVISION if n in first.unset
    ]
    if not commands[0].counted:
        open_fields.append(f"{prefix}parallel.replicas")  # a script starts one instance, how often isn't in it
    _batch(prefix, first, fields, open_fields)


def _division(given: Given) -> tuple[int, int, int]:
    """Return tensor parallelism of one rank, ranks that share experts, and replicas beside each other."""
    tp, data, replicas = _number(given, "tp"), _number(given, "data"), _number(given, "replicas")
    if given.engine == "sglang" and given.said.get("attention_data") and data == 1:
        return max(1, tp // replicas), replicas, 1  # --dp-size then counts ranks inside tp
    if given.engine == "tensorrt-llm" and given.said.get("attention_data"):
        return 1, tp, 1  # every GPU is a rank of its own for attention
    if given.engine == "llama.cpp":
        return 1, 1, 1  # over all the GPUs that it sees
    return tp, data, replicas


def _batch(prefix: str, given: Given, fields: dict[str, Any], open_fields: list[str]) -> None:
    said = given.said
    slots = said.get("slots")
    if isinstance(slots, int):
        fields[f"{prefix}batch.resident_sessions"] = slots
    else:
        open_fields += [f"{prefix}{name}" for name in _STAMPED_ONLY]
    sequences = said.get("sequences")
    if isinstance(sequences, int):
        fields[f"{prefix}batch.decode_sequences"] = max(1, sequences - 1)
    else:
        open_fields.append(f"{prefix}batch.decode_sequences")
    _chunk(prefix, given, fields, open_fields)


def _chunk(prefix: str, given: Given, fields: dict[str, Any], open_fields: list[str]) -> None:
    said = given.said
    threshold = said.get("throttle_tokens", 0)
    fields[f"{prefix}batch.prefill_throttled"] = isinstance(threshold, int) and threshold > 0
    name = f"{prefix}batch.prefill_chunk_tokens"
    table = TABLES[given.engine]
    chunked = said.get("chunked", table.row("chunked").default if table.has("chunked") else True)
    batched, chunk = said.get("batched_tokens"), said.get("chunk_tokens")
    if isinstance(batched, int):
        chunk = max(1, batched - fields.get(f"{prefix}batch.decode_sequences", 1))
    if chunked is False or (isinstance(chunk, int) and chunk < 0):
        fields[name] = None
    elif isinstance(chunk, int):
        fields[name] = None if _is_whole(given, chunk) else chunk
    else:
        open_fields.append(name)


def _is_whole(given: Given, chunk: int) -> bool:
    """Whether a chunk is as long as any prompt, for engines that have no other way to say so."""
    window = said_window(given)
    if window is None or TABLES[given.engine].has("chunked") or given.engine == "sglang":
        return False
    return chunk > window - _LARGEST_BLOCK  # a slot's window is rounded up to whole blocks


def said_window(given: Given) -> int | None:
    """Return the longest session that a server takes, where its flags say it [tokens]."""
    window = given.said.get("window_tokens")
    if window is None and isinstance(given.said.get("context_of_all_slots"), int):
        slots = given.said.get("slots")
        window = given.said["context_of_all_slots"] // slots if isinstance(slots, int) and slots > 0 else None
    return window if isinstance(window, int) and not isinstance(window, bool) and window > 0 else None


def _hidden(given: Given, engine: Engine, catalog: Catalog, fields: dict[str, Any], open_fields: list[str]) -> None:
    option = _kv_option(given)
    name = "compression.hidden"
    if "kv_option" in given.unset:
        open_fields.append(name)
        return
    found = next((f.technique_point for f in engine.kv_formats if f.option == option), None)
    point = found or ("kv_bf16" if option in _PLAIN_KV | _OWN_LAYOUT else None)
    if point is None:
        open_fields.append(name)
    elif point == "kv_bf16":
        fields[name] = Choice()
    else:
        technique, strength = catalog.point(point)
        fields[name] = Choice(technique=technique.id, strength=strength.strength, point=strength.id)


def _kv_option(given: Given) -> str:
    """Return the KV format as the catalog's engine spells it."""
    if TABLES[given.engine].has("kv_k"):
        k_type, v_type = str(given.said.get("kv_k", "f16")), str(given.said.get("kv_v", "f16"))
        return k_type if k_type == v_type else f"{k_type}/{v_type}"
    return str(given.said.get("kv_option", "auto"))


def _token(given: Given, catalog: Catalog, fields: dict[str, Any]) -> None:
    """Read sparse attention that an engine's settings ask for."""
    algorithm, budget = given.said.get("sparse_algorithm"), given.said.get("sparse_budget")
    if algorithm is None or budget is None:
        return
    try:
        technique = catalog.get(Technique, {"rocket": "rocketkv"}.get(str(algorithm), str(algorithm)))
    except UnknownEntryError:
        return
    point = next((p for p in technique.points if p.strength == budget), None)
    fields["compression.token"] = Choice(
        technique=technique.id, strength=float(budget), point=point.id if point is not None else None
    )


def _weights(given: Given, catalog: Catalog, fields: dict[str, Any], open_fields: list[str], notes: list[str]) -> None:
    method = given.said.get("weights")
    name = given.model or ""
    named = precision_in_name(name)
    if "weights" in given.unset:
        open_fields.append("weights")
        return
    if method is not None and method not in ("compressed-tensors", "hf"):
        found = weights_of_method(str(method), name)
        if found is not None:
            fields["weights"] = found
            return
        if named is None or named.weights is None:
            open_fields.append("weights")
            notes.append(f"weights: {method} isn't a format that is priced")
            return
    ready = catalog.checkpoint(name)
    if ready is not None and ready[1].point is not None:
        fields["weights"] = ready[1].point.removeprefix("w_")
    elif named is None:
        fields["weights"] = "native" if is_native(given.model, catalog) else "bf16"
    elif named.weights is None:
        open_fields.append("weights")
        notes.append(f"weights: {named.said} by the checkpoint's name, which isn't a format that is priced")
    else:
        fields["weights"] = named.weights
        notes.append(f"weights taken to be {named.weights} from the model's name")


def _offload(given: Given | None, fields: dict[str, Any], open_fields: list[str]) -> None:
    if given is None:
        fields["offload.policy"], fields["offload.tier"] = "none", None
        open_fields += ["offload.policy", "offload.tier"]
        return
    tier = _tier(given)
    said = given.said
    table = TABLES[given.engine]
    reuses = said.get("reuses_prefixes", table.row("reuses_prefixes").default if table.has("reuses_prefixes") else True)
    recompute = reuses is False or said.get("no_reuse") is True
    fields["offload.policy"] = "swap" if tier is not None else "recompute" if recompute else "none"
    fields["offload.tier"] = tier
    if tier is None and not table.has("reuses_prefixes") and not table.has("no_reuse"):
        open_fields.append("offload.policy")  # whether caches are kept between rounds isn't a flag
    uses_lmcache = bool(said.get("lmcache") or set(connectors_of(given)) & set(_LMCACHE))
    if uses_lmcache and given.below is None:
        open_fields.append("offload.tier")


def _tier(given: Given) -> str | None:
    """Return the tier below HBM that a server keeps caches in, None if it has none."""
    said = given.said
    if given.engine == "vllm":
        if said.get("tier_size") is None and not set(connectors_of(given)) & set(_OFFLOAD):
            return None
        if set(connectors_of(given)) & set(_LMCACHE):
            return given.below or "ddr"
        return "nvme" if "TieringOffloadingSpec" in str(said.get("transfer", "")) else "ddr"
    if given.engine == "sglang":
        if said.get("keeps_below"):
            return "nvme" if said.get("tier_storage") == "file" else "ddr"
        return (given.below or "ddr") if said.get("lmcache") else None
    size = said.get("tier_size")
    if said.get("disk_bytes"):
        return "nvme"
    return "ddr" if isinstance(size, int | float) and size > 0 else None


def connectors_of(given: Given) -> list[str]:
    """Return the KV connectors of a server, those inside a MultiConnector too."""
    return [str(one.get("kv_connector")) for one in _transfers(given) if one.get("kv_connector")]


def _kv_roles(given: Given) -> list[str]:
    return [str(one.get("kv_role")) for one in _transfers(given)]


def _transfers(given: Given) -> list[Mapping[str, Any]]:
    try:
        config = json.loads(str(given.said.get("transfer") or "{}"))
        inner = (config.get("kv_connector_extra_config") or {}).get("connectors", [])
        return [one for one in (config, *inner) if isinstance(one, dict)]
    except (ValueError, AttributeError, TypeError):
        return []


def _number(given: Given, name: str) -> int:
    """Return a count that the flags say, or the engine's own."""
    value = given.said.get(name, 1)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else 1
