"""What a choice of options leaves of a cache, as products written with one literal per option.

An option leaves ``min(max(slope, 1) t, slope t + const)`` of t tokens' worth, and dimensions apply
one after the other, as `planner.cost.compression` says. Each factor is enforced by its option's
literal, so the model multiplies strengths of different dimensions without listing combinations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planner.service import DIMENSIONS
from planner.solve.cpsat import Quantity, Writer
from planner.space import Option

ORDER = ("token", "head", "attention", "layer", "hidden")
"""In which dimensions apply."""

BITS = 30


@dataclass(frozen=True)
class Chain:
    """One product: of stored or of read tokens, at one length of the session."""

    name: str
    effect: Literal["storage", "reads"]
    prompt_tokens: float
    tokens: float
    dimensions: tuple[str, ...] = ORDER


def write_chain(
    writer: Writer, options: dict[str, tuple[Option, ...]], literals: Mapping[str, Sequence[Any]], chain: Chain
) -> Quantity:
    """Tokens' worth that the chosen options leave, as a quantity bounded from below [tokens]."""
    most = chain.tokens * _most(options, chain)
    left = writer.quantity(f"{chain.name}:all", chain.tokens, most / 2**BITS)
    writer.model.add(left.variable == round(chain.tokens / left.unit))
    for dimension in chain.dimensions:
        found = options[dimension]
        if all(_factors(option, chain) == (1.0, 0.0) for option in found):
            continue
        kept = writer.quantity(f"{chain.name}:{dimension}", most, most / 2**BITS)
        for option, literal in zip(found, literals[dimension], strict=True):
            _write_option(writer, kept, left, option, literal, chain)
        left = kept
    return left


def _write_option(writer: Writer, kept: Quantity, left: Quantity, option: Option, literal: Any, chain: Chain) -> None:
    slope, const = _factors(option, chain)
    whole = max(slope, 1.0)
    if const <= 0.0:
        _equal(writer, kept, left, slope, 0.0, [literal])
        return
    # The budget is the smaller one only beyond where both functions meet.
    meeting = const / (whole - slope) if whole > slope else float("inf")
    if meeting >= left.most_value:
        _equal(writer, kept, left, whole, 0.0, [literal])
        return
    beyond = writer.model.new_bool_var(f"{chain.name}:{option.id}:beyond")
    at = int(meeting / left.unit)
    writer.model.add(left.variable >= at).only_enforce_if(beyond)
    writer.model.add(left.variable <= at).only_enforce_if(~beyond)
    _equal(writer, kept, left, slope, const, [literal, beyond])
    _equal(writer, kept, left, whole, 0.0, [literal, ~beyond])


def _equal(writer: Writer, kept: Quantity, left: Quantity, slope: float, const: float, when: list[Any]) -> None:
    writer.at_least(kept, [(slope, left)], const, when=when)
    writer.at_most(kept, [(slope, left)], const, when=when)


def _factors(option: Option, chain: Chain) -> tuple[float, float]:
    """Slope and constant [tokens] of an option; token eviction spares what was generated."""
    if option.point is None or option.technique is None:
        return 1.0, 0.0
    effect = option.point.storage if chain.effect == "storage" else option.point.reads
    slope, const = float(effect.slope), float(effect.const_tokens)
    if option.dimension != "token":
        return slope, const
    # First in the order: everything is known, and a number of tokens results.
    prompt = min(chain.prompt_tokens, chain.tokens)
    if option.technique.evicts_while_decoding:
        kept = min(max(slope, 1.0) * chain.tokens, slope * chain.tokens + const)
    else:
        kept = min(max(slope, 1.0) * prompt, slope * prompt + const) + chain.tokens - prompt
    return kept / chain.tokens, 0.0


def _most(options: dict[str, tuple[Option, ...]], chain: Chain) -> float:
    """Largest product of slopes above 1: metadata on top of the cache."""
    most = 1.0
    for dimension in DIMENSIONS:
        most *= max([1.0, *(_factors(option, chain)[0] for option in options[dimension])])
    return most
