"""What ``plan emit`` leaves in its files beside flags: a hash, an engine's version, a pool's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_VERSION = re.compile(r"^# (vllm|sglang|lmdeploy|tensorrt-llm|llama\.cpp) (\d[\d.]*) ", re.MULTILINE)
_STAMP = re.compile(r"^# plan-hash: ([0-9a-f]+)\b", re.MULTILINE)
_POOL = re.compile(r", (prefill|decode) pool$", re.MULTILINE)


def stamp_in(text: str) -> str | None:
    """Return the hash in a file's head."""
    match = _STAMP.search(text)
    return match[1] if match else None


def version_in(text: str, engine: str) -> str | None:
    """Return the engine's version in a file's head."""
    return next((match[2] for match in _VERSION.finditer(text) if match[1] == engine), None)


def pool_in(text: str) -> str | None:
    """Return the pool in a script's head."""
    match = _POOL.search(text)
    return match[1] if match else None


def stamp_of(notes: Mapping[str, Any]) -> str | None:
    """Return the hash among a manifest's annotations or a container's labels."""
    found = notes.get("plan/hash")
    return None if found is None else str(found)


def role_of(name: str) -> str | None:
    """Return which pool a name says."""
    return next((role for role in ("prefill", "decode") if role in name), None)
