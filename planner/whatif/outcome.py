"""One point of a sweep: what planning a request came to, whether that was a plan or not.

An outcome is also one line of JSON: between processes, in a journal.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from catalog.errors import CatalogError, UnknownEntryError
from catalog.load import Catalog, built_in_directory
from planner import __version__
from planner.errors import InputError, PlannerError
from planner.files import document_json, document_of
from planner.plan import Document
from planner.request import Request
from planner.search.solver import Settings

Status = Literal["optimal", "feasible", "infeasible", "out of time", "error"]

PLANNED: tuple[Status, ...] = ("optimal", "feasible")
"""Statuses that come with a plan."""


@dataclass(frozen=True)
class Outcome:
    """What planning one request came to."""

    index: int
    """Place of the request among those that were given, from 0."""
    request: Request
    status: Status
    document: Document | None = None
    """The plan, or the explanation why there is none; None where nothing could be planned."""
    reason: str | None = None
    """Why there is no plan; None where there is one."""
    cpu_s: float = 0.0
    """Processor time that it took, all threads [s]."""

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self.status in PLANNED


@dataclass(frozen=True)
class Task:
    """What all requests of a sweep share, in a form that travels to another process."""

    overlays: tuple[str, ...]
    """Directories over the built-in facts, each process's own."""
    catalog_hash: str
    settings: Settings
    program: str = __version__
    explained: bool = True
    """As `planner.pipeline.make_plan` takes it."""

    @classmethod
    def of(cls, catalog: Catalog, settings: Settings | None = None, *, explained: bool = True) -> Task:
        """The task of a catalog; each request gets one solver worker unless settings say otherwise."""
        overlays = tuple(str(root) for root in catalog.roots[1:])
        return cls(overlays, catalog.content_hash, settings or Settings(workers=1), explained=explained)

    def to_json(self) -> dict[str, Any]:
        """The task as JSON."""
        return {
            "overlays": list(self.overlays),
            "catalog_hash": self.catalog_hash,
            "program": self.program,
            "explained": self.explained,
            "settings": {
                "time_limit_s": self.settings.time_limit_s,
                "workers": self.settings.workers,
                "seed": self.settings.seed,
            },
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Task:
        """The task that `to_json` wrote."""
        settings = Settings(**raw["settings"])
        return cls(tuple(raw["overlays"]), raw["catalog_hash"], settings, raw["program"], raw["explained"])


class OtherCatalogError(PlannerError):
    """A process sees other facts than the one that started the sweep."""


def open_task_catalog(task: Task) -> Catalog:
    """Open the catalog of a task in this process.

    Raises
    ------
    OtherCatalogError
        If the facts here aren't those that the sweep was started with.
    """
    if task.program != __version__:
        raise OtherCatalogError(f"version {__version__} is installed here, and {task.program} started the sweep")
    missing = [overlay for overlay in task.overlays if not Path(overlay).is_dir()]
    if missing:
        raise OtherCatalogError(f"the catalog {missing[0]} isn't on this machine; copy it to the same place there")
    catalog = Catalog([built_in_directory(), *map(Path, task.overlays)])
    if catalog.content_hash != task.catalog_hash:
        raise OtherCatalogError(
            f"the catalog here is {catalog.content_hash}, and the sweep was started with {task.catalog_hash}; "
            "let it rest while a sweep runs, and install the same version and overlays everywhere"
        )
    return catalog


def plan_point(
    index: int, request: Request, catalog: Catalog, settings: Settings, *, explained: bool = True
) -> Outcome:
    """Plan one request in this process; whatever goes wrong becomes an outcome."""
    from planner.pipeline import OutOfTimeError, make_plan

    began = _processor_s()
    outcome = Outcome(index, request, "error")
    try:
        document = make_plan(request, catalog, settings=settings, explained=explained)
    except OutOfTimeError as error:
        outcome = replace(outcome, status="out of time", reason=str(error))
    except (PlannerError, CatalogError, UnknownEntryError) as error:
        outcome = replace(outcome, reason=str(error))
    except Exception as error:  # A fault of the program at one point must not cost the others.
        outcome = replace(outcome, reason=f"fault of the program, {type(error).__name__}: {error}")
    else:
        outcome = outcome_of(index, request, document)
    return replace(outcome, cpu_s=_processor_s() - began)


def _processor_s() -> float:
    """Processor time of this process and of those that it waited for [s]."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def outcome_of(index: int, request: Request, document: Document) -> Outcome:
    """The outcome that a document is."""
    status: Status = "error" if document.status == "evaluated" else document.status
    return Outcome(index, request, status, document, reason_of(document))


def reason_of(document: Document) -> str | None:
    """Why a document holds no plan, in one line; None where it holds one.

    Limits that clash, then the change of each one that alone makes a plan possible.
    """
    if document.infeasible is None:
        return None
    clashes = "; ".join(" with ".join(conflict) for conflict in document.infeasible.conflicts)
    repairs = ", or ".join(
        f"{row.limit} {row.from_} -> {row.to}" for row in document.infeasible.relaxations if row.to is not None
    )
    return f"impossible: {clashes or 'as it stands'}" + (f"; possible with {repairs}" if repairs else "")


def to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON, its request in SI numbers."""
    return {
        "index": outcome.index,
        "request": outcome.request.model_dump(mode="json", exclude_none=True),
        "status": outcome.status,
        "document": None if outcome.document is None else document_json(outcome.document),
        "reason": outcome.reason,
        "cpu_s": outcome.cpu_s,
    }


def from_json(raw: dict[str, Any]) -> Outcome:
    """The outcome that `to_json` wrote; every number is the same to the last bit.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    try:
        document = None if raw["document"] is None else document_of(raw["document"], "document")
    except InputError as error:
        raise ValueError(str(error)) from None
    return Outcome(
        index=int(raw["index"]),
        request=Request.model_validate(raw["request"]),
        status=raw["status"],
        document=document,
        reason=raw["reason"],
        cpu_s=float(raw["cpu_s"]),
    )


def to_line(content: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
