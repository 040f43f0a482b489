"""Measured times of operations, as fitted forms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from catalog.schema.base import Entry, Fact, Fraction, Id, Text


class FitError(Fact):
    """How far a fitted form was from measurements that the fit hadn't seen."""

    mape: Fraction
    """Mean of |prediction / measurement - 1|."""
    p90: Fraction
    bias: float
    points: Annotated[int, Field(ge=1)]
    held_out: str
    """What was held out."""


class Measurement(Entry):
    """Time of one operation on a GPU with an engine: the parameters of a form, its error and its range.

    The forms are in ``planner/measured``; times are in seconds, sizes in bytes, tokens and elements.
    """

    hardware: Id
    engine: Id
    engine_version: Text
    operation: Literal[
        "gemm", "experts", "prefill_attention", "decode_attention", "all_reduce", "elementwise", "step", "interval"
    ]
    weights: Literal["bf16", "fp8", "int8", "int4", "w8a8"] = "bf16"
    """Precision of the weights; w8a8 also multiplies in eight bits."""
    parameters: dict[str, float]
    table: dict[str, tuple[float, ...]] = {}
    error: FitError | None
    """None: not judged on anything held out."""
    attention_backends: tuple[str, ...] = ()
    """The engine's own names of the attention kernels that were measured; empty: not told."""
    valid: dict[str, tuple[float, float]] = {}
    """Range of each size on which the parameters were fitted; beyond it they are extrapolated."""
