"""A vLLM server that runs already, and that an emission takes the place of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Running:
    """A server that the plan takes the place of."""

    flags: Mapping[str, Any]
    """As read: by first name, booleans as True or False, several values as a list."""
    model: str | None
    """What it loads: a hub id or a path; None: not known, or set by a shell."""
    served_names: tuple[str, ...]
    """Names by which clients ask for the model."""
    weights: str
    """Precision of its weights, in the words of a decision."""
    window_tokens: int
    """Longest request that it takes [tokens]."""
    unread: tuple[tuple[str, str], ...] = ()
    """Words of its command that can't be kept, with the reason."""

    @property
    def host(self) -> str | None:
        """Address on which it listens; None: vLLM's default, all."""
        value = self.flags.get("--host")
        return value if isinstance(value, str) else None

    def anywhere(self) -> Running:
        """Return the same server without its address, which no container has."""
        return replace(self, flags={name: value for name, value in self.flags.items() if name != "--host"})

    @property
    def port(self) -> int | None:
        """Where it listens; None: vLLM's default."""
        value = self.flags.get("--port")
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16 else None
