"""Put emitted files into a directory, without touching what isn't theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from planner.errors import InputError

INDEX = ".plan-files"
"""Names the files that were written, so that only those are replaced later."""


def write(files: Mapping[str, str], directory: Path, force: bool = False) -> None:
    """Write files below a directory that is new or empty, or, with ``force``, replace an earlier emission.

    Parameters
    ----------
    files
        Text by relative path.
    directory
        Made if it doesn't exist.
    force
        Replace files that an earlier call wrote; remove those of them that this call doesn't write.

    Raises
    ------
    InputError
        If the directory holds something and ``force`` isn't given, if a file to be written exists but
        wasn't written by an earlier call, or if the directory can't be written.
    """
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} would be written outside of the directory")
    try:
        _write(files, directory, force)
    except OSError as error:
        raise InputError(f"-o {directory}: can't be written: {error.strerror or error}") from None


def _write(files: Mapping[str, str], directory: Path, force: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise InputError(f"-o {directory}: is a file; give a directory")
    known = _known(directory)
    present = any(directory.iterdir()) if directory.is_dir() else False
    if present and not force:
        raise InputError(
            f"-o {directory}: isn't empty; give another directory, or --force to replace an earlier emission"
        )
    foreign = sorted(name for name in files if name not in known and (directory / name).exists())
    if foreign:
        raise InputError(
            f"-o {directory}: {', '.join(foreign)} wasn't written by plan emit and is left alone; move it away or give "
            "another directory"
        )
    for name in sorted(known - set(files)):
        (directory / name).unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(content, encoding="utf-8", newline="\n")
        if name.endswith(".sh"):
            temporary.chmod(0o755)
        os.replace(temporary, path)
    (directory / INDEX).write_text("".join(f"{name}\n" for name in sorted(files)), encoding="utf-8")


def _known(directory: Path) -> set[str]:
    """Return what an earlier call wrote; names that lead outside of the directory are ignored."""
    try:
        names = (directory / INDEX).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {n for n in names if n and not PurePosixPath(n).is_absolute() and ".." not in PurePosixPath(n).parts}
