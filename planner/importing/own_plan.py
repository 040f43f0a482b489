"""What no flag says, from the ``plan.json`` that a file was written for."""

from __future__ import annotations

from typing import Any

from planner.decision import Decision
from planner.emit.stamp import services_hash
from planner.service import Choice, Service


def own_plan(stamp: str | None, beside: Decision | None, fields: dict[str, Any], notes: list[str]) -> Service | None:
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


def fill_from_plan(
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
