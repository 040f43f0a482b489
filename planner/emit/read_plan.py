"""Read a plan file, as ``plan --format json`` prints it."""

from __future__ import annotations

import json

from planner.errors import InputError
from planner.files import document_of
from planner.plan import Document
from planner.version_one import PlanOfVersionOne


def read_plan(text: str, where: str) -> Document:
    """Return the plan; what a newer or richer plan has beside `Document`'s fields is left out.

    Parameters
    ----------
    text
        JSON.
    where
        The file's name, for messages.

    Raises
    ------
    InputError
        If it isn't JSON, or not a plan; with every problem.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: isn't JSON; give a file that plan --format json has written") from None
    if not isinstance(content, dict):
        raise InputError(f"{where}: holds no plan; give a file that plan --format json has written")
    names = {*Document.model_fields, *PlanOfVersionOne.model_fields}
    return document_of({name: value for name, value in content.items() if name in names}, where)
