"""What can be wrong with the catalog.

CatalogError                all problems of a load, each as ``file: field: what; how to fix``
UnknownEntryError           a name that no entry has, with the nearest names
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CatalogError(ValueError):
    """A catalog that can't be used, with every problem that was found in it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        super().__init__("\n".join([f"the catalog has {count}:", *(f"  {problem}" for problem in problems)]))


class UnknownEntryError(LookupError):
    """A name that no catalog entry has."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.near = nearest(name, known)
        meant = f"; did you mean {', '.join(self.near)}?" if self.near else ""
        super().__init__(f"unknown {_SINGULAR.get(kind, kind)} {name!r}{meant} {hint or _HINT.format(kind=kind)}")

    def __str__(self) -> str:
        return str(self.args[0])


_SINGULAR = {
    "hardware": "GPU",
    "nodes": "node",
    "models": "model",
    "checkpoints": "entry of ready checkpoints",
    "techniques": "technique",
    "engines": "engine",
    "prices": "price",
    "rules": "rule",
}
_HINT = "(plan catalog list {kind} shows all)"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names that look most like ``name``, best first.

    >>> nearest("A1000", ["a100", "h100", "mi300x"])[0]
    'a100'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.55)]
