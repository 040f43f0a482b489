"""Import CP-SAT quickly.

``ortools.sat.python.cp_model`` imports pandas, of which it only needs two names for annotations that
this program doesn't use; pandas costs more than a second, more than a whole plan (docs/adr/0003).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_cp_model() -> Any:
    """Return ``ortools.sat.python.cp_model``, without pandas unless it is loaded already."""
    name = "ortools.sat.python.cp_model"
    if name in sys.modules or "pandas" in sys.modules:
        return importlib.import_module(name)
    stand_in = ModuleType("pandas")
    stand_in.Index = type("Index", (), {})  # type: ignore[attr-defined]
    stand_in.Series = type("Series", (), {})  # type: ignore[attr-defined]
    sys.modules["pandas"] = stand_in
    try:
        return importlib.import_module(name)
    except AttributeError:
        # Another version needs more of pandas: pay for it.
        sys.modules.pop("pandas", None)
        sys.modules.pop(name, None)
        return importlib.import_module(name)
    finally:
        if sys.modules.get("pandas") is stand_in:
            del sys.modules["pandas"]
