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
    """Placeholders of a text (``<model>``, ``{{ .Values.x }}``), taken out while it is parsed."""

    _FOUND = re.compile(
        r"\{\{(?:[^{}]|\{[^{}]*\})*\}\}"  # templates
        r"|(?<![\w<$)\]])<[A-Za-z_][\w .,:/'-]{0,60}>(?=[\s\"'/:,@]|$)"  # <your model>
    )
    _TAKEN = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

    def __init__(self) -> None:
        self._sources: list[str] = []

    def take(self, text: str) -> str:
        """Return the text with a token for every placeholder."""

        def token(match: re.Match[str]) -> str:
            self._sources.append(match[0])
            return f"{_OPEN}{len(self._sources) - 1}{_CLOSE}"

        return self._FOUND.sub(token, shown(text))

    def put_back(self, text: str) -> str:
        """Return the text with every token as a marked placeholder."""
        return self._TAKEN.sub(lambda match: unknown(self._sources[int(match[1])]), text)
