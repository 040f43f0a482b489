"""A fault of the program: what a user is told, and what whoever mends it needs."""

from __future__ import annotations

import platform
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

MOST_BYTES = 1_000_000
"""Of a file that the command named, to be kept with it [bytes]."""
_LIBRARIES = ("numpy", "ortools", "pydantic", "typer")


def write_fault(arguments: Sequence[str], error: BaseException) -> Path | None:
    """Write what is needed to meet a fault again: the command, the files that it names, versions, the traceback.

    Returns
    -------
    Path or None
        Where it was written, readable by its owner only; None where that wasn't possible.
    """
    from planner import __version__

    content = {
        "command": shlex.join(["plan", *arguments]),
        "folder": str(Path.cwd()),
        "versions": {"plan": __version__, "python": platform.python_version(), **_versions()},
        "system": f"{platform.system()} {platform.machine()}",
        "files": _files(arguments),
        "traceback": "".join(traceback.format_exception(error)),
    }
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="plan-fault-", suffix=".yaml", delete=False, encoding="utf-8"
        ) as file:
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)
    except OSError:
        return None
    return Path(file.name)


def fault_line(arguments: Sequence[str], error: BaseException) -> str:
    """One line for the user, once the file is written."""
    where = write_fault(arguments, error)
    text = " ".join(str(error).split())[:200]
    what = f"a fault of the program, not of your input: {type(error).__name__}{': ' + text if text else ''}"
    if where is None:
        return f"{what}; please report it with your command"
    return f"{what}; please report it with {where}, which holds the command and the files that it names"


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _files(arguments: Sequence[str]) -> dict[str, str]:
    """Text of the files that arguments name; what was on stdin is gone."""
    found = {}
    for argument in arguments:
        path = Path(argument.partition("=")[2] if argument.startswith("--") and "=" in argument else argument)
        try:
            if path.is_file() and path.stat().st_size <= MOST_BYTES:
                found[str(path)] = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
    if "-" in arguments:
        found["-"] = "what was on stdin isn't kept; please add it"
    return found


__all__ = ["fault_line", "write_fault"]
