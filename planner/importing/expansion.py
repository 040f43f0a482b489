"""Turn words of a shell script into what the command gets: quotes, variables, arrays, defaults. Runs nothing."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tree_sitter import Node

from planner.importing.unknown import Holes, is_known, split_words, unknown

Value = str | list[str]

_BRACES = re.compile(r"^\$\{(?P<count>#)?(?P<name>\w+|[@*#])(?:\[(?P<index>[^\]]*)\])?(?P<rest>.*)\}$", re.DOTALL)
_DEFAULT = re.compile(r"^(?P<colon>:?)(?P<kind>[-=+?])")
_EXPANSIONS = {
    "simple_expansion",
    "expansion",
    "command_substitution",
    "arithmetic_expansion",
    "process_substitution",
}
_QUOTED = {"string", "raw_string", "ansi_c_string", "translated_string"}
_SEQUENCE = re.compile(r"\{(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})\}")
_MOST_IN_SEQUENCE = 256
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(slots=True)
class Scope:
    """What a place in a script knows."""

    variables: dict[str, Value] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    """``$1`` and the rest: of a function, or of ``bash -c SCRIPT``; a file is run without any."""
    zeroth: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """Texts that the script writes, by path."""
    notes: list[str] = field(default_factory=list)
    """Values that were taken because nothing else was given."""
    substitutes: Callable[[Node], str | None] = lambda node: None
    """What a ``$(command)`` prints, where that can be said without running it."""
    holes: Holes = field(default_factory=Holes)


def fields_of(node: Node, scope: Scope) -> list[str]:
    """Return the words that one word of a script becomes."""
    kind = node.type
    if kind == "concatenation":
        return _joined([fields_of(child, scope) for child in node.children])
    if kind in _QUOTED:
        return _quoted(node, scope)
    if kind in _EXPANSIONS:
        return _unquoted(node, scope)
    if kind == "brace_expression":
        return sequence(_text(node, scope)) or [_text(node, scope)]
    if kind == "array":
        return [word for child in node.named_children if child.type != "comment" for word in fields_of(child, scope)]
    if kind == "command_name":
        return _joined([fields_of(child, scope) for child in node.children])
    return [_unescaped(_text(node, scope))]


def text_of(node: Node, scope: Scope) -> str:
    """Return one word, whatever it is split into: of an assignment or a redirection."""
    if node.type in _EXPANSIONS:
        return " ".join(_expanded(node, scope, quoted=True))
    if node.type == "concatenation":
        return "".join(text_of(child, scope) for child in node.children)
    return " ".join(fields_of(node, scope))


def filled(node: Node, scope: Scope) -> str:
    """Return the text of a here-document with its variables filled in."""
    return "".join(_pieces(node, scope, node.start_byte, node.end_byte))


def sequence(text: str) -> list[str]:
    """Return what ``{0..3}`` stands for, empty if the text isn't one.

    >>> sequence("{1..3}")
    ['1', '2', '3']
    """
    match = _SEQUENCE.fullmatch(text)
    if match is None:
        return []
    first, last = int(match[1]), int(match[2])
    step = 1 if last >= first else -1
    return [str(n) for n in range(first, last + step, step)[:_MOST_IN_SEQUENCE]]


def arithmetic(text: str, variables: Mapping[str, Value]) -> int | None:
    """Return the value of ``$(( ... ))``; None where a variable isn't known or it isn't plain arithmetic.

    >>> arithmetic("TP * $N", {"TP": "4", "N": "2"})
    8
    """

    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1])
        return found if isinstance(found, str) and re.fullmatch(r"-?\d+", found) else "?"

    plain = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\b\}?", value, text)
    if not re.fullmatch(r"[\d\s+*/%()-]{1,200}", plain):
        return None
    try:
        return _number(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _number(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_number(node.left), _number(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    raise ValueError("no plain arithmetic")


def _joined(parts: list[list[str]]) -> list[str]:
    """Join neighbours: the last word of one part goes on in the first word of the next."""
    words: list[str] = []
    for part in parts:
        if words and part:
            words[-1] += part[0]
            words += part[1:]
        else:
            words += part
    return words


def _quoted(node: Node, scope: Scope) -> list[str]:
    text = _text(node, scope)
    if node.type == "raw_string":
        return [text[1:-1]]
    if node.type == "ansi_c_string":
        return [text[2:-1].replace("\\n", "\n").replace("\\t", "\t").replace("\\'", "'")]
    inner = [child for child in node.named_children if child.type in _EXPANSIONS]
    if len(inner) == 1 and node.end_byte - node.start_byte == inner[0].end_byte - inner[0].start_byte + 2:
        return _expanded(inner[0], scope, quoted=True)  # "${A[@]}" is as many words as the array has
    return ["".join(_pieces(node, scope, node.start_byte + 1, node.end_byte - 1, _in_quotes))]


def _pieces(
    node: Node, scope: Scope, start: int, end: int, plain: Callable[[str], str] = lambda text: text
) -> list[str]:
    """Return the text between two bytes of a node, its expansions replaced."""
    source = node.text or b""
    found: list[str] = []
    at = start
    for child in node.children:
        if child.type not in _EXPANSIONS or child.start_byte < at or child.end_byte > end:
            continue
        found.append(plain(_decoded(source[at - node.start_byte : child.start_byte - node.start_byte], scope)))
        found.append(" ".join(_expanded(child, scope, quoted=True)))
        at = child.end_byte
    found.append(plain(_decoded(source[at - node.start_byte : end - node.start_byte], scope)))
    return found


def _unquoted(node: Node, scope: Scope) -> list[str]:
    return [word for text in _expanded(node, scope, quoted=False) for word in split_words(text)]


def _expanded(node: Node, scope: Scope, *, quoted: bool) -> list[str]:
    """Return what an expansion stands for: several words only for all elements of an array, none for an empty one."""
    source = _text(node, scope)
    if node.type == "arithmetic_expansion":
        found = arithmetic(source[3:-2] if source.startswith("$((") else source[2:-1], scope.variables)
        return [unknown(source) if found is None else str(found)]
    if node.type in ("command_substitution", "process_substitution"):
        printed = scope.substitutes(node)
        return [unknown(source) if printed is None else printed]
    if node.type == "simple_expansion":
        return _value(source[1:], None, source, scope, quoted=quoted)
    match = _BRACES.match(source)
    if match is None:
        return [unknown(source)]
    if match["count"]:
        value = _stored(match["name"], match["index"], scope)
        return [unknown(source)] if value is None else [str(len(value))]
    rest = match["rest"]
    if not rest:
        return _value(match["name"], match["index"], source, scope, quoted=quoted)
    return _with_default(node, match, source, scope)


def _with_default(node: Node, match: re.Match[str], source: str, scope: Scope) -> list[str]:
    """``${X:-default}``, ``${X:+instead}`` and their like; other ways to change a value aren't followed."""
    name, kind = match["name"], _DEFAULT.match(match["rest"])
    value = _stored(name, match["index"], scope)
    if kind is None:
        return [unknown(source)]
    is_set = value is not None and (bool(value) or not kind["colon"])
    if is_set and value is not None and not isinstance(value, list) and not is_known(value):
        return [unknown(source)]
    words = [value] if isinstance(value, str) else value or []
    if kind["kind"] == "+":
        if is_set:
            return _operand(node, scope)
        scope.notes.append(f"{name} isn't set in the file: {source} is taken to be empty")
        return []
    if is_set:
        return words
    if kind["kind"] == "?":
        return [unknown(source)]
    found = _operand(node, scope)
    if kind["kind"] == "=":
        scope.variables[name] = " ".join(found)
    if not re.fullmatch("[0-9]+", name) and all(is_known(word) for word in found):
        scope.notes.append(f"{name} isn't set in the file: its default {' '.join(found) or '(empty)'} is taken")
    return found


