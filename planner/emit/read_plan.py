"""Read a plan file, as ``plan --format json`` prints it."""

from __future__ import annotations

import json

from pydantic import ValidationError

from planner.errors import InputError
from planner.plan import Document


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
    known = {name: content[name] for name in Document.model_fields if name in content}
    try:
        return Document.model_validate(known)
    except ValidationError as error:
        problems = [f"{where}: {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        raise InputError(problems) from None
