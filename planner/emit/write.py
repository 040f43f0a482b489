"""Put emitted files into a directory, without touching what isn't theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from planner.errors import InputError

INDEX = ".plan-files"
"""Names the files that were written, so that only those are replaced later."""


def write(files: Mapping[str, str], directory: Path, force: bool = False, option: str = "-o") -> None:
    """Write files below a directory that is new or empty, or, with ``force``, replace an earlier emission.

    Parameters
    ----------
    files
        Text by relative path.
    directory
        Made if it doesn't exist.
    force
        Replace files that an earlier call wrote; remove those of them that this call doesn't write.
    option
        With which the directory was named, for messages.

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
        _write(files, directory, force, option)
    except OSError as error:
        raise InputError(f"{option} {directory}: can't be written: {error.strerror or error}") from None


def check_directory(directory: Path, force: bool = False, option: str = "-o") -> None:
    """Refuse a directory that can't take an emission, before anything is computed for it.

    Parameters
    ----------
    directory
        New or empty, or with ``force`` one that an earlier call wrote.
    force
        Whether an earlier emission may be replaced.
    option
        With which the directory was named, for the message.

    Raises
    ------
    InputError
        If it is a file, or holds something and ``force`` isn't given.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{option} {directory}: is a file; give a directory")
    if not force and directory.is_dir() and any(directory.iterdir()):
        raise InputError(
            f"{option} {directory}: isn't empty; give another directory, or --force to replace an earlier emission"
        )


def _write(files: Mapping[str, str], directory: Path, force: bool, option: str) -> None:
    check_directory(directory, force, option)
    known = _known(directory)
    foreign = sorted(name for name in files if name not in known and (directory / name).exists())
    if foreign:
        raise InputError(
            f"{option} {directory}: {', '.join(foreign)} wasn't written by plan emit and is left alone; move it away "
            "or give another directory"
        )
    for name in sorted(known - set(files)):
        (directory / name).unlink(missing_ok=True)
        _remove_empty(directory, (directory / name).parent)
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


def _remove_empty(top: Path, folder: Path) -> None:
    """Remove a folder that an earlier emission made and that holds nothing any more, and those above it."""
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