def _operand(node: Node, scope: Scope) -> list[str]:
    """Return what follows the operator of an expansion."""
    children = node.children
    at = next((i for i, child in enumerate(children) if re.fullmatch(r":?[-=+?]", _text(child, scope))), len(children))
    operands = [child for child in children[at + 1 :] if child.type != "}"]
    if not operands:
        return []
    between = (node.text or b"")[operands[0].start_byte - node.start_byte : operands[-1].end_byte - node.start_byte]
    if len(operands) == 1 or b" " not in between:
        return ["".join(text_of(child, scope) for child in operands)]
    words: list[str] = []
    for child in operands:
        words += fields_of(child, scope)
    return [" ".join(words)]


def _value(name: str, index: str | None, source: str, scope: Scope, *, quoted: bool) -> list[str]:
    if name in ("@", "*"):
        return list(scope.arguments)
    value = _stored(name, index, scope)
    if value is None:
        return [unknown(source)]
    if isinstance(value, list):
        return value if index != "*" or not quoted else [" ".join(value)]
    return [value] if value or quoted else []


def _stored(name: str, index: str | None, scope: Scope) -> Value | None:
    """Return a variable's value, an array's element or all of it; None where the file doesn't say."""
    if name == "#":
        return str(len(scope.arguments))
    if name == "0":
        return scope.zeroth
    if re.fullmatch("[0-9]+", name):
        place = int(name) - 1
        return scope.arguments[place] if 0 <= place < len(scope.arguments) else None
    value = scope.variables.get(name)
    if index is None:
        return value[0] if isinstance(value, list) and value else "" if isinstance(value, list) else value
    elements = value if isinstance(value, list) else None if value is None else [value]
    if elements is None or index in ("@", "*"):
        return elements
    place = int(index) if re.fullmatch("[0-9]{1,6}", index) else -1
    return elements[place] if 0 <= place < len(elements) else None


def _text(node: Node, scope: Scope) -> str:
    return _decoded(node.text or b"", scope)


def _decoded(source: bytes, scope: Scope) -> str:
    return scope.holes.put_back(source.decode("utf-8", "replace"))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(\n|.)", lambda match: "" if match[1] == "\n" else match[1], text, flags=re.DOTALL)


def _in_quotes(text: str) -> str:
    return re.sub(r'\\(\n|["$`\\])', lambda match: "" if match[1] == "\n" else match[1], text)
