"""Numbers for people: with their unit, without exponents, as many digits as one reads."""

from __future__ import annotations

from typing import Any

from catalog.units import format_bytes, format_seconds, format_tokens
from planner.limits import BY_FIELD, seconds_text

_TOKENS = ("ctx", "shared_prefix_tokens")

TIGHT = 1e-9
"""Relative: a limit that is broken by less is kept."""


def number(value: float) -> str:
    """Three digits or more, never an exponent.

    >>> number(2150.4), number(45.571), number(0.0116)
    ('2,150', '45.6', '0.0116')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def amount(name: str, value: float) -> str:
    """A constraint's or a metric's number in the unit that its name ends in.

    >>> amount("tpot_s", 0.125), amount("ddr_bytes", 2**41), amount("quality_loss_mean", 0.014)
    ('125 ms', '2 TiB', '1.40%')
    """
    if "bytes" in name:
        return format_bytes(value) if value >= 0 else f"-{format_bytes(-value)}"
    if name.endswith("_w"):
        return f"{value / 1e3:,.4g} kW" if abs(value) >= 1e3 else f"{value:.4g} W"
    if name.endswith("_s"):
        return format_seconds(value)
    if name.startswith("quality"):
        return f"{value:.2%}"
    return f"{value:,.4g}"


def field_text(name: str, value: Any) -> str:
    """A field of a request as one would type it; None is no limit.

    >>> field_text("ctx", 128_000), field_text("max_latency", 0.05), field_text("users", None)
    ('128K', '50ms', 'none')
    """
    if value is None:
        return "none"
    if name in _TOKENS and isinstance(value, int) and value:
        return format_tokens(value)
    if name == "think_time":
        return seconds_text(value)
    if name == "usd_per_gpu_hour":
        return f"{value:.9g} USD/h"
    if name == "tolerance":
        return f"{float(value) * 100:g}%"
    if name in BY_FIELD:
        return BY_FIELD[name].unit.text(float(value))
    return str(value)
