"""Pins: fields of a plan's groups that a request fixes, as ``tp=4,prefill.tp=8,roles=prefill+decode``.

Here stands how they are written; what they mean for a space of decisions stands in `planner.space.pins`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from catalog.errors import nearest
from catalog.units import parse_tokens

Role = Literal["serve", "prefill", "decode"]
ROLES: tuple[Role, ...] = ("serve", "prefill", "decode")
"""Groups of a plan: replicas that serve by themselves, or that prefill for those that decode."""

Value = int | bool | str


@dataclass(frozen=True, slots=True)
class PinField:
    """A field of a group that can be fixed."""

    read: Callable[[str], Value]
    example: str
    roles: tuple[Role, ...] = ROLES
    """Groups that have it."""
    shared: bool = False
    """Whether all groups of a plan have the same, so that no role goes before it."""


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise ValueError("a whole number from 1 on")
    return int(text)


def _tokens(text: str) -> int:
    try:
        return parse_tokens(text)
    except ValueError:
        raise ValueError("a whole number of tokens, as 8192 or 8K") from None


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{', '.join(names[:-1])} or {names[-1]}")
        return text

    return read


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name of the catalog")
    return text


def _engine(text: str) -> str:
    return _name(text).lower()


def _weights(text: str) -> str:
    return _name(text).lower().removeprefix("w_")


_SPLIT = PinField(_count, "4")
_TECHNIQUE = PinField(_name, "none", shared=True)

FIELDS = {
    "engine": PinField(_engine, "vllm", shared=True),
    "weights": PinField(_weights, "fp8", shared=True),
    **dict.fromkeys(("tp", "pp", "dcp", "pcp", "ep", "replicas"), _SPLIT),
    "decode_sequences": PinField(_count, "16", ("serve", "decode")),
    "resident_sessions": PinField(_count, "17", ("serve", "decode")),
    "prefill_chunk_tokens": PinField(_tokens, "8K", ("serve", "prefill")),
    "prefill_throttled": PinField(_flag, "true", shared=True),
    "policy": PinField(_one_of("none", "swap", "recompute"), "swap", shared=True),
    "tier": PinField(_one_of("ddr", "nvme"), "ddr", shared=True),
    **dict.fromkeys(("layer", "head", "token", "hidden", "attention"), _TECHNIQUE),
}
"""Fields of a group, by their names in a plan's decision."""

_ROLES_TEXTS = ("serve", "prefill+decode")


@dataclass(frozen=True, slots=True)
class Pin:
    """One field, fixed in the groups of a role or in all; ``roles`` fixes which groups there are."""

    role: Role | None
    field: str
    value: Value

    @property
    def text(self) -> str:
        """As one types it: ``prefill.tp=4``."""
        name = f"{self.role}.{self.field}" if self.role else self.field
        return f"{name}={_value_text(self.value)}"

    @property
    def roles(self) -> tuple[Role, ...]:
        """Groups that it speaks of."""
        return (self.role,) if self.role else FIELDS[self.field].roles


def _value_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_pin(name: str) -> bool:
    """Whether a name is one that can be fixed, with or without a role."""
    return name == "roles" or name.rpartition(".")[2] in FIELDS


def read_pins(given: object) -> tuple[Pin, ...]:
    """Read pins: text with commas or semicolons between, a list of such, or a mapping.

    Raises
    ------
    ValueError
        With everything that is wrong, a line each.

    Examples
    --------
    >>> [pin.text for pin in read_pins("tp=4, prefill.pp=2; roles=prefill+decode")]
    ['tp=4', 'prefill.pp=2', 'roles=prefill+decode']
    """
    problems: list[str] = []
    pins = [pin for name, value in _pairs(given, problems) if (pin := _read(name, value, problems))]
    problems += _contradictions(pins)
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(dict.fromkeys(pins))


def pins_text(pins: tuple[Pin, ...]) -> str:
    """Pins as one types them."""
    return ",".join(pin.text for pin in pins)


def _pairs(given: object, problems: list[str]) -> list[tuple[str, str]]:
    if isinstance(given, Mapping):
        return [(str(name), _value_text(value)) for name, value in given.items()]
    pieces = given if isinstance(given, list | tuple) else str(given).replace(";", ",").split(",")
    found = []
    for piece in pieces:
        name, equals, value = str(piece).partition("=")
        if equals:
            found.append((name.strip(), value.strip()))
        else:
            problems.append(f"{str(piece).strip()[:60]!r}: no 'field=value'; write for example tp=4,roles=serve")
    return found


def _read(name: str, value: str, problems: list[str]) -> Pin | None:
    name = name.replace("-", "_")
    if name == "roles":
        if value not in _ROLES_TEXTS:
            problems.append(f"roles={value[:60]}: must be {' or '.join(_ROLES_TEXTS)}")
            return None
        return Pin(None, "roles", value)
    prefix, dot, field = name.rpartition(".")
    role = next((role for role in ROLES if role == prefix), None)
    if dot and role is None:
        problems.append(f"{name[:60]}: no group is called {prefix[:40]!r}; use {', '.join(ROLES)}, or no role at all")
        return None
    known = FIELDS.get(field)
    if known is None:
        near = nearest(field, [*FIELDS, "roles"])
        meant = f"did you mean {near[0]}?" if near else f"a group has {', '.join(FIELDS)}"
        problems.append(f"{name[:60]}: unknown field; {meant}")
        return None
    if role is not None and known.shared:
        problems.append(f"{name}: all groups have the same; write {field}={value[:40]}")
        return None
    if role is not None and role not in known.roles:
        problems.append(f"{name}: a {role} group has none; it is a field of {' and '.join(known.roles)}")
        return None
    try:
        return Pin(role, field, known.read(value))
    except ValueError as error:
        problems.append(f"{name}={value[:60]}: must be {error}; write for example {name}={known.example}")
        return None


def _contradictions(pins: list[Pin]) -> list[str]:
    """Two values for one field of one group, and groups that ``roles`` rules out."""
    problems = []
    for at, pin in enumerate(pins):
        for other in pins[:at]:
            together = pin.field == other.field and (pin.role == other.role or None in (pin.role, other.role))
            if together and pin.value != other.value:
                problems.append(f"{pin.text}: contradicts {other.text}; keep one")
    roles = next((str(pin.value).split("+") for pin in pins if pin.field == "roles"), list(ROLES))
    problems += [
        f"{pin.text}: roles={'+'.join(roles)} has no {pin.role} group"
        for pin in pins
        if pin.role and pin.role not in roles
    ]
    values = {pin.field: pin for pin in pins}
    if "tier" in values and "policy" in values and values["policy"].value != "swap":
        problems.append(f"{values['tier'].text}: only policy=swap has a tier, not {values['policy'].text}")
    return problems
