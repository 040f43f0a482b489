"""Plans, decisions and requests as files: YAML or JSON, strict, every problem told at once.

Plans are read in schema versions 1 and 2 and written in version 2. A decision by hand is groups of
replicas, as a plan has them, or one service (`planner.service.Service`), as version 1 had it.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from planner.decision import Decision, group_name
from planner.errors import InputError
from planner.plan import SCHEMA_VERSION, Document
from planner.service import Service

M = TypeVar("M", bound=BaseModel)


def read_document(text: str, name: str) -> Document:
    """Read a plan.

    Raises
    ------
    InputError
        If the text is no plan.
    """
    return document_of(_mapping(text, name), name)


def document_of(raw: dict[str, Any], name: str) -> Document:
    """Read a plan from its JSON values.

    Raises
    ------
    InputError
        If they are no plan.
    """
    if "schema_version" not in raw:
        raise InputError(f"{name}: isn't a plan; give what `plan --format json` or `plan -o FILE` wrote")
    if raw["schema_version"] == 1:
        from planner.version_one import PlanOfVersionOne

        return _validated(PlanOfVersionOne, raw, name).document()
    if raw["schema_version"] != SCHEMA_VERSION:
        found = str(raw["schema_version"])[:20]
        raise InputError(
            f"{name}: has schema version {found}; this program reads 1 and {SCHEMA_VERSION}, so plan again"
        )
    return _validated(Document, raw, name)


def document_json(document: Document) -> dict[str, Any]:
    """Return the JSON values of a plan: schema version 2."""
    return document.model_dump(mode="json", by_alias=True)


def document_text(document: Document) -> str:
    """Return the text of a plan file."""
    return json.dumps(document_json(document), indent=2, ensure_ascii=False) + "\n"


def read_decision(text: str, name: str) -> tuple[Decision | Service, dict[str, object]]:
    """Read a decision, or a plan's decision together with the request that it was planned for.

    Raises
    ------
    InputError
        If the text is neither.
    """
    raw = _mapping(text, name)
    if "schema_version" in raw:
        document = document_of(raw, name)
        if document.decision is None:
            raise InputError(f"{name}: the plan holds no decision, since its request was infeasible; choose another")
        return document.decision.anywhere_else(), dict(document.request)
    if "groups" in raw or "router" in raw:
        return _validated(Decision, _with_ids(raw), name), {}
    return _validated(Service, raw, name), {}


def read_request_file(text: str, name: str) -> dict[str, object]:
    """Read the fields of a request; `planner.request.read_request` checks them.

    Raises
    ------
    InputError
        If the text is no mapping.
    """
    return {str(field).replace("-", "_"): value for field, value in _mapping(text, name).items()}


def _with_ids(raw: dict[str, Any]) -> dict[str, Any]:
    """Name groups that have no id by their place."""
    groups = raw.get("groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return raw
    return {**raw, "groups": [{"id": group_name(place), **group} for place, group in enumerate(groups)]}


def _mapping(text: str, name: str) -> dict[str, Any]:
    from catalog.read_yaml import parse_yaml

    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{name}: holds no 'field: value' lines")
    return raw


def _validated(model: type[M], raw: dict[str, Any], name: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        from catalog.read_yaml import describe

        raise InputError([f"{name}: {problem}" for problem in describe(error, model)]) from None
