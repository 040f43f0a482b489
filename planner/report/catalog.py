"""The catalog for the terminal: one table per kind of entry, and an entry as YAML.

Every table is plain aligned text, so that it reads the same in a terminal, a pipe and a mail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from catalog.units import format_bytes, format_tokens

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]

_NONE = "-"


def entry_table(kind: str, rows: Sequence[Row]) -> str:
    """Lay out the rows of `catalog.summary.summaries` of one kind as a table.

    Examples
    --------
    >>> print(entry_table("rules", []))
    no rules
    """
    if not rows:
        return f"no {kind}"
    columns = [("ID", _text("id")), *_COLUMNS[kind], ("CHECKED", _text("checked"))]
    return _aligned([[title for title, _ in columns], *([cell(row) for _, cell in columns] for row in rows)])


def stale_table(rows: Sequence[Row], days: int) -> str:
    """Lay out the rows of `catalog.summary.stale`; ``days`` is the age that was asked for [days].

    Examples
    --------
    >>> print(stale_table([], 90))
    every entry was checked within 90 days
    """
    if not rows:
        return f"every entry was checked within {days} days"
    cells = [[row["checked"], f"{row['age_days']} days", row["kind"], row["id"], row["file"]] for row in rows]
    return _aligned([["CHECKED", "AGE", "KIND", "ID", "FILE"], *cells])


def entry_yaml(entry: Row) -> str:
    """Write the entry of `catalog.summary.describe_entry` as YAML, its file first as a comment."""
    import yaml

    fields = {key: value for key, value in entry.items() if key != "file"}
    body = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110)
    return f"# {entry['file']}\n{body}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: str(row[key]) if row[key] is not None else _NONE


def _words(key: str) -> Callable[[Row], str]:
    return lambda row: " ".join(row[key]) or _NONE


def _bytes(key: str) -> Callable[[Row], str]:
    return lambda row: format_bytes(row[key]) if row[key] is not None else _NONE


def _scaled(key: str, unit: float, name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key] / unit:.4g} {name}" if row[key] is not None else _NONE


def _peak(precision: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        flops = row["flop_per_s"].get(precision)
        return f"{flops / 1e12:.4g}" if flops is not None else _NONE

    return cell


def _selected(side: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        parts = (
            f"{field}={','.join(map(str, value)) if isinstance(value, list) else value}"
            for field, value in row[side].items()
        )
        return " ".join(parts) or "any"

    return cell


_COLUMNS: dict[str, list[Column]] = {
    "hardware": [
        ("HBM", _bytes("hbm_bytes")),
        ("BANDWIDTH", _scaled("hbm_bandwidth_bytes_per_s", 1e12, "TB/s")),
        ("BF16 TFLOP/s", _peak("bf16")),
        ("FP8 TFLOP/s", _peak("fp8")),
        ("GPU LINK", _scaled("gpu_link_bytes_per_s", 1e9, "GB/s")),
        ("PCIE", _scaled("pcie_bytes_per_s", 1e9, "GB/s")),
        ("ALIASES", _words("aliases")),
    ],
    "nodes": [
        ("GPUS", lambda row: f"{row['gpus']}x {row['hardware']}"),
        ("TOPOLOGY", _text("gpu_topology")),
        ("HOST MEMORY", _bytes("host_memory_bytes")),
        ("NVME", _bytes("nvme_bytes")),
        ("NETWORK", _scaled("nic_bytes_per_s", 1e9, "GB/s")),
    ],
    "models": [
        ("PARAMS", _scaled("total_params", 1e9, "B")),
        ("ACTIVE", _scaled("active_params", 1e9, "B")),
        ("CONTEXT", lambda row: format_tokens(row["context_tokens"])),
        ("TRAINED", lambda row: format_tokens(row["trained_tokens"])),
        ("KV/TOKEN", _bytes("kv_bytes_per_token")),
        ("KV AT CONTEXT", _bytes("kv_bytes_at_context")),
        ("ATTENTION", _words("attention")),
        ("CONFIG", lambda row: row["config_grade"] or "your own"),
    ],
    "checkpoints": [
        ("READY", lambda row: str(len(row["checkpoints"]))),
        ("FORMATS", _words("formats")),
    ],
    "techniques": [
        ("DIMENSION", _text("dimension")),
        ("TIER", _text("tier")),
        ("POINTS", lambda row: str(len(row["points"]))),
        ("SHIPS IN", _words("engines")),
        ("NAME", _text("name")),
    ],
    "rules": [
        ("VERDICT", _text("verdict")),
        ("A", _selected("a")),
        ("B", _selected("b")),
    ],
    "engines": [
        ("VERSION", _text("version")),
        ("KV FORMATS", _words("kv_formats")),
        ("WEIGHTS", _words("weight_formats")),
        ("OFFLOAD", _words("offload_tiers")),
    ],
    "engine_rules": [
        ("ENGINE", _text("engine")),
        ("VERDICT", _text("verdict")),
        ("WHEN", _selected("when")),
    ],
    "measurements": [
        ("GPU", _text("hardware")),
        ("ENGINE", lambda row: f"{row['engine']} {row['engine_version']}"),
        ("OPERATION", _text("operation")),
        ("WEIGHTS", _text("weights")),
        ("MEAN ERROR", _scaled("mean_error", 0.01, "%")),
    ],
    "prices": [
        ("GPU", _text("hardware")),
        ("USD/GPU/h", lambda row: f"{row['usd_per_gpu_hour']:.2f}"),
        ("KIND", _text("kind")),
        ("PROVIDER", _text("provider")),
        ("OBSERVED", _text("observed")),
    ],
}
"""Kind of entry -> its columns between the id and the day of the check."""
