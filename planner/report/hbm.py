"""What HBM holds, as a bar: the fullest GPU of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from catalog.units import format_bytes
from planner.report.amounts import TIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from planner.decision import Decision
    from planner.plan import HbmBytes, Metrics

BAR = 40
"""Characters of the bar."""


def hbm_bars(decision: Decision, metrics: Metrics) -> Iterable[RenderableType]:
    """Return the HBM of each kind of replica whose parts are known."""
    told = [(group.id, found.hbm_bytes_per_gpu) for group, found in zip(decision.groups, metrics.groups, strict=True)]
    for name, hbm in told:
        if hbm is not None:
            yield _hbm(hbm, "" if len(decision.services) == 1 else f" of group {name}")


def _hbm(hbm: HbmBytes, whose: str) -> Text:
    parts = (
        ("W", "weights", hbm.weights),
        ("K", "KV", hbm.kv),
        ("a", "workspace", hbm.workspace),
        ("o", "overhead", hbm.overhead),
    )
    bar, legend, used = "", [], 0.0
    for letter, name, size in parts:
        used += size
        bar += letter * (round(BAR * used / hbm.limit) - len(bar))
        legend.append(f"{letter} {name} {format_bytes(size)}")
    over = used - hbm.limit
    fits = over <= TIGHT * hbm.limit
    legend.append(f". free {format_bytes(max(0.0, -over))}" if fits else f"> OVER by {format_bytes(over)}")
    shown = bar[:BAR].ljust(BAR, ".") + ("" if fits else ">")
    told = f"  {', '.join(legend[:3])}\n  {', '.join(legend[3:])}"
    return Text.assemble((f"HBM per GPU{whose}", "bold"), f"  [{shown}] of {format_bytes(hbm.limit)}\n{told}")
