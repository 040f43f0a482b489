"""Read Python source inside a wheel: literals, and the flags of ``add_argument`` calls."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

Flag = dict[str, Any]
"""A flag of a command line: names, type (bool, int, float, str, json), choices, whether it takes many."""

JSON_PARSERS = ("loads", "json", "dict", "dataclass")


class Wheel:
    """The Python files of a wheel, parsed on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trees: dict[str, ast.Module] = {}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def files(self, under: str) -> list[str]:
        """Return the Python files below a folder, by name."""
        return sorted(n for n in self._archive.namelist() if n.startswith(under) and n.endswith(".py"))

    def has(self, name: str) -> bool:
        """Tell whether the wheel holds a file."""
        return name in self._archive.namelist()

    def text(self, name: str) -> str:
        """Return a file's text."""
        return self._archive.read(name).decode()

    def tree(self, name: str) -> ast.Module:
        """Return a parsed file."""
        if name not in self._trees:
            self._trees[name] = ast.parse(self._archive.read(name))
        return self._trees[name]


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a function or method, by its last name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == name:
                yield node


def text_arguments(call: ast.Call) -> list[str]:
    """Return the positional arguments that are strings; of an f-string, what stands between its names."""
    found = []
    for argument in call.args:
        if isinstance(argument, ast.JoinedStr):
            found.append("".join(str(v.value) for v in argument.values if isinstance(v, ast.Constant)))
        elif isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            found.append(argument.value)
    return found


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Return the named arguments of a call."""
    return {k.arg: k.value for k in call.keywords if k.arg is not None}


def constants(node: ast.AST | None, known: dict[str, list[Any]]) -> list[Any] | None:
    """Return the values of a list, tuple, set or ``Literal``, with names looked up; None if they aren't plain."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal":
        node = node.slice if isinstance(node.slice, ast.Tuple) else ast.List(elts=[node.slice])
    if isinstance(node, ast.BinOp):
        left, right = constants(node.left, known), constants(node.right, known)
        return None if left is None or right is None else [*left, *right]
    if not isinstance(node, ast.List | ast.Tuple | ast.Set):
        return None
    values: list[Any] = []
    for element in node.elts:
        if isinstance(element, ast.Constant):
            values.append(element.value)
        elif isinstance(element, ast.Name) and element.id in known:
            values += known[element.id]
        else:
            return None
    return values


def named_constants(trees: list[ast.Module]) -> dict[str, list[Any]]:
    """Return the module-level lists and Literals of files, by name."""
    known: dict[str, list[Any]] = {}
    for _ in range(2):  # twice, since one may be built from another
        for tree in trees:
            for statement in tree.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    values = constants(statement.value, known)
                    if values is not None:
                        known[statement.targets[0].id] = values
    return known


def plain_flag(call: ast.Call, known: dict[str, list[Any]]) -> Flag:
    """Return the flag of an ``add_argument`` call that says everything itself."""
    given = keywords(call)
    names = [name for name in text_arguments(call) if name.startswith("-")]
    action = ast.unparse(given["action"]).strip("'\"") if "action" in given else ""
    if "store_true" in action or "store_false" in action or "Boolean" in action or "StoreTrue" in action:
        return flag(names, "bool")
    kind = "str"
    if "type" in given:
        kind = _kind(ast.unparse(given["type"]))
    many = "nargs" in given and ast.unparse(given["nargs"]).strip("'\"") in ("+", "*")
    return flag(names, kind, constants(given.get("choices"), known), many or action == "append")


def _kind(parser: str) -> str:
    if any(word in parser for word in JSON_PARSERS):
        return "json"
    if "float" in parser:
        return "float"
    return "int" if "int" in parser else "str"


def flag(names: list[str], kind: str, choices: list[Any] | None = None, many: bool = False) -> Flag:
    """Return a flag's record; None among the choices (an unset default) is dropped."""
    record: Flag = {"names": names, "type": kind}
    if choices is not None:
        record["choices"] = sorted({value for value in choices if value is not None}, key=str)
    if many:
        record["many"] = True
    return record
