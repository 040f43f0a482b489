"""Mark what a text leaves to whoever runs it, so that it stays one word and is never taken for a value."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")
_SPACED = re.compile(f"((?:{_OPEN}[^{_CLOSE}]*{_CLOSE}|[^\\s{_OPEN}])+)")


def unknown(source: str) -> str:
    """Return a marked word for source text whose value isn't in what was given.

    >>> is_known("tp-" + unknown("$TP")), shown("tp-" + unknown("$TP"))
    (False, 'tp-$TP')
    """
    return f"{_OPEN}{shown(source)}{_CLOSE}"


def is_known(text: str) -> bool:
    """Whether no part of a text is unknown."""
    return _OPEN not in text


def is_wholly_unknown(text: str) -> bool:
    """Whether nothing of a word is known, so that it may be any number of words."""
    return _OPEN in text and not _MARK.sub("", text)


def shown(text: str) -> str:
    """Return a text as its author wrote it, without marks."""
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def split_words(text: str) -> list[str]:
    """Split at spaces as a shell does after it has replaced a variable; what is unknown stays whole."""
    return _SPACED.findall(text)


class Holes:
    """Words that stand for parts of a text while it is parsed.

    Placeholders (``<model>``, ``{{ .Values.x }}``) are unknown. Letters beyond ASCII are kept from the parser: its
    grammar of bash looks them up in tables of 256 entries, and crashes on some (tree-sitter-bash 0.25).
    """

    _FOUND = re.compile(
        r"(?P<open>\{\{(?:[^{}]|\{[^{}]*\})*\}\}"  # templates
        r"|(?<![\w<$)\]])<[A-Za-z_][\w .,:/'-]{0,60}>(?=[\s\"'/:,@]|$))"  # <your model>
        r"|(?P<plain>[^\t\n -~]+)"
    )

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._word = "HOLE"

    def take(self, text: str) -> str:
        """Return the text with a word for every part that is taken out; it is ASCII."""
        while self._word in text:
            self._word += "X"

        def token(match: re.Match[str]) -> str:
            self._sources.append(match[0] if match["open"] is None else unknown(match[0]))
            return f"{self._word}{len(self._sources) - 1}z"

        return self._FOUND.sub(token, shown(text))

    def put_back(self, text: str) -> str:
        """Return the text with every part where it was."""
        return re.sub(rf"{self._word}(\d+)z", lambda match: self._source(int(match[1])), text)

    def _source(self, index: int) -> str:
        return self._sources[index] if index < len(self._sources) else ""
