"""Read which architectures an engine registers, from the source in its wheel."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from scripts.engine_flags.reading import Wheel

GENERATING = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS")
BACKENDS = ("TransformersFor", "TransformersMoE", "TransformersMultiModal", "TransformersEmbedding")
"""vLLM's and SGLang's own wrappers around a model of Transformers: no model's architecture."""
DRAFTS = ("NextN", "MTP", "DSpark", "DraftModel", "Eagle3", "Speculator")
"""How models that only draft for another one are named."""


def vllm(wheel: Wheel) -> dict[str, Any]:
    """Return vLLM's models that generate, and those that it had once with the last version that had them."""
    tables = _tables(wheel.tree("vllm/model_executor/models/registry.py"))
    native = {name for table in GENERATING for name in _keys(tables[table])}
    return {
        "native": sorted(name for name in native if not name.startswith(BACKENDS)),
        "removed": ast.literal_eval(tables["_PREVIOUSLY_SUPPORTED_MODELS"]),
    }


def sglang(wheel: Wheel) -> dict[str, Any]:
    """Return the classes that SGLang's model files enter into its registry."""
    native: dict[str, str] = {}
    for name in wheel.files("sglang/srt/models/"):
        if name.count("/") == 3:  # the registry walks the folder itself, not those below
            native |= dict.fromkeys(_entry_classes(wheel.tree(name)), name)
    classes = _classes(wheel, "sglang/srt/models/")
    listed = sorted(name for name in native if not name.startswith(BACKENDS) and not _drafts(name))
    return {"native": listed, "no_pipeline": [name for name in listed if not _takes_stages(classes, name)]}


def lmdeploy(wheel: Wheel) -> dict[str, Any]:
    """Return TurboMind's models, and those of LMDeploy's other engine, in PyTorch, that the flags don't choose."""
    tables = _tables(wheel.tree("lmdeploy/turbomind/supported_models.py"))
    native = {name.arg for name in ast.walk(tables["SUPPORTED_ARCHS"]) if isinstance(name, ast.keyword) and name.arg}
    modules = wheel.tree("lmdeploy/pytorch/models/module_map.py")
    pytorch = {key for call in _updates(modules, "MODULE_MAP") for key in _keys(call.args[0])}
    return {
        "native": sorted(native),
        "other_engine": {"PyTorch": sorted(name for name in pytorch - native if not _drafts(name))},
    }


def kvpress(wheel: Wheel) -> dict[str, Any]:
    """Return the models with which kvpress's presses are tested; with any other it warns."""
    table = _tables(wheel.tree("kvpress/presses/base_press.py"))["SUPPORTED_MODELS"]
    return {"native": sorted(name.id for name in ast.walk(table) if isinstance(name, ast.Name))}


def _classes(wheel: Wheel, folder: str) -> dict[str, list[ast.ClassDef]]:
    """Return the classes below a folder by name; a name may stand in several modules."""
    found: dict[str, list[ast.ClassDef]] = {}
    for path in wheel.files(folder):
        for node in wheel.tree(path).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def _bases(node: ast.ClassDef) -> list[str]:
    names = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [name.id for name in names if isinstance(name, ast.Name)]


def _takes_stages(classes: dict[str, list[ast.ClassDef]], name: str) -> bool:
    """Whether SGLang's model can be a pipeline's stage: its ``forward`` takes what the stage before computed.

    Its model runner asks the same of the built model, and some models refuse in their own constructors.
    """
    for node in classes.get(name, []):
        alone = "is_first_rank and self.pp_group.is_last_rank"
        if any(isinstance(part, ast.Assert) and alone in ast.unparse(part) for part in ast.walk(node)):
            return False
        forward = next((p for p in node.body if isinstance(p, ast.FunctionDef) and p.name == "forward"), None)
        if forward is not None:
            return "pp_proxy_tensors" in [a.arg for a in (*forward.args.args, *forward.args.kwonlyargs)]
        return any(_takes_stages(classes, base) for base in _bases(node) if base != name)
    return False


def _drafts(name: str) -> bool:
    return any(mark in name for mark in DRAFTS)


def _tables(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the module-level assignments of a file, by name."""
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found[statement.target.id] = statement.value
    return found


def _keys(table: ast.expr) -> list[str]:
    """Return the text keys of a dict that is written out."""
    keys = table.keys if isinstance(table, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _entry_classes(tree: ast.Module) -> Iterator[str]:
    value = _tables(tree).get("EntryClass")
    for element in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
        if isinstance(element, ast.Name):
            yield element.id


def _updates(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    """Yield the calls ``NAME.update({...})``."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "update"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == name
        ):
            yield node
