"""Put text into shell, YAML and Markdown so that it stays text, whatever it contains."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml


def shell(words: list[str]) -> str:
    """Return words as one line of a POSIX shell."""
    return " ".join(shlex.quote(word) for word in words)


def shell_lines(program: tuple[str, ...] | list[str] | str, words: list[str], *, raw: tuple[str, ...] = ()) -> str:
    """Return a command with one flag per line; ``raw`` words are shell already, and so is a program that is text."""
    lines = [program if isinstance(program, str) else shell(list(program))]
    for word in words:
        if word.startswith("--") or not lines[1:]:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    lines += raw
    return " \\\n  ".join(lines)


class _Dumper(yaml.SafeDumper):
    """Block style, no anchors, lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Several lines as a block, where YAML can keep them so."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def yaml_text(*documents: Any) -> str:
    """Return YAML of one or more documents, ASCII only, keys in the order given."""
    dumped = yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        width=10_000,
        explicit_start=len(documents) > 1,
    )
    return str(dumped)


def json_line(value: Any) -> str:
    """Return JSON on one line of ASCII, safe behind a ``#``."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def comment(text: str) -> str:
    """Return one comment line for shell or YAML; line ends and other controls become spaces."""
    return "# " + re.sub(r"[^\x20-\x7e]+", " ", text)


def code(text: str) -> str:
    """Return a Markdown code span, on one line."""
    plain = re.sub(r"[^\x20-\x7e]+", " ", text)
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Return a fenced Markdown block that its content can't close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def kubernetes_argument(text: str) -> str:
    """Escape ``$(NAME)``, which Kubernetes would replace by a variable, and ``$$``, which it takes for one dollar.

    >>> kubernetes_argument("$(HOME) $$(HOME) $HOME")
    '$$(HOME) $$$$(HOME) $HOME'
    """
    return re.sub(r"\$(?=[$(])", "$$", text)


def compose_value(text: str) -> str:
    """Escape ``$``, which compose would replace by a variable."""
    return text.replace("$", "$$")
