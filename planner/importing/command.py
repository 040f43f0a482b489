"""One server as a file starts it, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Neighbour = Callable[[str], str | None]
"""Returns the text of a file beside the one that is read, by its path; None where there is none."""


def alone(path: str) -> str | None:
    """No file lies beside a text that came without a place."""
    return None


@dataclass(frozen=True, slots=True)
class Command:
    """One server as a file starts it."""

    arguments: tuple[str, ...]
    """What follows ``vllm serve`` or its like; what the file doesn't say is marked (`unknown.unknown`)."""
    where: str
    """Where it was found, for messages."""
    replicas: int = 1
    version: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    role: str | None = None
    """``prefill`` or ``decode``, where a stamp or a name says so."""
    stamp: str | None = None
    """Hash of the decision that ``plan emit`` wrote the file for."""
    config_files: Mapping[str, str] = field(default_factory=dict)
    """Texts of files that the command can name, by file name."""
    engine: str = "vllm"
    """The catalog's id of what is started."""
    notes: tuple[str, ...] = ()
    """What was taken for granted while it was read."""
    counted: bool = True
    """Whether the file says how many such servers run; a script starts one."""
