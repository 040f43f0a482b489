"""What the catalog says, for people and programs: key facts per entry in SI units, one entry, its schema.

Nothing here is computed that the files don't say, except what a model's ``config.json`` implies.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from catalog.errors import UnknownEntryError
from catalog.load import Catalog
from catalog.schema import (
    KINDS,
    Checkpoints,
    Engine,
    EngineRule,
    Entry,
    Hardware,
    Linear,
    Measurement,
    Model,
    Node,
    Price,
    Rule,
    Selector,
    Technique,
)

CURVE_TOKENS = (4_000, 128_000, 1_000_000)
"""Contexts at which a technique's storage and reads are shown."""

_SPELLINGS = {
    "gpu": "hardware",
    "gpus": "hardware",
    **{kind: kind for kind in KINDS},
    **{kind.removesuffix("s"): kind for kind in KINDS},
}


def canonical_kind(kind: str) -> str:
    """Return a kind of entry as the catalog's folders spell it; singulars and ``gpu`` are welcome.

    Raises
    ------
    UnknownEntryError
        If there is no such kind; names them all.

    Examples
    --------
    >>> canonical_kind("model"), canonical_kind("GPU")
    ('models', 'hardware')
    """
    canonical = _SPELLINGS.get(kind.strip().lower())
    if canonical is None:
        raise UnknownEntryError("kind of entry", kind, KINDS, f"(one of {', '.join(KINDS)})")
    return canonical


def summaries(catalog: Catalog, kind: str) -> list[dict[str, Any]]:
    """Return the key facts of every entry of a kind, by id, in SI units with the unit in the name.

    Raises
    ------
    UnknownEntryError
        If there is no such kind.
    CatalogError
        If the files of this kind have problems.
    """
    return [summary(entry) for entry in catalog.all(KINDS[canonical_kind(kind)])]


def summary(entry: Entry) -> dict[str, Any]:
    """Return the key facts of one entry, in SI units with the unit in the name."""
    return {
        "id": entry.id,
        "name": entry.name,
        "aliases": list(entry.aliases),
        **_FACTS[type(entry)](entry),
        "checked": entry.checked.isoformat(),
        "provenance": sorted({source.provenance for source in entry.sources}),
    }


def describe_entry(catalog: Catalog, kind: str, name: str) -> dict[str, Any]:
    """Return one entry as its file says it, the file's path, and what follows in SI units (``derived``).

    Raises
    ------
    UnknownEntryError
        If there is no such kind or entry.
    CatalogError
        If the files of this kind have problems.
    """
    schema = KINDS[canonical_kind(kind)]
    entry = catalog.get(schema, name)
    written = catalog.as_written(schema, name)
    derived = {key: value for key, value in _FACTS[schema](entry).items() if written.get(key) != value}
    if isinstance(entry, Technique):
        derived["curve"] = technique_curve(entry)
    return {"file": str(catalog.file_of(schema, name)), **written, "derived": derived}


def technique_curve(technique: Technique) -> list[dict[str, Any]]:
    """Return a technique's points: what it stores and reads at several contexts, and its prior.

    Ratios are of the uncompressed amount; losses are percent of the score.
    """
    return [
        {
            "id": point.id,
            "strength": point.strength,
            "storage_ratio": {str(tokens): _ratio(point.storage, tokens) for tokens in CURVE_TOKENS},
            "reads_ratio": {str(tokens): _ratio(point.reads, tokens) for tokens in CURVE_TOKENS},
            "prefill_linear_ratio": point.prefill.linear,
            "prefill_attention_ratio": point.prefill.attention,
            "loss_mean_pct": point.prior.mean_pct if point.prior else None,
            "loss_std_pct": point.prior.std_pct if point.prior else None,
            "confidence": point.prior.confidence if point.prior else None,
        }
        for point in technique.points
    ]


def _ratio(line: Linear, tokens: int) -> float:
    return round(min(1.0, line.slope + line.const_tokens / tokens), 6)


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of the files of one kind, for editors and other programs.

    Raises
    ------
    UnknownEntryError
        If there is no such kind.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **KINDS[canonical_kind(kind)].model_json_schema(),
    }


def stale(catalog: Catalog, days: int, today: dt.date) -> list[dict[str, Any]]:
    """Return the entries that were last checked ``days`` or more days ago, the oldest first.

    Raises
    ------
    CatalogError
        If files have problems.
    """
    rows = [
        {
            "kind": kind,
            "id": entry.id,
            "checked": entry.checked.isoformat(),
            "age_days": (today - entry.checked).days,
            "file": str(catalog.file_of(schema, entry.id)),
        }
        for kind, schema in KINDS.items()
        for entry in catalog.all(schema)
        if (today - entry.checked).days >= days
    ]
    return sorted(rows, key=lambda row: (row["checked"], row["kind"], row["id"]))


