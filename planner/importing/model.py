"""Which model of the catalog a command serves: by its id, without what a quantiser or a path adds to it."""

from __future__ import annotations

import re
from pathlib import Path

from catalog.load import Catalog
from catalog.schema import Model

_ADDED = re.compile(
    r"[-_.](?:fp8|awq|gptq|int[48]|w\d+a\d+(?:kv\d+)?|quantized|dynamic|block|kv|bnb|[48]bits?|marlin|nvfp4|mxfp4|gguf|"
    r"g?128g?|autoround|instruct|it|chat|hf|bf16|base)$",
    re.IGNORECASE,
)
"""What names of derived checkpoints end in."""


def catalog_model(name: str | None, served: str | None, catalog: Catalog) -> tuple[str | None, str | None]:
    """Find the model that a server loads.

    Parameters
    ----------
    name
        As the command names it: a hub id or a path.
    served
        ``--served-model-name``, where the model's own name says nothing.
    catalog
        The facts.

    Returns
    -------
    tuple
        Catalog id, or the path of a directory with a ``config.json``; None if neither is found. And a
        note where the name had to be shortened.

    Examples
    --------
    >>> from catalog.load import open_catalog
    >>> catalog_model("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", None, open_catalog())[0]
    'llama-3.1-70b'
    """
    if name is not None and name.startswith(("/", ".", "~")) and (Path(name).expanduser() / "config.json").is_file():
        return name, None
    for given in (name, served):
        if given is None:
            continue
        for spelling in _spellings(given):
            if catalog.has(Model, spelling):
                found = catalog.get(Model, spelling).id
                exact = spelling == given
                return found, None if exact else f"{given}: taken to be a checkpoint of {found}"
    return None, None


def _spellings(name: str) -> list[str]:
    """Return the name, then shorter ones: without its owner or directories, without what quantisers add."""
    found = [name]
    rest = name.rstrip("/").rsplit("/", 1)[-1]
    while rest:
        found += [rest, f"{name.rsplit('/', 1)[0]}/{rest}"]
        shorter = _ADDED.sub("", rest)
        if shorter == rest:
            break
        rest = shorter
    return found
