"""Ready checkpoints: whose weights somebody quantised and published, so that nobody has to do it again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from catalog.schema.base import Entry, Fact, Id, Provenance

HubId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$")]


class Checkpoint(Fact):
    """One published checkpoint of a model, in another precision than its makers' own."""

    hub_id: HubId
    base: HubId
    """The checkpoint that was quantised: base or Instruct, as the hub spells it."""
    quant_method: str | None = None
    """As its ``quantization_config.quant_method`` has it. None: not known, and so never planned with."""
    algorithm: str | None = None
    """What of the method: ``FP8``, ``NVFP4``, ``W8A8-INT8``, ``W4A16``; ``mixed`` where layers differ."""
    point: Id | None = None
    """The catalog point of its weights; None: no technique of the catalog has this precision."""
    kv: Literal["fp8", "none"] | None = None
    """KV type that it asks for where an engine is left to choose. None: not read."""
    provenance: Provenance
    """found: its quantisation was read in its config. derived: it follows from how its publisher names things."""
    source: str
    """Where it is named."""
    note: str | None = None


class Checkpoints(Entry):
    """The ready checkpoints of one model of the catalog."""

    model: Id
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(min_length=1)]
