"""ROOM: a plan becomes deployment files that engines accept. Reads plans, computes nothing.

    emit(document, targets, catalog) -> {relative path: text}      pure
    write(files, directory, force)                                 the only place that touches the disk

One engine is one module of ``engines``: plan -> `Launch` (program, flags, environment, files). One
platform is one module of ``platforms``: launches -> files. Every flag is checked against the snapshot
of the engine's own parser in ``catalog/engine_flags`` before anything is returned.
"""

from planner.emit.emit import emit, usual_targets
from planner.emit.read_plan import read_plan
from planner.emit.write import check_directory, write

__all__ = ["check_directory", "emit", "read_plan", "usual_targets", "write"]
