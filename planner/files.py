"""Plans, decisions and requests as files: YAML or JSON, strict, every problem told at once."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from catalog.read_yaml import describe, parse_yaml
from planner.errors import InputError
from planner.plan import SCHEMA_VERSION, Decision, Document

M = TypeVar("M", bound=BaseModel)


def read_document(text: str, name: str) -> Document:
    """Read a plan.

    Raises
    ------
    InputError
        If the text is no plan.
    """
    raw = _mapping(text, name)
    if "schema_version" not in raw:
        raise InputError(f"{name}: isn't a plan; give what `plan --format json` or `plan -o FILE` wrote")
    if raw["schema_version"] != SCHEMA_VERSION:
        found = str(raw["schema_version"])[:20]
        raise InputError(f"{name}: has schema version {found}; this program reads {SCHEMA_VERSION}, so plan again")
    return _validated(Document, raw, name)


def read_decision(text: str, name: str) -> tuple[Decision, dict[str, object]]:
    """Read a decision, or a plan's decision together with the request that it was planned for.

    Raises
    ------
    InputError
        If the text is neither.
    """
    raw = _mapping(text, name)
    if "schema_version" in raw:
        document = read_document(text, name)
        if document.decision is None:
            raise InputError(f"{name}: the plan holds no decision, since its request was infeasible; choose another")
        return document.decision, dict(document.request)
    return _validated(Decision, raw, name), {}


def read_request_file(text: str, name: str) -> dict[str, object]:
    """Read the fields of a request; `planner.request.read_request` checks them.

    Raises
    ------
    InputError
        If the text is no mapping.
    """
    return {str(field).replace("-", "_"): value for field, value in _mapping(text, name).items()}


def _mapping(text: str, name: str) -> dict[str, Any]:
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
        raise InputError([f"{name}: {problem}" for problem in describe(error, model)]) from None
