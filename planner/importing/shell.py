"""Follow a shell script without running it: which commands it would start, with which words.

Both sides of a condition that can't be told are followed; a variable that they set differently is unknown after them.
"""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from planner.errors import InputError
from planner.importing.conditions import truth_of
from planner.importing.expansion import Scope, Value, fields_of, filled, text_of
from planner.importing.unknown import Holes, is_known, unknown

_MOST_TURNS = 64
"""Turns of one loop that are followed."""
_MOST_COMMANDS = 4096
_DEEPEST = 40
_SILENT = frozenset({"comment", "heredoc_body", "heredoc_end", "heredoc_start"})


@dataclass(frozen=True, slots=True)
class Started:
    """One simple command, as it would be started."""

    words: tuple[str, ...]
    environment: Mapping[str, Value]
    """All variables at that place, with those before the command."""
    line: int
    stdin: str | None = None
    """Text of a here-document."""
    cases: tuple[tuple[int, int], ...] = ()
    """Conditions that it stands under: where, and which side."""
    broken: int | None = None
    """Line of it that isn't shell."""


@dataclass(slots=True)
class Script:
    """What a script would start."""

    commands: list[Started] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Texts that it writes with here-documents, by path."""
    notes: list[str] = field(default_factory=list)
    broken: int | None = None
    """First line that isn't shell."""


def read_script(
    text: str,
    variables: Mapping[str, Value] | None = None,
    arguments: Sequence[str] = (),
    zeroth: str = "",
) -> Script:
    """Return the commands of a script in their order.

    Parameters
    ----------
    text
        The script.
    variables
        What is set before it starts.
    arguments
        ``$1`` and further.
    zeroth
        ``$0``.
    """
    holes = Holes()
    source = holes.take(text.replace("\r\n", "\n"))
    root = _parser().parse(source.encode("utf-8", "replace")).root_node
    scope = Scope(dict(variables or {}), list(arguments), zeroth, holes=holes)
    reader = _Reader(scope, tuple(_errors(root)))
    try:
        reader.follow(root)
        reader.follow_uncalled()
    except RecursionError:
        raise InputError("the file: its shell is nested too deeply to follow; give the command alone") from None
    script = reader.script
    script.files, script.notes = scope.files, list(dict.fromkeys(scope.notes))
    script.broken = next(iter(reader.broken), None)
    return script


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))


