"""A table of flags, and its two readings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.schema import Hardware
from planner.emit.launch import Flags, Value

ByGpu = Callable[[Hardware], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One flag: the decision that it says.

    Fields are the planner's own: ``tp``, ``pp``, ``dcp``, ``pcp``, ``data`` (ranks that share experts), ``ep``,
    ``window_tokens``, ``sequences`` and ``batched_tokens`` or ``chunk_tokens`` of one rank, ``memory_share``,
    ``kv_tokens``, ``kv_bytes``, ``kv_option``, ``weights``, ``reuses_prefixes``, ``role``, ``tier``.
    """

    field: str
    flag: str
    """Its first name; of a settings file, the path of the key with dots."""
    unit: str = ""
    """Of the flag's value, where it isn't a plain number, a name or a switch."""
    default: Any = None
    """What the engine takes without the flag; None: not known, or it differs by the model."""
    by_gpu: ByGpu | None = None
    """What the engine takes without the flag, where that differs by the GPU."""
    times: tuple[str, ...] = ()
    """Fields by which the flag's number is larger than the field's: it counts for all ranks at once."""
    off: str | None = None
    """The flag that says no, of a switch."""
    values: Mapping[Any, Any] = dataclasses.field(default_factory=dict)
    """The flag's value -> the field's, where they differ."""
    means: Mapping[Any, Any] = dataclasses.field(default_factory=dict)
    """Other values that the engine takes for one of the field's; they are read and never written."""
    spellings: tuple[str, ...] = ()
    """Other names of the flag, beside those of the engine's own parser."""

    def absent(self, hardware: Hardware | None) -> Any:
        """Return what the engine takes without the flag."""
        by_gpu = self.by_gpu
        return self.default if by_gpu is None or hardware is None else by_gpu(hardware)


@dataclass(frozen=True, slots=True)
class Table:
    """All flags of an engine that say a decision."""

    engine: str
    rows: tuple[Row, ...]
    unpriced: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Flags with an effect on speed or memory that isn't priced -> what it is."""

    def row(self, name: str) -> Row:
        """Return the row of a field."""
        return next(row for row in self.rows if row.field == name)

    def has(self, name: str) -> bool:
        """Whether the engine has a flag for a field."""
        return any(row.field == name for row in self.rows)

    def flags(self, over: Mapping[str, int] | None = None, **said: Any) -> Flags:
        """Return flags for fields, in their order; what is None isn't said.

        ``over`` gives fields that count here and are said elsewhere: the ranks over which a flag counts.

        >>> from planner.emit.tables import SGLANG
        >>> SGLANG.flags(tp=2, data=4)
        (('--tp-size', 8), ('--attn-dp-size', 4))
        """
        written: list[tuple[str, Value]] = []
        for name, value in said.items():
            if value is None:
                continue
            row = self.row(name)
            flag, spelled = row.flag, self._written(row, value, {**(over or {}), **said})
            if spelled is False:
                if row.off is None:
                    continue
                flag, spelled = row.off, True
            written.append((flag, spelled))
        return tuple(written)

    def settings(self, over: Mapping[str, int] | None = None, **said: Any) -> dict[str, Any]:
        """Return fields as the nested keys of a settings file."""
        found: dict[str, Any] = {}
        for name, value in said.items():
            if value is None:
                continue
            row = self.row(name)
            *above, key = row.flag.split(".")
            place = found
            for part in above:
                place = place.setdefault(part, {})
            place[key] = self._written(row, value, {**(over or {}), **said})
        return found

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that flags say, by name.

        >>> from planner.emit.tables import SGLANG
        >>> SGLANG.read({"--tp-size": 8, "--attn-dp-size": 4})
        {'data': 4, 'tp': 2}
        """
        found: dict[str, Any] = {}
        for row in sorted(self.rows, key=lambda row: len(row.times)):
            if row.flag in given:
                found[row.field] = self._read(row, given[row.flag], found)
        return found

    def _written(self, row: Row, value: Any, said: Mapping[str, Any]) -> Value:
        for theirs, ours in row.values.items():
            if ours == value and type(ours) is type(value):
                spelled: Value = theirs
                return spelled
        for name in row.times:
            value = value * (said.get(name) or 1) if value > 0 else value
        written: Value = value
        return written

    def _read(self, row: Row, value: Any, found: Mapping[str, Any]) -> Any:
        for known in (row.values, row.means):
            if isinstance(value, str | int | float) and value in known:
                return known[value]
        if row.times and isinstance(value, int) and not isinstance(value, bool):
            for name in row.times:
                value = value // (found.get(name) or 1) if value > 0 else value
            return max(value, 1) if value > 0 else value
        return value
