"""Which models of Transformers an engine can run in the place of one of its own."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from scripts.engine_flags.reading import Wheel

GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_ATTENTION = re.compile(r"^class \w*Attention\w*\(nn\.Module\):", re.MULTILINE)


@dataclass(frozen=True)
class _Class:
    bases: tuple[str, ...]
    declared: bool | None
    """What it says of ``_supports_attention_backend`` itself."""
    dispatches: bool
    """Whether its file's attention goes through the interface that an engine puts its own kernels behind."""


def compatible(wheel: Wheel, *, dispatching_is_enough: bool) -> list[str]:
    """Return the generating models that say, or show, that an engine's attention can take the place of theirs.

    Parameters
    ----------
    wheel
        Of Transformers.
    dispatching_is_enough
        vLLM also takes models that say nothing, if their file dispatches attention through the interface;
        SGLang takes only those that say so.
    """
    classes = _classes(wheel)
    found = []
    for name, known in classes.items():
        if name.endswith(GENERATING) and (_supports(name, classes) or (dispatching_is_enough and known.dispatches)):
            found.append(name)
    return sorted(found)


def _classes(wheel: Wheel) -> dict[str, _Class]:
    found: dict[str, _Class] = {}
    for name in wheel.files("transformers/models/"):
        if not name.rpartition("/")[2].startswith("modeling_"):
            continue
        source = wheel.text(name)
        # As Transformers' PreTrainedModel._can_set_attn_implementation decides.
        dispatches = not _ATTENTION.search(source) or "ALL_ATTENTION_FUNCTIONS.get_interface(" in source
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base) for base in node.bases)
                found[node.name] = _Class(bases, _declared(node), dispatches)
    return found


def _declared(node: ast.ClassDef) -> bool | None:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_supports_attention_backend":
            return bool(ast.literal_eval(statement.value))
    return None


def _supports(name: str, classes: dict[str, _Class]) -> bool:
    known = classes.get(name)
    if known is None:
        return False
    if known.declared is not None:
        return known.declared
    return any(_supports(base, classes) for base in known.bases)
