"""LMDeploy's server, and llama.cpp's out of its compiled library."""

from __future__ import annotations

import ast
import re
import zipfile
from typing import Any

from scripts.engine_flags.reading import Flag, Wheel, calls, flag, plain_flag

LLAMA_TYPES: dict[str, tuple[str, list[str] | None]] = {
    "--model": ("str", None),
    "--alias": ("str", None),
    "--host": ("str", None),
    "--port": ("int", None),
    "--ctx-size": ("int", None),
    "--parallel": ("int", None),
    "--batch-size": ("int", None),
    "--ubatch-size": ("int", None),
    "--cache-type-k": ("str", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]),
    "--cache-type-v": ("str", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]),
    "--flash-attn": ("str", ["on", "off", "auto"]),
    "--n-gpu-layers": ("str", None),
    "--split-mode": ("str", ["none", "layer", "row", "tensor"]),
    "--rope-scaling": ("str", ["none", "linear", "yarn"]),
    "--rope-scale": ("float", None),
    "--yarn-orig-ctx": ("int", None),
    "--cache-ram": ("int", None),
    "--cache-reuse": ("int", None),
    "--slot-save-path": ("str", None),
    "--fit": ("str", ["on", "off"]),
    "--hf-repo": ("str", None),
    "--metrics": ("bool", None),
    "--kv-unified": ("bool", None),
    "--no-kv-unified": ("bool", None),
}
"""Types and choices of the flags that are emitted, as the server's own help tells them (tools/server/README.md)."""


def lmdeploy(wheel: Wheel) -> dict[str, Any]:
    """Return the flags of ``lmdeploy serve api_server``."""
    helper = next(
        node
        for node in wheel.tree("lmdeploy/cli/utils.py").body
        if isinstance(node, ast.ClassDef) and node.name == "ArgumentHelper"
    )
    shared = {node.name: node for node in helper.body if isinstance(node, ast.FunctionDef)}
    server = next(
        node
        for node in ast.walk(wheel.tree("lmdeploy/cli/serve.py"))
        if isinstance(node, ast.FunctionDef) and node.name == "add_parser_api_server"
    )
    flags = [plain_flag(call, {}) for call in calls(server, "add_argument")]
    for call in ast.walk(server):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            method = shared.get(call.func.attr)
            if method is not None and getattr(call.func.value, "id", "") == "ArgumentHelper":
                flags += [plain_flag(inner, {}) for inner in calls(method, "add_argument")]
    by_name: dict[str, Flag] = {record["names"][0]: record for record in flags if record["names"]}
    by_name["--quant-policy"] = flag(["--quant-policy"], "int", _enum(wheel, "QuantPolicy"))
    tables = {"TurbomindEngineConfig": _dataclass(wheel, "TurbomindEngineConfig")}
    return {"flags": by_name, "tables": tables}


def _enum(wheel: Wheel, name: str) -> list[int]:
    node = next(n for n in wheel.tree("lmdeploy/messages.py").body if isinstance(n, ast.ClassDef) and n.name == name)
    return [ast.literal_eval(s.value) for s in node.body if isinstance(s, ast.Assign)]


def _dataclass(wheel: Wheel, name: str) -> dict[str, Flag]:
    node = next(n for n in wheel.tree("lmdeploy/messages.py").body if isinstance(n, ast.ClassDef) and n.name == name)
    found: dict[str, Flag] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            written = ast.unparse(statement.annotation)
            kind = next((k for k in ("bool", "int", "float", "dict") if re.search(rf"\b{k}\b", written)), "str")
            found[statement.target.id] = {"type": "json" if kind == "dict" else kind}
    return found


def llama_cpp(wheel: Wheel) -> dict[str, Any]:
    """Return the long flags that are in the compiled parser, with types for those that are emitted."""
    with zipfile.ZipFile(wheel.path) as archive:
        library = next(name for name in archive.namelist() if name.endswith(".so"))
        content = archive.read(library)
    found = {name.decode() for name in re.findall(rb"\x00(--[a-z][a-z0-9-]{2,})(?=\x00)", content)}
    missing = sorted(set(LLAMA_TYPES) - found)
    if missing:
        raise ValueError(f"{wheel.path.name}: its parser has no {', '.join(missing)}; correct LLAMA_TYPES")
    return {"flags": {name: flag([name], *LLAMA_TYPES.get(name, ("str", None))) for name in sorted(found)}}
