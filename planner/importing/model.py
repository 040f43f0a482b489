"""Which model of the catalog a command serves: by its id, without what a quantiser or a path adds to it."""

from __future__ import annotations

from pathlib import Path

from catalog.identity import shorter_names
from catalog.load import Catalog
from catalog.schema import Model


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
        for spelling in shorter_names(given):
            if catalog.has(Model, spelling):
                found = catalog.get(Model, spelling).id
                exact = spelling == given
                return found, None if exact else f"{given}: taken to be a checkpoint of {found}"
    return None, None
