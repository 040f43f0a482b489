"""Plans of one service, flat: a decision with one kind of replica, and figures by name, for tests that change some.

Flat content is what schema version 1 wrote, so `plan_of` reads it as any file of that version is read.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from catalog.load import Catalog, built_in_directory
from planner.decision import Decision
from planner.files import document_json, document_of, read_document
from planner.plan import Document
from planner.version_one import PlanOfVersionOne, _Metrics

PLANS = Path(__file__).parent / "golden" / "emit" / "plans"
TIMES = {"ttft_cold_s": "ttft_full_s", "ttft_warm_s": "warm_ttft_full_s", "tpot_s": "itl_full_s"}
"""Version 1's name of a time -> the name now."""


@cache
def shipped_catalog() -> Catalog:
    """The catalog without overlays, read once a run."""
    return Catalog([built_in_directory()])


def flat_plan(name: str) -> dict[str, Any]:
    """A golden plan's content, flat."""
    return flat(read_document((PLANS / f"{name}.json").read_text(encoding="utf-8"), name))


def flat(document: Document) -> dict[str, Any]:
    """A plan's content, flat."""
    service, metrics = document.service, document.metrics
    assert service is not None
    assert metrics is not None
    figures: dict[str, Any] = {}
    for name in _Metrics.model_fields:
        if name == "hbm_bytes_per_gpu":
            figures[name] = metrics.hbm_bytes_per_gpu.model_dump(mode="json")
        elif name != "tpot_mean_s":
            figures[name] = metrics.named(TIMES.get(name, name))
    for count in ("concurrency", "gpus_used", "gpus_idle"):
        figures[count] = int(figures[count])
    whole = document_json(document)
    return {
        "schema_version": 1,
        "status": whole["status"],
        "request": whole["request"],
        "decision": service.model_dump(mode="json"),
        "metrics": figures,
        "provenance": {**whole["provenance"], "warnings": whole["warnings"]},
    }


def plan_of(content: dict[str, Any]) -> Document:
    """The plan that content is, flat or as `planner.files.document_json` returns it."""
    if content["schema_version"] != 1:
        return document_of(content, "plan")
    return PlanOfVersionOne.model_validate(content).document()


def service_in(decision: dict[str, Any]) -> dict[str, Any]:
    """The only service of a decision's JSON values."""
    return Decision.model_validate(decision).service.model_dump(mode="json")


def told(plan: dict[str, Any], name: str) -> Any:
    """A number of a plan's JSON values by the name that constraints and objectives give it."""
    metrics = Document.model_validate(plan).metrics
    assert metrics is not None
    return metrics.named(name)
