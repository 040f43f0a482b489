"""Whether a condition of a shell script holds, where the file says it."""

from __future__ import annotations

import fnmatch
import re

from tree_sitter import Node

from planner.importing.expansion import Scope, fields_of, text_of
from planner.importing.unknown import is_known, shown

_COMPARE = {"-eq": "==", "-ne": "!=", "-gt": ">", "-ge": ">=", "-lt": "<", "-le": "<="}


def truth_of(test: Node, scope: Scope) -> bool | None:
    """Whether a condition holds; None where the file doesn't say."""
    if test.type == "negated_command":
        inner = truth_of(test.named_children[0], scope) if test.named_children else None
        return None if inner is None else not inner
    if test.type == "command":
        name = shown(" ".join(fields_of(test.named_children[0], scope))) if test.named_children else ""
        return {"true": True, "false": False}.get(name)
    inside = test.named_children[0] if test.type == "test_command" and len(test.named_children) == 1 else test
    if inside.type == "unary_expression" and len(inside.children) == 2:
        return _unary(inside, scope)
    if inside.type == "binary_expression" and len(inside.children) == 3:
        return _binary(inside, scope)
    return None


def _unary(node: Node, scope: Scope) -> bool | None:
    mark, operand = node.children
    sign = (mark.text or b"").decode()
    if sign == "!":
        truth = truth_of(operand, scope)
        return None if truth is None else not truth
    text = text_of(operand, scope)
    if sign not in ("-z", "-n") or not is_known(text):
        return None
    return bool(text) == (sign == "-n")


def _binary(node: Node, scope: Scope) -> bool | None:
    left, mark, right = node.children
    sign = (mark.text or b"").decode()
    if sign in ("&&", "||"):
        first, second = truth_of(left, scope), truth_of(right, scope)
        decided = sign == "||"
        if decided in (first, second):
            return decided
        return None if None in (first, second) else not decided
    one, two = text_of(left, scope), text_of(right, scope)
    if not is_known(one) or not is_known(two):
        return None
    if sign in ("==", "=", "!="):
        return fnmatch.fnmatchcase(one, two) == (sign != "!=")
    sign = _COMPARE.get(sign, sign)
    if sign in ("==", "!=", ">", ">=", "<", "<=") and all(re.fullmatch(r"-?\d+", t) for t in (one, two)):
        a, b = int(one), int(two)
        return {"==": a == b, "!=": a != b, ">": a > b, ">=": a >= b, "<": a < b, "<=": a <= b}[sign]
    return None
