"""Which model of the catalog a command serves: by its name, without what a quantiser or a path adds to it."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path

from catalog.architecture.quantisation import native_weight_bits
from catalog.identity import hub_id_of, listed_name
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
        Hub id of a listed model, or the path of a directory with a ``config.json``; None if neither is found. And a
        note where the name had to be shortened.

    Examples
    --------
    >>> from catalog.load import open_catalog
    >>> catalog_model("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", None, open_catalog())[0]
    'meta-llama/Meta-Llama-3.1-70B-Instruct'
    """
    if name is not None and name.startswith(("/", ".", "~")) and _has_config(name):
        return name, None
    ready = None if name is None else catalog.checkpoint(name)
    if ready is not None:
        return ready[1].base, f"{name}: a checkpoint of {ready[1].base}"
    for given in (name, served):
        listed = None if given is None else listed_name(given, catalog)
        if listed is not None:
            entry = catalog.get(Model, listed)
            meant = hub_id_of(entry, listed) or entry.id
            exact = given is not None and given.lower() in (listed.lower(), meant.lower())
            return meant, None if exact else f"{given}: taken to be a checkpoint of {meant}"
    return None, None


def _has_config(folder: str) -> bool:
    """Whether a folder of this machine holds a config; what can't be a path holds none."""
    try:
        return (Path(expanduser(folder)) / "config.json").is_file()
    except (OSError, ValueError):
        return False


def is_native(name: str | None, catalog: Catalog) -> bool:
    """Whether a model's makers quantised it themselves, so that its name and its flags say nothing of it.

    >>> from catalog.load import open_catalog
    >>> is_native("deepseek-ai/DeepSeek-V3", open_catalog()), is_native("Qwen/Qwen3-32B", open_catalog())
    (True, False)
    """
    found, _ = catalog_model(name, None, catalog)
    if found is None or not catalog.has(Model, found):
        return False
    config = catalog.get(Model, found).config
    return bool(config) and (native_weight_bits(config) or 16.0) < 16.0
