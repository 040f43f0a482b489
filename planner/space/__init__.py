"""Which decisions exist for a request, and why each one that doesn't was dropped."""

from planner.space.options import Option, WeightOption
from planner.space.runs import Run, merged, runs
from planner.space.space import Policy, Space, open_space
from planner.space.splits import Split

__all__ = ["Option", "Policy", "Run", "Space", "Split", "WeightOption", "merged", "open_space", "runs"]
