"""What a catalog entry must say: one pydantic model per kind of entry.

Every entry carries its sources and the day on which somebody last checked them. Numbers with a
unit are strings in the files (``80 GiB``) and SI floats in memory. Unknown fields are refused.
"""

from __future__ import annotations

from catalog.schema.base import (
    Bytes,
    BytesPerSecond,
    Dimension,
    Entry,
    Fact,
    FlopsPerSecond,
    Fraction,
    Id,
    Provenance,
    Source,
    Task,
    Text,
    Tokens,
    UsdPerHour,
    Watts,
)
from catalog.schema.checkpoints import Checkpoint, Checkpoints
from catalog.schema.engine_rules import ConfigKey, EngineCondition, EngineRule, Value
from catalog.schema.engines import (
    CheckpointFormat,
    Engine,
    EngineMemory,
    KvFormat,
    Offload,
    Parallelism,
    StepMemory,
    WeightFormat,
)
from catalog.schema.hardware import DenseFlops, Hardware, Link, Nic, Node, Nvme, Price
from catalog.schema.measurements import FitError, Measurement
from catalog.schema.models import ConfigGrade, DefaultFor, Extension, ExtensionStep, Model, PublishedConfig
from catalog.schema.rules import Feature, Rule, Selector
from catalog.schema.techniques import (
    EngineSupport,
    Evidence,
    Linear,
    Loss,
    Paper,
    Point,
    PrefillEffect,
    Prior,
    Technique,
    TimeOverhead,
)

KINDS: dict[str, type[Entry]] = {
    "hardware": Hardware,
    "nodes": Node,
    "models": Model,
    "checkpoints": Checkpoints,
    "techniques": Technique,
    "rules": Rule,
    "engines": Engine,
    "engine_rules": EngineRule,
    "prices": Price,
    "measurements": Measurement,
}
"""Kind of entry, which is also its folder -> its schema."""


__all__ = [
    "KINDS",
    "Bytes",
    "BytesPerSecond",
    "Checkpoint",
    "CheckpointFormat",
    "Checkpoints",
    "ConfigGrade",
    "ConfigKey",
    "DefaultFor",
    "DenseFlops",
    "Dimension",
    "Engine",
    "EngineCondition",
    "EngineMemory",
    "EngineRule",
    "EngineSupport",
    "Entry",
    "Evidence",
    "Extension",
    "ExtensionStep",
    "Fact",
    "Feature",
    "FitError",
    "FlopsPerSecond",
    "Fraction",
    "Hardware",
    "Id",
    "KvFormat",
    "Linear",
    "Link",
    "Loss",
    "Measurement",
    "Model",
    "Nic",
    "Node",
    "Nvme",
    "Offload",
    "Paper",
    "Parallelism",
    "Point",
    "PrefillEffect",
    "Price",
    "Prior",
    "Provenance",
    "PublishedConfig",
    "Rule",
    "Selector",
    "Source",
    "StepMemory",
    "Task",
    "Technique",
    "Text",
    "TimeOverhead",
    "Tokens",
    "UsdPerHour",
    "Value",
    "Watts",
    "WeightFormat",
]
