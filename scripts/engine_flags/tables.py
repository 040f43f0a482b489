"""Engines and tools whose settings are keys of a file, or plain ``add_argument`` calls."""

from __future__ import annotations

import ast
from typing import Any

from scripts.engine_flags.reading import Flag, Wheel, calls, flag, keywords, plain_flag


def lmcache(wheel: Wheel) -> dict[str, Any]:
    """Return LMCache's configuration keys, from its literal table of definitions."""
    tree = wheel.tree("lmcache/v1/config.py")
    table = next(
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "_CONFIG_DEFINITIONS"
    )
    keys: dict[str, Flag] = {}
    for key, value in _items(table):
        keys[key] = _without_names(_setting(dict(_items(value))["type"]))
    return {"tables": {"config": keys}}


def router(wheel: Wheel) -> dict[str, Any]:
    """Return the flags of ``vllm-router`` or ``sglang-router``."""
    (name,) = [n for n in (f"{p}_router/router_args.py" for p in ("vllm", "sglang")) if wheel.has(n)]
    flags = [plain_flag(call, {}) for call in calls(wheel.tree(name), "add_argument")]
    return {"flags": {record["names"][0]: record for record in flags if record["names"]}}


def ray_serve(wheel: Wheel) -> dict[str, Any]:
    """Return the fields of Ray Serve's ``LLMConfig`` and the accelerators that Ray knows."""
    tree = wheel.tree("ray/llm/_internal/serve/core/configs/llm_config.py")
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    tables = {name: _fields(classes[name], {}) for name in ("LLMConfig", "ModelLoadingConfig")}
    tables["LLMConfig"] = {k: v for k, v in tables["LLMConfig"].items() if not k.startswith("_")}
    tables["LLMConfig"]["model_loading_config"] = {"type": "json", "table": "ModelLoadingConfig"}
    accelerators = [
        statement.value.value
        for statement in wheel.tree("ray/util/accelerators/accelerators.py").body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
    ]
    tables["LLMConfig"]["accelerator_type"] = {"type": "str", "choices": sorted(map(str, accelerators))}
    for name in ("engine_kwargs", "deployment_config", "runtime_env", "placement_group_config"):
        tables["LLMConfig"][name] = {"type": "json"}
    return {"tables": tables}


def aiperf(wheel: Wheel) -> dict[str, Any]:
    """Return the flags of ``aiperf profile``: the annotated fields of its command line's class."""
    tree = wheel.tree("aiperf/config/flags/cli_config.py")
    (config,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "CLIConfig"]
    flags: dict[str, Flag] = {}
    for statement in config.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.annotation, ast.Subscript):
            continue
        names = [n for call in calls(statement.annotation, "CLIParameter") for n in _names(call)]
        if names and isinstance(statement.annotation.slice, ast.Tuple):
            written = ast.unparse(statement.annotation.slice.elts[0]).removesuffix(" | None")
            flags[names[0]] = flag(names, written if written in ("bool", "int", "float") else "str", None, False)
    return {"flags": flags}


def _names(call: ast.Call) -> list[str]:
    found = keywords(call).get("name")
    elements = found.elts if isinstance(found, ast.Tuple) else [found]
    return [str(e.value) for e in elements if isinstance(e, ast.Constant) and e.value]


def kvpress(wheel: Wheel) -> dict[str, Any]:
    """Return the parameters of every press, inherited ones included."""
    classes: dict[str, ast.ClassDef] = {}
    for name in wheel.files("kvpress/presses/"):
        classes.update({n.name: n for n in wheel.tree(name).body if isinstance(n, ast.ClassDef)})
    tables = {name: _fields(node, classes) for name, node in sorted(classes.items()) if name.endswith("Press")}
    return {"tables": tables}


def _fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Flag]:
    found: dict[str, Flag] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            found |= _fields(classes[base.id], classes)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = _without_names(_setting(statement.annotation))
    return found


def _items(node: ast.AST | None) -> list[tuple[str, ast.expr]]:
    if not isinstance(node, ast.Dict):
        return []
    return [(str(k.value), v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]


def _setting(annotation: ast.AST) -> Flag:
    written = ast.unparse(annotation)
    many = "list" in written.lower()
    for kind in ("bool", "int", "float", "dict"):
        if kind in written and "str" not in written:
            return flag([], "json" if kind == "dict" else kind, None, many)
    return flag([], "str", None, many)


def _without_names(record: Flag) -> Flag:
    return {key: value for key, value in record.items() if key != "names"}
