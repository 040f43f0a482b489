"""What every figure shares: where it may go, and how it is drawn and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a figure that can't be written, before any work is done.

    Raises
    ------
    InputError
        If the name doesn't end in .png or .svg, its directory doesn't exist, or the file exists and
        ``force`` is False.
    """
    problems = []
    if path.suffix.lower() not in FORMATS:
        problems.append(f"--figure {path}: unknown format {path.suffix or '(none)'!r}; end the name in .png or .svg")
    if path.is_dir():
        problems.append(f"--figure {path}: is a directory; name a file in it, such as {path / 'paper.svg'}")
    elif not path.parent.is_dir():
        problems.append(f"--figure {path}: the directory {path.parent} doesn't exist; create it first")
    elif path.exists() and not force:
        problems.append(f"--figure {path}: exists already; name another file, or overwrite it with --force")
    if problems:
        raise InputError(problems)


@contextmanager
def canvas(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, written when the block ends: the same bytes for the same picture.

    Parameters
    ----------
    path
        A .png or .svg file; overwritten if it exists.
    """
    # The object-oriented interface: pyplot would pick a backend and keep global state.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "plan", "font.size": 9.0}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=stamp)
