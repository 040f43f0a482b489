"""The journal of a sweep: every finished point on disk before it is told, so that nothing is planned twice.

A file of JSON lines. The first says which sweep it belongs to: points, facts, settings, program; a
journal of another one is never touched. Each further line is one outcome, appended in one write and
synced. What a crash leaves behind is at most one torn line at the end, which is cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.request import Request
from planner.whatif.outcome import Outcome, Task, from_json, to_json, to_line

VERSION = 1


def sweep_header(requests: Sequence[Request], task: Task) -> dict[str, Any]:
    """What makes a sweep the same sweep: its points, the files that they name, facts, settings, program."""
    digest = hashlib.sha256()
    for request in requests:
        digest.update(json.dumps(request.model_dump(mode="json"), sort_keys=True).encode() + b"\n")
    for path in sorted({path for request in requests for path in _files_of(request)}):
        digest.update(path.read_bytes())
    return {
        "journal": "plan sweep",
        "version": VERSION,
        "program": task.program,
        "catalog_hash": task.catalog_hash,
        "settings": task.to_json()["settings"],
        "count": len(requests),
        "points": digest.hexdigest()[:16],
    }


def _files_of(request: Request) -> list[Path]:
    """Files whose content shapes a request: a cluster file, a model's configuration."""
    places = [Path(request.gpus.strip()), Path(request.model or "").expanduser()]
    found = []
    for place in places:
        # Too long for a path, or with characters that no path has: an id.
        with contextlib.suppress(OSError, ValueError):
            found += [path for path in (place, place / "config.json") if path.is_file()]
    return found


class _DamagedError(InputError):
    """A line that is no outcome of this sweep."""


class Journal:
    """A journal that is open for one sweep, and locked against others.

    Parameters
    ----------
    path
        Made if it doesn't exist.
    requests
        The sweep's points.
    task
        What they share.

    Raises
    ------
    InputError
        If the file belongs to another sweep, is no journal, or is in use.
    """

    def __init__(self, path: Path, requests: Sequence[Request], task: Task) -> None:
        self.path = path
        self.requests = requests
        self.header = sweep_header(requests, task)
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.finished: set[int] = set()
        """Points that are in the journal."""
        try:
            self._lock()
            self._resume()
        except BaseException:
            os.close(self.handle)
            raise

    def restored(self) -> Iterator[Outcome]:
        """Every outcome of the journal, each point once."""
        seen = set()
        with self.path.open("rb") as lines:
            next(lines)
            for number, line in enumerate(lines, 2):
                try:
                    outcome = from_json(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    raise self._damaged(number) from None
                if outcome.index not in seen:
                    seen.add(outcome.index)
                    yield outcome

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; it is on disk when this returns."""
        self._append(to_line(to_json(outcome)))
        self.finished.add(outcome.index)

    def close(self) -> None:
        """Let it lie for the next run."""
        os.close(self.handle)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return  # Where there are no such locks, the user's care is one.
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self.path}: another process runs this sweep; wait for it or end it") from None

    def _resume(self) -> None:
        """Read what is there, up to the last whole line, and cut off what a crash left behind it."""
        whole = 0
        damaged: InputError | None = None
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if damaged is not None:
                    raise damaged
                if not line.endswith(b"\n"):
                    if number == 1 and not to_line(self.header).startswith(line):
                        raise self._foreign()
                    break
                try:
                    if number == 1:
                        if not self._is_ours(line):
                            break  # Another sweep's, which finished nothing: it makes room.
                    else:
                        self.finished.add(self._index(line, number))
                    whole += len(line)
                except _DamagedError as error:
                    damaged = error  # The last write before a power failure may be whole in length only.
        os.ftruncate(self.handle, whole)
        if not whole:
            self._append(to_line(self.header))
            _sync_directory(self.path.parent)

    def _is_ours(self, line: bytes) -> bool:
        """Whether a first line is this sweep's; another one's that keeps nothing may be written over.

        Raises
        ------
        InputError
            If it is another sweep's that keeps finished points, or none at all.
        """
        try:
            found = json.loads(line)
            known = found["journal"] == "plan sweep"
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise self._foreign()
        differs = {
            "points": f"other points ({found.get('count')}, here {self.header['count']})",
            "catalog_hash": "other facts",
            "settings": f"other settings {found.get('settings')}",
            "program": f"version {found.get('program')} of the program",
            "version": "another form of journal",
        }
        told = [text for key, text in differs.items() if found.get(key) != self.header[key]]
        with self.path.open("rb") as lines:
            count = sum(line.endswith(b"\n") for line in lines) - 1
        if told and count:
            raise InputError(
                f"{self.path}: the journal of another sweep: {', '.join(told)}. Finish that one with its own command, "
                f"write to another -o, or delete the journal and lose its {count} finished points"
            )
        return not told

    def _foreign(self) -> InputError:
        return InputError(f"{self.path}: isn't the journal of a sweep; choose another -o or move the file away")

    def _index(self, line: bytes, number: int) -> int:
        """The point of a line."""
        try:
            raw = json.loads(line)
            index = int(raw["index"])
            right = index >= 0 and self.requests[index] == Request.model_validate(raw["request"])
        except (ValueError, KeyError, TypeError, IndexError):
            right = False
        if not right:
            raise self._damaged(number)
        return index

    def _damaged(self, number: int) -> _DamagedError:
        return _DamagedError(f"{self.path}: line {number} is damaged; delete the journal to start over")

    def _append(self, line: bytes) -> None:
        written = os.write(self.handle, line)
        while written < len(line):  # A full disk or a signal: go on or fail, but never leave a gap.
            written += os.write(self.handle, line[written:])
        os.fsync(self.handle)


def _sync_directory(directory: Path) -> None:
    """Make a new file's name last, too."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
