"""Which techniques, models and deployments go together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from catalog.schema.base import Dimension, Entry, Fact, Id
from catalog.schema.techniques import Loss

Feature = Literal[
    "prefix_reuse",
    "multiple_rounds",
    "chunked_prefill",
    "tensor_parallel",
    "paged_kv",
    "pages_above_one_token",
    "fused_attention",
    "cuda_graphs",
    "offload",
    "disaggregated",
]
"""What a deployment does. ``prefix_reuse``: the cache of one request serves others with the same prefix.
``multiple_rounds``: the cache of one round, kept or swapped, serves the next question; a plan that drops
and recomputes it doesn't have this feature."""


class Selector(Fact):
    """Which techniques, models or deployments a compatibility rule speaks of.

    All fields given must hold; a field with several values holds if any of them does. The first
    group speaks of one chosen technique, the second of what surrounds it. An empty selector holds
    for every plan.
    """

    dimensions: tuple[Dimension, ...] = ()
    techniques: tuple[Id, ...] = ()
    points: tuple[Id, ...] = ()
    evicts_tokens: bool | None = None
    query_aware: bool | None = None
    per_head_budgets: bool | None = None
    prefix_cache_safe: bool | None = None

    attention: tuple[Literal["mha", "gqa", "mqa", "mla", "sliding", "chunked", "linear", "sparse"], ...] = ()
    models: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9._+*-]*$")], ...] = ()
    """Model ids; ``*`` stands for any text, as in ``qwen2.5-7b*``."""
    engines: tuple[Id, ...] = ()
    attention_backends: tuple[str, ...] = ()
    """Names that the engine itself gives its attention kernels, e.g. ``TRITON_ATTN``."""
    hardware_generations: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()


class Rule(Entry):
    """One compatibility rule between two techniques, or a technique and its surroundings.

    A rule is symmetric: it applies where one part of a plan matches ``a`` and another matches
    ``b``, in either order. A technique never clashes with itself.

    - ``exclusive``: never together.
    - ``bundle``: ``a`` already contains ``b``, which would be counted twice: never together either.
    - ``caution``, ``note``: allowed, and told to the user.
    - ``ok``: allowed and measured or argued so; overrides no other rule.
    """

    a: Selector
    b: Selector
    verdict: Literal["exclusive", "caution", "ok", "note", "bundle"]
    why: str
    surcharge: Loss | None = None
    """Extra loss when a and b are stacked."""
