"""Why there is no plan, and what the next unit of each limit would buy when there is one.

Every sentence rests on a solve: a limit is lifted or moved, the request resolved again, and the answer
asked of the same solver.
"""

from planner.explain.gains import Gain, binding_gains, gains
from planner.explain.infeasible import explain_infeasible
from planner.explain.unused import unused

__all__ = ["Gain", "binding_gains", "explain_infeasible", "gains", "unused"]
