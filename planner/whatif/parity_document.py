"""Cost parity as ``plan parity --format json`` prints it (``planner/schema/parity.json``)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from planner.plan import Document

PARITY_SCHEMA_VERSION = 2

THRESHOLDS = (1.1, 2.0, 10.0)
"""Ratios to the cost at 4K for which the longest context is looked for."""

SeriesName = Literal["uncompressed", "deployable", "published"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TimeShares(_Part):
    """Where the GPU time of an interaction goes; the parts add up to 1."""

    prefill: float
    decode: float
    other: float
    """Waiting, swapping, idle pools, and the time that the planned utilisation leaves free."""
    stopped_by: str
    """The bound that most of it comes from, in words."""


class ParityPoint(_Part):
    """The cheapest plan of a series at one context."""

    ctx: int
    """[tokens]"""
    beyond_window: bool
    """Whether the model wasn't trained for so long a context."""
    cost: float | None
    """Per interaction, in the unit of the document; None: no plan."""
    ratio: float | None
    """To the cheapest uncompressed plan at 4K."""
    reason: str | None
    """Why there is no plan."""
    shares: TimeShares | None
    plan: Document | None


class Crossing(_Part):
    """The longest context of a series at which an interaction costs no more than a multiple of 4K's."""

    threshold: float
    under_to: int | None
    """The longest context that was planned and stays under; None: none does [tokens]."""
    over_from: int | None
    """The shortest context that was planned and doesn't; None: none was found [tokens]."""
    stopped_by: str | None
    """The bound at that context, as `TimeShares.stopped_by`; ``no plan`` where there is none."""


class Series(_Part):
    """One way to serve, over context length."""

    name: SeriesName
    techniques: str
    """As ``--techniques`` takes it."""
    points: tuple[ParityPoint, ...]
    """By context, those between the asked ones that a crossing was looked for at included."""
    crossings: tuple[Crossing, ...] = ()


class Mover(_Part):
    """One change of hardware, technique or session, planned again."""

    change: str
    """In words and as the option that it is."""
    cost: float | None
    ratio: float | None
    """To 4K uncompressed under the same change; None where there is no plan or no price."""
    helps: bool
    """Whether an interaction costs at least 1 % less of what is compared."""
    reason: str | None
    """Why there is no plan."""
    plan: Document | None


class Movers(_Part):
    """What would move the cost at one context of one series."""

    series: SeriesName
    ctx: int
    cost: float | None
    ratio: float | None
    rows: tuple[Mover, ...]


class ParityDocument(_Part):
    """What an interaction costs over context length, against 4K tokens."""

    schema_version: int = PARITY_SCHEMA_VERSION
    request: dict[str, Any]
    """Without a context, which the points have."""
    model: str
    window_tokens: int
    unit: Literal["USD", "GPU-hours"]
    """Of every cost. GPU-hours where nobody prices the GPU: plans then have a price of 1 USD/h."""
    base_cost: float | None
    """Of the cheapest uncompressed plan at 4K; None: there is none."""
    contexts: tuple[int, ...]
    """Those that were asked for [tokens]."""
    series: tuple[Series, ...]
    movers: Movers | None = None
    notes: tuple[str, ...] = ()

    @property
    def planned(self) -> bool:
        """Whether there is any plan."""
        return any(point.plan is not None for series in self.series for point in series.points)
