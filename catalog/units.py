"""Quantities as people write them, and the SI numbers that the program computes with.

At the edge a quantity is a string with its unit (``80 GiB``, ``2.039 TB/s``, ``1M``, ``200ms``);
inside it is a float in SI units. GB is 1e9 bytes, GiB is 2**30 bytes, and context lengths use
decimal thousands as the source paper does (``1M`` is 1 000 000 tokens; ``128Ki`` is 131 072).
"""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*(.*?)\s*$")

_DECIMAL = {"": 1e0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

_BYTES = {f"{prefix}B": factor for prefix, factor in {**_DECIMAL, **_BINARY}.items()}

UNITS: dict[str, dict[str, float]] = {
    "bytes": _BYTES,
    "bytes/s": {f"{unit}/s": factor for unit, factor in _BYTES.items()},
    "FLOP/s": {f"{prefix}FLOP/s": factor for prefix, factor in _DECIMAL.items()},
    "seconds": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    "tokens": {
        "": 1.0,
        "k": 1e3,
        "K": 1e3,
        "M": 1e6,
        "Ki": 2.0**10,
        "Mi": 2.0**20,
    },
    "watts": {"W": 1.0, "kW": 1e3},
    "USD/h": {"USD/h": 1.0},
    "percent": {"%": 0.01},
}
"""Unit tables: kind of quantity -> unit as written -> factor to SI."""

_EXAMPLES = {
    "bytes": "80 GiB",
    "bytes/s": "2.039 TB/s",
    "FLOP/s": "312 TFLOP/s",
    "seconds": "200ms",
    "tokens": "128K",
    "watts": "400 W",
    "USD/h": "1.79 USD/h",
    "percent": "5%",
}


def parse_quantity(text: object, kind: str) -> float:
    """Read a quantity such as ``"80 GiB"`` into SI.

    Parameters
    ----------
    text
        What the user or a catalog file wrote. Numbers without a unit are refused wherever the
        kind has units, since ``80`` could be GB or GiB.
    kind
        A key of `UNITS`.

    Returns
    -------
    float
        The value in SI units [bytes, bytes/s, FLOP/s, s, tokens, W, USD/h, fraction].

    Raises
    ------
    ValueError
        What is wrong with the text and what to write instead.

    Examples
    --------
    >>> parse_quantity("80 GiB", "bytes") == 80 * 2**30
    True
    >>> parse_quantity("1M", "tokens")
    1000000.0
    >>> parse_quantity("200ms", "seconds")
    0.2
    >>> parse_quantity("80", "bytes")
    Traceback (most recent call last):
    ...
    ValueError: '80' has no unit; write for example '80 GiB' (B, KB, MB, GB, TB, PB, KiB, MiB, GiB, TiB)
    """
    units = UNITS[kind]
    known = ", ".join(unit for unit in units if unit)
    example = _EXAMPLES[kind]
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is not a quantity; write for example '{example}'")
    written = str(text)
    match = _NUMBER.match(written)
    if match is None:
        raise ValueError(f"{written!r} is not a positive number with a unit; write for example '{example}'")
    number, unit = match.groups()
    if unit not in units:
        if not unit:
            raise ValueError(f"{written!r} has no unit; write for example '{example}' ({known})")
        raise ValueError(f"{written!r} has the unknown unit {unit!r}; write for example '{example}' ({known})")
    value = float(number.replace("_", "")) * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{written!r} is too large; write for example '{example}'")
    return value


def parse_tokens(text: object) -> int:
    """Read a whole, positive number of tokens: ``4K``, ``1M``, ``128Ki``, ``50000``.

    Raises
    ------
    ValueError
        If it is no number of tokens, zero, or not whole (``1.0005K`` is 1000.5 tokens).

    Examples
    --------
    >>> parse_tokens("128Ki"), parse_tokens("1M")
    (131072, 1000000)
    """
    value = parse_quantity(text, "tokens")
    rounded = round(value)
    if rounded < 1:
        raise ValueError(f"{text!r} must be at least 1 token")
    if abs(value - rounded) > 1e-6 * max(1.0, value):
        raise ValueError(f"{text!r} is {value:g} tokens; write a whole number of tokens")
    return rounded


def format_bytes(value: float) -> str:
    """Write bytes for people, in binary units: ``11.44 GiB``.

    >>> format_bytes(12_288_000_000)
    '11.44 GiB'
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(value) >= _BYTES[unit]:
            return f"{value / _BYTES[unit]:.4g} {unit}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """Write a duration for people: ``231 ms``, ``17.8 s``, ``2.1 h``.

    >>> format_seconds(0.0393), format_seconds(17.79)
    ('39.3 ms', '17.8 s')
    """
    if not math.isfinite(value):
        return "never"
    magnitude = abs(value)
    if magnitude >= 3.6e6:
        return f"{value / 3600:.0f} h"
    if magnitude >= 7200:
        return f"{value / 3600:.3g} h"
    if magnitude >= 600:
        return f"{value / 60:.3g} min"
    if magnitude >= 0.9995:
        return f"{value:.3g} s"
    if magnitude >= 0.9995e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} us" if value else "0 s"


def format_tokens(value: int) -> str:
    """Write tokens as the command line takes them: ``1M``, ``50K``, ``131072``.

    >>> format_tokens(1_000_000), format_tokens(50_000), format_tokens(131_072)
    ('1M', '50K', '131072')
    """
    if value % 1_000_000 == 0:
        return f"{value // 1_000_000}M"
    if value % 1_000 == 0:
        return f"{value // 1_000}K"
    return str(value)
