"""The deployment planner for long-context LLM serving: one question, one proved answer.

The rooms and what may import what are the layers in ``pyproject.toml``; ``planner.pipeline`` tells
the story from top to bottom. Names are imported when they are first used, so that a command that
only reads the catalog doesn't wait for numpy and OR-Tools.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.decision import Decision
    from planner.errors import InputError, PlannerError
    from planner.pipeline import evaluate, make_plan
    from planner.plan import Document, Metrics
    from planner.request import Request
    from planner.service import Service
    from planner.whatif.compare import compare
    from planner.whatif.explain_plan import explain_plan
    from planner.whatif.pareto import pareto
    from planner.whatif.parity import parity
    from planner.whatif.sweep import sweep

__version__ = "0.1.0"

_HOME = {
    "Decision": "planner.decision",
    "Document": "planner.plan",
    "InputError": "planner.errors",
    "Metrics": "planner.plan",
    "PlannerError": "planner.errors",
    "Request": "planner.request",
    "Service": "planner.service",
    "compare": "planner.whatif.compare",
    "evaluate": "planner.pipeline",
    "explain_plan": "planner.whatif.explain_plan",
    "make_plan": "planner.pipeline",
    "pareto": "planner.whatif.pareto",
    "parity": "planner.whatif.parity",
    "sweep": "planner.whatif.sweep",
}

__all__ = [
    "Decision",
    "Document",
    "InputError",
    "Metrics",
    "PlannerError",
    "Request",
    "Service",
    "__version__",
    "compare",
    "evaluate",
    "explain_plan",
    "make_plan",
    "pareto",
    "parity",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'planner' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
