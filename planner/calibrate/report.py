"""What a calibration tells while it runs (stderr) and in the end (stdout)."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from planner.calibrate.calibrate import Calibration
from planner.calibrate.fits import Fitted
from planner.calibrate.run import Watch
from planner.calibrate.state import Done
from planner.calibrate.sweeps import Point

_PIPE_WIDTH = 170


class Shown:
    """Progress on stderr: a bar per operation in a terminal, a line per operation elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self.watch = Watch(begin=self._begin, advance=self._advance, say=self._say)

    def __enter__(self) -> Shown:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def _begin(self, operation: str, points: int, seconds: float) -> None:
        if not self._console.is_terminal:
            self._say(f"{operation}: {points} points, about {max(seconds, 1.0):.0f} s")
        self._task = self._progress.add_task(operation.replace("_", " "), total=points, last="")

    def _advance(self, point: Point, done: Done) -> None:
        if done.refused is not None:
            self._say(f"refused: {point}: {done.refused}")
        if self._task is not None:
            sizes = " ".join(f"{name}={value}" for name, value in point.sizes)
            self._progress.update(self._task, advance=1, last=f"{sizes}: {1e6 * done.time_s:.4g} us")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def document(found: Calibration) -> dict[str, Any]:
    """The outcome as JSON."""
    return {
        "directory": str(found.directory),
        "hardware": found.target,
        "device": found.device_name,
        "software": found.software,
        "measured_on": found.day,
        "points_measured_now": found.measured_now,
        "operations": [_operation(one) for one in found.fitted],
        "files": list(found.files),
        "problems": list(found.problems),
    }


def _operation(one: Fitted) -> dict[str, Any]:
    return {
        "operation": one.operation,
        "points": one.points,
        "refused": one.refused,
        "error": one.error,
        "parameters": one.parameters,
        "valid": one.valid,
        "despite": list(one.despite),
    }


def print_calibration(found: Calibration) -> None:
    """Print errors per operation and what was written to stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    table = Table(title=f"{found.device_name} as {found.target}, {found.software}", title_justify="left")
    for name in ("operation", "points", "refused", "mean error", "P90", "bias"):
        table.add_column(name, justify="left" if name == "operation" else "right")
    for one in found.fitted:
        error = one.error
        figures = (f"{error['mape']:.1%}", f"{error['p90']:.1%}", f"{error['bias']:+.1%}")
        table.add_row(one.operation.replace("_", " "), str(one.points), str(one.refused), *figures)
    console.print(table)
    console.print("Errors are those on points, shapes or message sizes that the fit hadn't seen.")
    for one in found.fitted:
        for text in one.despite:
            console.print(f"{one.operation}: in spite of: {text}", markup=False, highlight=False)
    for name in found.files:
        console.print(f"wrote {found.directory / name}", markup=False, highlight=False)
