"""Quantities with units: what is read, what is refused and with which advice."""

import contextlib
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.units import UNITS, format_bytes, format_seconds, format_tokens, parse_quantity, parse_tokens


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("80 GiB", "bytes", 80 * 2**30),
        ("80 GB", "bytes", 80e9),
        ("80GB", "bytes", 80e9),
        ("1_000 B", "bytes", 1000),
        ("1.5e3 KB", "bytes", 1.5e6),
        (".5 TiB", "bytes", 2**39),
        ("2.039 TB/s", "bytes/s", 2.039e12),
        ("312 TFLOP/s", "FLOP/s", 312e12),
        ("200ms", "seconds", 0.2),
        ("60 s", "seconds", 60),
        ("2h", "seconds", 7200),
        ("3 min", "seconds", 180),
        ("15us", "seconds", 15e-6),
        ("15 µs", "seconds", 15e-6),
        ("5%", "percent", 0.05),
        ("1.79 USD/h", "USD/h", 1.79),
        ("0.7 kW", "watts", 700),
        (4096, "tokens", 4096),
    ],
)
def test_reads_what_people_write(text: object, kind: str, value: float) -> None:
    assert parse_quantity(text, kind) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "tokens"), [("4K", 4000), ("4k", 4000), ("1M", 10**6), ("128Ki", 131072), ("1.5M", 1_500_000), ("7", 7)]
)
def test_context_lengths_are_decimal_thousands_unless_binary_is_said(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "kind", "advice"),
    [
        ("80", "bytes", "has no unit; write for example '80 GiB'"),
        (80, "bytes", "has no unit"),
        ("200", "seconds", "has no unit; write for example '200ms'"),
        ("5", "percent", "has no unit; write for example '5%'"),
        ("80 gb", "bytes", "unknown unit 'gb'"),
        ("80 GB/s", "bytes", "unknown unit 'GB/s'"),
        ("80 GB", "bytes/s", "unknown unit 'GB'"),
        ("-3 s", "seconds", "is not a positive number"),
        ("nan s", "seconds", "is not a positive number"),
        ("inf s", "seconds", "is not a positive number"),
        ("", "seconds", "is not a positive number"),
        ("1,5 s", "seconds", "unknown unit"),
        ("1e999 s", "seconds", "too large"),
        (True, "seconds", "is not a quantity"),
        (None, "seconds", "is not a quantity"),
        (["1 s"], "seconds", "is not a quantity"),
        ("٣ s", "seconds", "is not a positive number"),
    ],
)
def test_refuses_with_advice(text: object, kind: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        parse_quantity(text, kind)


@pytest.mark.parametrize("text", ["0", "0.2", "1.0005K", "-1", "M", "1 GB", True, 1.5])
def test_refuses_what_is_no_number_of_tokens(text: object) -> None:
    with pytest.raises(ValueError, match=r"token|positive number|unknown unit|quantity"):
        parse_tokens(text)


@given(st.integers(1, 10**9))
def test_tokens_survive_writing_and_reading(tokens: int) -> None:
    assert parse_tokens(format_tokens(tokens)) == tokens


@given(st.floats(1, 1e15))
def test_bytes_survive_writing_to_four_digits(value: float) -> None:
    assert parse_quantity(format_bytes(value), "bytes") == pytest.approx(value, rel=6e-4, abs=0.5)


@given(st.floats(1e-6, 1e9))
@example(0.9996)
@example(0.00099996)
@example(9.9e6)
def test_seconds_survive_writing_to_three_digits(value: float) -> None:
    assert "e" not in format_seconds(value)
    assert parse_quantity(format_seconds(value), "seconds") == pytest.approx(value, rel=6e-3)


@given(st.text(max_size=12), st.sampled_from(sorted(UNITS)))
def test_any_text_is_read_or_refused_and_never_crashes(text: str, kind: str) -> None:
    value = 0.0
    with contextlib.suppress(ValueError):
        value = parse_quantity(text, kind)
    assert math.isfinite(value)
    assert value >= 0


def test_formats_for_people() -> None:
    assert [format_seconds(x) for x in (0, 5e-6, 0.2, 59.94, 1068, 7560, math.inf)] == [
        "0 s",
        "5 us",
        "200 ms",
        "59.9 s",
        "17.8 min",
        "2.1 h",
        "never",
    ]
    assert [format_bytes(x) for x in (12, 1536, 80 * 2**30)] == ["12 B", "1.5 KiB", "80 GiB"]