def _errors(node: Node) -> Iterator[int]:
    """Yield the lines of what isn't shell; where a whole text isn't, those of the pieces that fit nowhere."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if not node.has_error:
            continue
        if node.is_missing or (node.is_error and not any(child.is_named for child in node.children)):
            yield int(node.start_point[0]) + 1
            continue
        if node.is_error:
            loose = [child for child in node.children if not child.is_named or child.is_error]
            yield from (int(child.start_point[0]) + 1 for child in loose[:1] or node.children[:1])
        waiting += reversed(node.children)


class _Reader:
    """Walks over the tree of a script and keeps what its commands would know."""

    def __init__(self, scope: Scope, broken: tuple[int, ...]) -> None:
        self.scope = scope
        self.broken = broken
        self.script = Script()
        self.cases: tuple[tuple[int, int], ...] = ()
        self.functions: dict[str, Node] = {}
        self.called: set[str] = set()
        self.depth = 0
        scope.substitutes = self._printed

    def follow(self, node: Node) -> None:
        """Follow one statement and what it contains."""
        if self.depth > _DEEPEST or len(self.script.commands) > _MOST_COMMANDS:
            return
        self.depth += 1
        handler = getattr(self, f"_{node.type}", None)
        if handler is not None:
            handler(node)
        elif node.type not in _SILENT:
            for child in node.named_children:
                self.follow(child)
        self.depth -= 1

    def follow_uncalled(self) -> None:
        """Follow functions that the file only defines."""
        for name, body in list(self.functions.items()):
            if name not in self.called:
                self.follow(body)

    # Commands

    def _command(self, node: Node) -> None:
        self._start(node, None)

    def _start(self, node: Node, stdin: str | None) -> None:
        own: dict[str, Value] = {}
        words: list[str] = []
        for child in node.named_children:
            if child.type == "variable_assignment":
                name, value, _ = self._assigned(child)
                own[name] = value
            elif child.type not in ("file_redirect", "herestring_redirect", "comment"):
                words += fields_of(child, self.scope)
        name = words[0] if words else ""
        if name in self.functions and self.depth < _DEEPEST:
            self._call(name, words[1:], own)
            return
        if name in (":", "true", "false") or not words:
            return
        if name == "set" and words[1:2] == ["--"]:
            self.scope.arguments = words[2:]
        elif name == "shift":
            self.scope.arguments = self.scope.arguments[1:]
        elif name == "read":
            self.scope.variables.update({w: unknown(f"${w}") for w in words[1:] if not w.startswith("-")})
        elif name in ("cat", "tee") and stdin is not None:
            return
        known = {**self.scope.variables, **own}
        self.script.commands.append(
            Started(tuple(words), known, int(node.start_point[0]) + 1, stdin, self.cases, self._broken(node))
        )

    def _broken(self, node: Node) -> int | None:
        lines = range(int(node.start_point[0]) + 1, int(node.end_point[0]) + 2)
        return next((line for line in self.broken if line in lines), None)

    def _call(self, name: str, arguments: list[str], own: Mapping[str, Value]) -> None:
        self.called.add(name)
        before, self.scope.arguments = self.scope.arguments, arguments
        self.scope.variables.update(own)
        self.follow(self.functions[name])
        self.scope.arguments = before

    def _function_definition(self, node: Node) -> None:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            self.functions[(name.text or b"").decode("utf-8", "replace")] = body

    def _redirected_statement(self, node: Node) -> None:
        body = node.child_by_field_name("body")
        redirects = [child for child in node.named_children if child.type.endswith("redirect")]
        here = next((child for child in redirects if child.type == "heredoc_redirect"), None)
        text = None if here is None else self._here(here)
        if text is not None and here is not None:
            inside = [child for child in here.named_children if child.type == "file_redirect"]
            for path in self._written([*redirects, *inside], body):
                self.scope.files[path] = text
        if body is not None and body.type == "command":
            self._start(body, text)
        elif body is not None:
            self.follow(body)
        for child in here.named_children if here is not None else ():
            if child.type not in _SILENT and child.type != "file_redirect":
                self.follow(child)  # cat <<EOF | sh

    def _here(self, redirect: Node) -> str:
        start = next((child for child in redirect.named_children if child.type == "heredoc_start"), None)
        body = next((child for child in redirect.named_children if child.type == "heredoc_body"), None)
        if body is None:
            return ""
        quoted = start is not None and (start.text or b"")[:1] in (b"'", b'"', b"\\")
        plain = self.scope.holes.put_back((body.text or b"").decode("utf-8", "replace"))
        return plain if quoted else filled(body, self.scope).replace("\\$", "$").replace("\\\n", "")

    def _written(self, redirects: Sequence[Node], body: Node | None) -> list[str]:
        paths = []
        for redirect in redirects:
            target = redirect.child_by_field_name("destination")
            if redirect.type == "file_redirect" and target is not None and b">" in (redirect.text or b""):
                paths.append(text_of(target, self.scope))
        words = [word for child in body.named_children for word in fields_of(child, self.scope)] if body else []
        if words[:1] == ["tee"] or words[:2] == ["sudo", "tee"]:
            paths += [word for word in words[1:] if not word.startswith("-") and word != "tee"]
        return paths

    def _printed(self, node: Node) -> str | None:
        """What ``$(seq ...)``, ``$(cat <<EOF)`` and ``$(echo ...)`` print; other commands aren't known."""
        if len(node.named_children) != 1:
            return None
        command = node.named_children[0]
        if command.type == "redirected_statement":
            here = next((child for child in command.named_children if child.type == "heredoc_redirect"), None)
            return None if here is None or not (command.text or b"").startswith(b"cat") else self._here(here).rstrip()
        if command.type != "command":
            return None
        words = [word for child in command.named_children for word in fields_of(child, self.scope)]
        if not words or not all(map(is_known, words)):
            return None
        if (
            words[0] == "seq"
            and all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in words[1:])
            and 2 <= len(words) <= 3
        ):
            first, last = (1, int(words[1])) if len(words) == 2 else (int(words[1]), int(words[2]))
            return " ".join(map(str, range(first, min(last, first + _MOST_TURNS) + 1)))
        if words[0] == "echo":
            return " ".join(word for word in words[1:] if word != "-n")
        return self.scope.files.get(words[1]) if words[0] == "cat" and len(words) == 2 else None

    # Variables

    def _variable_assignment(self, node: Node) -> None:
        name, value, added = self._assigned(node)
        if added:
            before = self.scope.variables.get(name, [] if isinstance(value, list) else "")
            if isinstance(before, list):
                value = [*before, *(value if isinstance(value, list) else [value])]
            else:
                value = before + (" ".join(value) if isinstance(value, list) else value)
        self.scope.variables[name] = value

    def _assigned(self, node: Node) -> tuple[str, Value, bool]:
        target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        name = (target.text or b"").decode("utf-8", "replace") if target is not None else ""
        added = any(child.type == "+=" for child in node.children)
        if value is None:
            return name, "", added
        return name, fields_of(value, self.scope) if value.type == "array" else text_of(value, self.scope), added

    def _declaration_command(self, node: Node) -> None:
        for child in node.named_children:
            if child.type == "variable_assignment":
                self._variable_assignment(child)

    def _unset_command(self, node: Node) -> None:
        for child in node.named_children:
            self.scope.variables.pop((child.text or b"").decode("utf-8", "replace"), None)

    # Conditions and loops

    def _subshell(self, node: Node) -> None:
        before = dict(self.scope.variables)
        for child in node.named_children:
            self.follow(child)
        self.scope.variables = before

    def _list(self, node: Node) -> None:
        left, *rest = node.named_children
        joined = next((child.type for child in node.children if child.type in ("&&", "||")), "&&")
        self.follow(left)
        truth = truth_of(left, self.scope) if left.type in ("test_command", "command", "negated_command") else None
        if left.type not in ("test_command", "negated_command") and joined == "&&":
            truth = True  # what comes before a server is expected to go well
        if truth is not None and truth == (joined == "||"):
            return
        for child in rest:
            self._sides(node, [[child]], may_skip=truth is None)

    def _if_statement(self, node: Node) -> None:
        sides: list[list[Node]] = []
        body: list[Node] = []
        tests: list[Node] = []
        for index, child in enumerate(node.children):
            if child.type in ("elif_clause", "else_clause") or not child.is_named:
                continue
            (tests if node.field_name_for_child(index) == "condition" else body).append(child)
        for test in tests:
            self.follow(test)
        truth = truth_of(tests[-1], self.scope) if tests else None
        if truth is True:
            self._sides(node, [body], may_skip=False)
            return
        sides = [] if truth is False else [body]
        clauses = [child for child in node.children if child.type in ("elif_clause", "else_clause")]
        for clause in clauses:
            inner = [c for i, c in enumerate(clause.children) if c.is_named and clause.field_name_for_child(i) is None]
            if clause.type == "elif_clause":
                (test, *inner) = inner or [clause]
                found = truth_of(test, self.scope)
                if found is False:
                    continue
                sides.append(inner)
                if found is True:
                    self._sides(node, sides, may_skip=False)
                    return
            else:
                sides.append(inner)
        self._sides(node, sides, may_skip=not any(clause.type == "else_clause" for clause in clauses))

    def _case_statement(self, node: Node) -> None:
        value = node.child_by_field_name("value")
        subject = unknown("") if value is None else text_of(value, self.scope)
        sides: list[list[Node]] = []
        for item in (child for child in node.named_children if child.type == "case_item"):
            patterns = [c for i, c in enumerate(item.children) if item.field_name_for_child(i) == "value"]
            body = [c for i, c in enumerate(item.children) if c.is_named and item.field_name_for_child(i) is None]
            if is_known(subject):
                texts = [(p.text or b"").decode("utf-8", "replace").strip("\"'") for p in patterns]
                if any(fnmatch.fnmatchcase(subject, text) for text in texts):
                    self._sides(node, [body], may_skip=False)
                    return
            else:
                sides.append(body)
        self._sides(node, sides, may_skip=True)

    def _for_statement(self, node: Node) -> None:
        variable, body = node.child_by_field_name("variable"), node.child_by_field_name("body")
        values = [c for i, c in enumerate(node.children) if node.field_name_for_child(i) == "value"]
        words = [word for value in values for word in fields_of(value, self.scope)]
        name = "" if variable is None else (variable.text or b"").decode("utf-8", "replace")
        if body is None:
            return
        known = words and all(map(is_known, words)) and len(words) <= _MOST_TURNS
        for word in words if known else [unknown(f"${name}")]:
            self.scope.variables[name] = word
            self.follow(body)

    def _c_style_for_statement(self, node: Node) -> None:
        body = node.child_by_field_name("body")
        if body is not None:
            for name in re.findall(r"\(\(\s*(\w+)\s*=", (node.text or b"").decode("utf-8", "replace"))[:1]:
                self.scope.variables[name] = unknown(f"${name}")
            self.follow(body)

    def _while_statement(self, node: Node) -> None:
        test, body = node.child_by_field_name("condition"), node.child_by_field_name("body")
        if body is None or (test is not None and truth_of(test, self.scope) is False):
            return
        self._sides(node, [[body]], may_skip=True)

    def _test_command(self, node: Node) -> None:
        return

    def _sides(self, node: Node, sides: Sequence[Sequence[Node]], *, may_skip: bool) -> None:
        """Follow every side from the same start; what they set differently is unknown after them."""
        before, outside = self.scope.variables, self.cases
        ends: list[dict[str, Value]] = [copy.copy(before)] if may_skip else []
        for index, side in enumerate(sides):
            self.scope.variables = copy.copy(before)
            self.cases = (*outside, (node.start_byte, index)) if len(sides) > 1 else outside
            for child in side:
                self.follow(child)
            ends.append(self.scope.variables)
        self.cases = outside
        names = dict.fromkeys(name for end in ends for name in end)
        merged: dict[str, Value] = {}
        for name in names:
            values = [end.get(name) for end in ends]
            first = values[0]
            merged[name] = first if first is not None and all(v == first for v in values) else unknown(f"${name}")
        self.scope.variables = merged