def _hardware(entry: Hardware) -> dict[str, Any]:
    return {
        "vendor": entry.vendor,
        "generation": entry.generation,
        "compute_capability": entry.compute_capability,
        "form_factor": entry.form_factor,
        "hbm_bytes": entry.hbm,
        "hbm_bandwidth_bytes_per_s": entry.hbm_bandwidth,
        "flop_per_s": entry.flops.model_dump(exclude_none=True),
        "gpu_link_bytes_per_s": entry.gpu_link.effective if entry.gpu_link else None,
        "pcie_bytes_per_s": entry.pcie.effective,
        "tdp_watts": entry.tdp,
    }


def _node(entry: Node) -> dict[str, Any]:
    return {
        "hardware": entry.hardware,
        "gpus": entry.gpus,
        "gpu_topology": entry.gpu_topology,
        "gpus_per_pcie_uplink": entry.gpus_per_pcie_uplink,
        "host_memory_bytes": entry.host_memory,
        "nvme_bytes": entry.nvme.capacity if entry.nvme else None,
        "nic_bytes_per_s": entry.nic.bandwidth if entry.nic else None,
        "default_for": list(entry.default_for),
    }


def _model(entry: Model) -> dict[str, Any]:
    from catalog.architecture import read_config

    model = read_config(entry.config)
    return {
        "hf_id": entry.hf_id,
        "context_tokens": entry.context_tokens,
        "trained_tokens": entry.trained_tokens,
        "extension": entry.extension.method,
        "config_grade": entry.config_grade,
        "total_params": model.total_params,
        "active_params": model.active_params,
        "layers": len(model.layers),
        "attention": sorted(model.attention_kinds),
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "kv_bytes_at_context": model.kv_bytes(entry.context_tokens),
        "state_bytes": sum(layer.state_bytes for layer in model.layers),
        "native_weight_bits": model.native_weight_bits,
    }


def _technique(entry: Technique) -> dict[str, Any]:
    return {
        "dimension": entry.dimension,
        "tier": entry.tier,
        "training": entry.training,
        "points": [point.id for point in entry.points],
        "shortlisted": [point.id for point in entry.points if point.shortlisted],
        "engines": sorted({support.engine for support in entry.engines if support.status == "ships"}),
    }


def _engine(entry: Engine) -> dict[str, Any]:
    return {
        "version": entry.version,
        "compute_capabilities": list(entry.compute_capabilities),
        "attention": sorted(entry.attention),
        "kv_formats": [form.option for form in entry.kv_formats],
        "weight_formats": [form.technique_point for form in entry.weight_formats],
        "offload_tiers": sorted({offload.tier for offload in entry.offload}),
        "hbm_utilisation": entry.hbm_utilisation,
        "kv_block_tokens": entry.kv_block_tokens,
    }


def _checkpoints(entry: Checkpoints) -> dict[str, Any]:
    return {
        "model": entry.model,
        "formats": sorted({ready.point or ready.algorithm or "unknown" for ready in entry.checkpoints}),
        "checkpoints": [ready.hub_id for ready in entry.checkpoints],
    }


def _engine_rule(entry: EngineRule) -> dict[str, Any]:
    return {
        "engine": entry.engine,
        "verdict": entry.verdict,
        "when": entry.when.model_dump(mode="json", exclude_defaults=True),
        "evidence": entry.evidence,
        "why": entry.why,
    }


def _price(entry: Price) -> dict[str, Any]:
    return {
        "provider": entry.provider,
        "hardware": entry.hardware,
        "node": entry.node,
        "gpus": entry.gpus,
        "usd_per_gpu_hour": entry.usd_per_gpu_hour,
        "kind": entry.kind,
        "observed": entry.observed.isoformat(),
        "region": entry.region,
    }


def _rule(entry: Rule) -> dict[str, Any]:
    return {"verdict": entry.verdict, "a": _selected(entry.a), "b": _selected(entry.b), "why": entry.why}


def _measurement(entry: Measurement) -> dict[str, Any]:
    return {
        "hardware": entry.hardware,
        "engine": entry.engine,
        "engine_version": entry.engine_version,
        "operation": entry.operation,
        "weights": entry.weights,
        "mean_error": entry.error.mape if entry.error else None,
        "held_out_points": entry.error.points if entry.error else None,
    }


def _selected(selector: Selector) -> dict[str, Any]:
    return selector.model_dump(mode="json", exclude_defaults=True)


_FACTS: dict[type[Entry], Callable[[Any], dict[str, Any]]] = {
    Hardware: _hardware,
    Node: _node,
    Model: _model,
    Checkpoints: _checkpoints,
    Technique: _technique,
    Engine: _engine,
    EngineRule: _engine_rule,
    Price: _price,
    Rule: _rule,
    Measurement: _measurement,
}
"""Schema of a kind -> its key facts beside what all entries have."""
