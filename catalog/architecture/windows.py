"""Which layers attend to everything, and which only to a window."""

from __future__ import annotations

from typing import Literal

from catalog.architecture.assemble import read_context
from catalog.architecture.fields import MAX_TOKENS, Fields

ATTENTION: dict[object, str] = {"full_attention": "full", "sliding_attention": "sliding"}

Rule = Literal["none", "all", "upper", "switch", "pattern", "no_rope"]
"""Where a family has windows if ``layer_types`` doesn't say it.

none: nowhere. all: on every layer, if ``sliding_window`` is set. upper: on the layers from
``max_window_layers`` on, if ``use_sliding_window``. switch: nowhere unless ``use_sliding_window``, and
then the layers must be listed. pattern: on all but every n-th layer. no_rope: on the layers without
rotary embedding, if ``use_sliding_window``.
"""


def read_windows(
    fields: Fields, layers: int, rule: Rule, *, period: int = 0, context: int | None = None
) -> list[int | None]:
    """Window of each layer [tokens], None for full attention.

    A window that isn't shorter than the declared context never binds and counts as full attention.

    Parameters
    ----------
    fields
        The config.
    layers
        Number of layers.
    rule
        The family's habit.
    period
        With rule ``pattern``: every so many layers one attends to everything, if the file doesn't say.
    context
        The family's window where the file declares none.
    """
    if rule == "none":
        kinds = fields.kinds("layer_types", layers, {"full_attention": "full"})
        return [None] * layers
    if rule in ("upper", "switch", "no_rope") and not fields.flag("use_sliding_window"):
        fields.ignore("sliding_window")
        kinds = fields.kinds("layer_types", layers, {"full_attention": "full"})
        return [None] * layers
    window = fields.window()
    kinds = fields.kinds("layer_types", layers, ATTENTION)
    if kinds is None:
        kinds = _by_rule(fields, layers, rule, period, window)
    if "sliding" not in kinds:
        return [None] * layers
    if window is None:
        fields.problem("sliding_window", "missing, but layers use one", "add its length in tokens")
        return [None] * layers
    if window >= read_context(fields, context):
        return [None] * layers
    return [window if kind == "sliding" else None for kind in kinds]


def _by_rule(fields: Fields, layers: int, rule: Rule, period: int, window: int | None) -> list[str]:
    if rule == "pattern":
        pattern = fields.raw("sliding_window_pattern", "_sliding_window_pattern")
        if isinstance(pattern, str):
            return _lettered(fields, layers, pattern)
        every = fields.count("sliding_window_pattern", "_sliding_window_pattern", default=period)
        return ["full" if (i + 1) % every == 0 else "sliding" for i in range(layers)]
    if window is None:
        return ["full"] * layers
    if rule == "all":
        return ["sliding"] * layers
    if rule == "upper":
        first = fields.count("max_window_layers", least=0, most=MAX_TOKENS)
        return ["sliding" if i >= first else "full" for i in range(layers)]
    if rule == "no_rope":
        rope = no_rope_layers(fields, layers)
        return ["full" if has_rope else "sliding" for has_rope in rope]
    fields.problem(
        "use_sliding_window",
        "true, and which layers have the window isn't stated",
        "add layer_types, or set it to false if the engine serves full attention",
    )
    return ["full"] * layers


def _lettered(fields: Fields, layers: int, pattern: str) -> list[str]:
    """Patterns such as ``LLLG``: local and global layers, repeated."""
    if not pattern or set(pattern) - set("LG") or len(pattern) > 100:
        fields.problem("sliding_window_pattern", f"unknown pattern {pattern[:40]!r}", "write one such as LLLG")
        return ["full"] * layers
    return ["full" if pattern[i % len(pattern)] == "G" else "sliding" for i in range(layers)]


def no_rope_layers(fields: Fields, layers: int) -> list[bool]:
    """Per layer whether it has rotary embedding; every ``no_rope_layer_interval``-th (4th) has none."""
    listed = fields.raw("no_rope_layers")
    if listed is not None and listed != []:
        kinds = fields.kinds("no_rope_layers", layers, {0: "none", 1: "rope"})
        return [kind == "rope" for kind in kinds or []]
    every = fields.count("no_rope_layer_interval", default=4)
    return [(i + 1) % every != 0 for i in range(layers)]
