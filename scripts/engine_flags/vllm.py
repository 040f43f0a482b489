"""vLLM: flags come from annotated config classes through ``get_kwargs(Class)["field"]``."""

from __future__ import annotations

import ast
import re
from typing import Any

from scripts.engine_flags.reading import (
    Flag,
    Wheel,
    calls,
    constants,
    flag,
    keywords,
    named_constants,
    plain_flag,
    text_arguments,
)

ENGINE_ARGUMENTS = "vllm/engine/arg_utils.py"
CLI_ARGUMENTS = ("vllm/entrypoints/common/cli_args.py", "vllm/entrypoints/launchers/cli_args.py")
_HIDDEN_CHOICES = {
    # The parser takes any text for these and the engine refuses it later; the names are these lists.
    "--kv-cache-dtype": "CacheDType",
    "--quantization": "QuantizationMethods",
}


def snapshot(wheel: Wheel) -> dict[str, Any]:
    """Return the flags of ``vllm serve``, the connectors and the environment variables."""
    cli = next(name for name in CLI_ARGUMENTS if wheel.has(name))
    trees = [wheel.tree(name) for name in wheel.files("vllm/config/")]
    trees += [wheel.tree(ENGINE_ARGUMENTS), wheel.tree(cli)]
    known = named_constants([*trees, wheel.tree("vllm/model_executor/layers/quantization/__init__.py")])
    classes = _classes(trees)
    flags = _engine_flags(wheel.tree(ENGINE_ARGUMENTS), classes, known)
    flags += _frontend_flags(wheel.tree(cli), classes, known)
    by_name = {record["names"][0]: record for record in flags}
    for name, list_name in _HIDDEN_CHOICES.items():
        by_name[name].update(flag([], "str", known[list_name]), names=by_name[name]["names"])
    by_name["--attention-backend"]["choices"] = sorted(_backends(wheel))
    return {
        "flags": by_name,
        "tables": {"EngineArgs": _engine_fields(classes, by_name)},
        "connectors": _connectors(wheel),
        "environment": _environment(wheel),
    }


def _engine_fields(classes: dict[str, dict[str, ast.expr]], flags: dict[str, Flag]) -> dict[str, Flag]:
    """Return the engine's arguments for callers in Python, with the types of their flags."""
    fields = [*classes["EngineArgs"], *classes["AsyncEngineArgs"]]
    typed = {name: flags.get(f"--{name.replace('_', '-')}", {"type": "json"}) for name in fields}
    return {name: {key: value for key, value in record.items() if key != "names"} for name, record in typed.items()}


def _classes(trees: list[ast.Module]) -> dict[str, dict[str, ast.expr]]:
    """Return the annotations of every class's fields."""
    found: dict[str, dict[str, ast.expr]] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = {
                    s.target.id: s.annotation
                    for s in node.body
                    if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
                }
    return found


def _engine_flags(tree: ast.Module, classes: dict[str, dict[str, ast.expr]], known: dict[str, list[Any]]) -> list[Flag]:
    owners: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            for call in calls(node.value, "get_kwargs"):
                owners[node.targets[0].id] = ast.unparse(call.args[0])
    flags = []
    for call in calls(tree, "add_argument"):
        names = [name for name in text_arguments(call) if name.startswith("-")]
        if not names:
            continue
        source = next((k.value for k in call.keywords if k.arg is None), None)
        annotation = _annotation(source, owners, classes)
        record = plain_flag(call, known) if annotation is None else _typed(names, annotation, known)
        if record["type"] == "bool" and annotation is None and "store" not in ast.unparse(call):
            record["names"] = [*names, *_negatives(names)]
        if "choices" in keywords(call):
            record["choices"] = constants(keywords(call)["choices"], known) or record.get("choices", [])
        flags.append(record)
    return flags


def _annotation(
    source: ast.expr | None, owners: dict[str, str], classes: dict[str, dict[str, ast.expr]]
) -> ast.expr | None:
    """Return the annotation of ``**x_kwargs["field"]``, also inside ``**{**x_kwargs["field"], ...}``."""
    for node in ast.walk(source) if source is not None else ():
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            owner = owners.get(getattr(node.value, "id", ""), "VllmConfig")
            return classes.get(owner, {}).get(str(node.slice.value))
    return None


def _frontend_flags(
    tree: ast.Module, classes: dict[str, dict[str, ast.expr]], known: dict[str, list[Any]]
) -> list[Flag]:
    flags = [plain_flag(call, known) for call in calls(tree, "add_argument") if _first(call).startswith("--")]
    for owner in ("BaseFrontendArgs", "FrontendArgs"):
        for field, annotation in classes[owner].items():
            flags.append(_typed([f"--{field.replace('_', '-')}"], annotation, known))
    return flags


def _first(call: ast.Call) -> str:
    return next(iter(text_arguments(call)), "")


def _typed(names: list[str], annotation: ast.expr, known: dict[str, list[Any]]) -> Flag:
    written = ast.unparse(annotation)
    if re.search(r"\bbool\b", written) and "str" not in written:
        return flag([*names, *_negatives(names)], "bool")
    choices = _literal_choices(annotation, known)
    many = bool(re.search(r"\b(list|set|tuple)\[", written))
    if choices is not None:
        return flag(names, "str" if any(isinstance(c, str) for c in choices) else "int", choices, many)
    if many:
        return flag(names, "int" if "int" in written else "str", None, True)
    for kind in ("int", "float"):
        if re.search(rf"\b{kind}\b", written):
            return flag(names, kind)
    if re.search(r"\bdict\b|Config\b|Overrides", written):
        return flag(names, "json")
    return flag(names, "str")


def _literal_choices(annotation: ast.expr, known: dict[str, list[Any]]) -> list[Any] | None:
    """Return a Literal's values; none where plain text is taken beside them."""
    parts = _union(annotation)
    if any(isinstance(part, ast.Name) and part.id == "str" for part in parts):
        return None
    values = [constants(part, known) for part in parts if not isinstance(part, ast.Constant)]
    found = [value for value in values if value is not None]
    return [choice for value in found for choice in value] if found else None


def _union(annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        return [*_union(annotation.left), *_union(annotation.right)]
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "Annotated":
        inner = annotation.slice
        return _union(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "list":
        return _union(annotation.slice)
    return [annotation]


def _negatives(names: list[str]) -> list[str]:
    """Return the spellings that switch a boolean off."""
    long = [name for name in names if name.startswith("--")]
    off = [f"--no-{name[2:]}" for name in long]
    for prefix, inverse in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
        off += [inverse + name.removeprefix(prefix) for name in long if name.startswith(prefix)]
    return off


def _backends(wheel: Wheel) -> list[str]:
    tree = wheel.tree("vllm/v1/attention/backends/registry.py")
    enum = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AttentionBackendEnum")
    return [s.targets[0].id for s in enum.body if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)]


def _connectors(wheel: Wheel) -> list[str]:
    tree = wheel.tree("vllm/distributed/kv_transfer/kv_connector/factory.py")
    return sorted(_first(call) for call in calls(tree, "register_connector"))


def _environment(wheel: Wheel) -> list[str]:
    tree = wheel.tree("vllm/envs.py")
    names = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return sorted(name for name in names if re.fullmatch(r"VLLM_[A-Z0-9_]+", name))
