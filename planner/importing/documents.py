"""Split a text into YAML documents, and say what isn't YAML in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from planner.importing.unknown import Holes

_KEY = re.compile(r"^\s*(?:- )?[\w.\"'/-]+:(?:\s|$)")
_ITEM = re.compile(r"^\s*- ")
_FIRST_KEYS = re.compile(r"^(?:apiVersion|kind|services|metadata|spec|applications|servingEngineSpec|image)\s*:", re.M)
_SHEBANG = re.compile(r"^#!|^\s*(?:set -|export |exec )", re.MULTILINE)


@dataclass(slots=True)
class Documents:
    """What a text holds as YAML."""

    found: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Documents that aren't YAML: the parser's words, with the line in the text."""


def looks_like_yaml(text: str) -> bool:
    r"""Whether most lines of a text are keys or items of YAML, and not commands.

    >>> looks_like_yaml("kind: Pod\nmetadata: {}"), looks_like_yaml("vllm serve a/b")
    (True, False)
    """
    if _SHEBANG.search(text) and not _FIRST_KEYS.search(text):
        return False
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    alike = sum(1 for line in lines if _KEY.match(line) or _ITEM.match(line))
    return bool(lines) and (alike * 2 > len(lines) or _FIRST_KEYS.search(text) is not None)


def documents_of(text: str) -> Documents:
    """Return the mappings of a text, each document parsed alone, so that one that is a template leaves the others."""
    documents = Documents()
    line = 1
    for part in re.split(r"^(?=---(?:\s|$))", text, flags=re.MULTILINE):
        try:
            documents.found += list(_parsed(part))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            documents.problems.append(_problem(error, line))
        line += part.count("\n")
    return documents


def _parsed(text: str) -> Iterable[dict[str, Any]]:
    holes = Holes()
    for document in yaml.safe_load_all(holes.take(text) if "{{" in text else text):
        if isinstance(document, dict):
            yield _restored(document, holes)
        elif isinstance(document, list):
            yield from (_restored(item, holes) for item in document if isinstance(item, dict) and "kind" in item)


def _restored(value: Any, holes: Holes) -> Any:
    if isinstance(value, dict):
        return {_restored(key, holes): _restored(item, holes) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, holes) for item in value]
    return holes.put_back(value) if isinstance(value, str) else value


def _problem(error: Exception, first_line: int) -> str:
    mark = getattr(error, "problem_mark", None)
    line = first_line + mark.line if mark is not None else first_line
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {line}: isn't YAML: {said}"


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping; compose also writes ``NAME=value`` lists."""
    if isinstance(value, list):
        return dict(str(item).partition("=")[::2] for item in value)
    return value if isinstance(value, dict) else {}


def whole(value: Any, default: int) -> int:
    """Return a count that is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def environment_file(text: str) -> dict[str, str]:
    r"""Return the variables of a ``.env`` file.

    >>> environment_file("# x\nexport TP=4\nMODEL='a/b'")
    {'TP': '4', 'MODEL': 'a/b'}
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line)
        if match is not None:
            value = match[2]
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else value.split(" #")[0].rstrip()
    return found


def described(documents: Iterable[Mapping[str, Any]]) -> str:
    """Say what documents are, for a message that nothing in them starts a server."""
    told = []
    for document in documents:
        if "kind" in document:
            told.append(f"{document['kind']} {mapping(document.get('metadata')).get('name', '')}".strip())
        elif isinstance(document.get("services"), dict):
            told.append(f"compose services {', '.join(map(str, document['services']))}")
        else:
            told.append(f"a mapping of {', '.join(list(map(str, document))[:6])}")
    return "; ".join(dict.fromkeys(told))
