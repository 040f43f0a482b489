"""SGLang: flags are fields annotated ``A[type, "help"]`` or ``A[type, Arg(...)]`` in namespace classes."""

from __future__ import annotations

import ast
import re
from typing import Any

from scripts.engine_flags.reading import Flag, Wheel, calls, constants, flag, keywords, named_constants, plain_flag

FIELDS = "sglang/srt/arg_groups/fields/"
SERVER = "sglang/srt/server_args.py"


def snapshot(wheel: Wheel) -> dict[str, Any]:
    """Return the flags of ``sglang serve``."""
    trees = [wheel.tree(name) for name in wheel.files(FIELDS)]
    known = named_constants([wheel.tree("sglang/srt/arg_groups/choices.py"), wheel.tree(SERVER), *trees])
    flags = [record for tree in trees for record in _fields(tree, known)]
    declared = {name for record in flags for name in record["names"]}
    for call in calls(wheel.tree(SERVER), "add_argument"):
        record = plain_flag(call, known)
        if record["names"] and not declared & set(record["names"]):
            flags.append(record)
    return {"flags": {record["names"][0]: record for record in flags}, "environment": _environment(wheel)}


def _environment(wheel: Wheel) -> list[str]:
    tree = wheel.tree("sglang/srt/environ.py")
    targets = [n.targets[0] for n in ast.walk(tree) if isinstance(n, ast.Assign)]
    return sorted({t.id for t in targets if isinstance(t, ast.Name) and t.id.startswith("SGLANG_")})


def _fields(tree: ast.Module, known: dict[str, list[Any]]) -> list[Flag]:
    found = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                record = _field(statement.target.id, statement.annotation, known)
                if record is not None:
                    found.append(record)
    return found


def _field(name: str, annotation: ast.expr, known: dict[str, list[Any]]) -> Flag | None:
    if not isinstance(annotation, ast.Subscript) or getattr(annotation.value, "id", "") != "A":
        return None
    if not isinstance(annotation.slice, ast.Tuple):
        return None
    kind, meta = annotation.slice.elts[0], annotation.slice.elts[1]
    given = keywords(meta) if isinstance(meta, ast.Call) else {}
    if "no_cli" in given or (isinstance(meta, ast.Call) and getattr(meta.func, "id", "") != "Arg"):
        return None
    spelled = ast.literal_eval(given["cli_name"]) if "cli_name" in given else f"--{name.replace('_', '-')}"
    names = [spelled, *(constants(given.get("aliases"), known) or [])]
    written = ast.unparse(kind)
    choices = constants(given.get("choices"), known) or _literal(kind, known)
    if "action" in given:
        action = ast.unparse(given["action"])
        if "Boolean" in action:
            return flag([*names, *(f"--no-{n[2:]}" for n in names)], "bool")
        return flag(names, "bool" if "True" in action else "str", choices, "LoRA" in action)
    if re.fullmatch(r"(Optional\[)?bool\]?", written) and "type_parser" not in given:
        return flag(names, "bool")
    parser = ast.unparse(given["type_parser"]) if "type_parser" in given else ""
    if "json" in parser:
        return flag(names, "json")
    many = bool(re.search(r"\bList\[|\blist\[", written)) and not parser
    for word in ("int", "float"):
        if re.search(rf"\b{word}\b", written):
            return flag(names, word, choices, many)
    return flag(names, "str", choices, many)


def _literal(kind: ast.expr, known: dict[str, list[Any]]) -> list[Any] | None:
    for node in ast.walk(kind):
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal":
            return constants(node, known)
    return None
