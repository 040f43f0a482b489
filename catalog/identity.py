"""Which checkpoint a name means: the hub id behind every spelling that an entry lists.

Entries share an architecture, not an identity: ``llama-3.1-8b`` lists base and Instruct, and whoever
types one of them gets that one. A catalog id stands for the entry's own ``hf_id``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from catalog.load import Catalog
from catalog.precision import PRECISIONS
from catalog.schema import Model

NO_HUB_ID = "none"
"""``hf_id`` of models whose weights nobody publishes."""
VARIANTS = frozenset({"instruct", "chat", "it", "base", "thinking", "reasoning", "pt", "rl", "coder"})
"""Words that tell checkpoints of one architecture apart."""
_PRECISION = "|".join(precision.word for precision in PRECISIONS)
_ADDED = re.compile(
    rf"[-_.](?:{_PRECISION}|w\d+a\d+|dynamic|static|per[-_]?tensor|per[-_]?channel|block|kv|marlin|g?128g?|"
    r"instruct|it|chat|hf|bf16|base)$",
    re.IGNORECASE,
)
"""What names of derived checkpoints end in: a precision (`catalog.precision`), how it was made, a variant."""


def hub_ids(model: Model) -> tuple[str, ...]:
    """Return every hub id of an entry in the hub's spelling, its own ``hf_id`` first."""
    own = () if model.hf_id == NO_HUB_ID else (model.hf_id,)
    return tuple(dict.fromkeys((*own, *(alias for alias in model.aliases if "/" in alias))))


def hub_id_of(model: Model, name: str) -> str | None:
    """Return the hub id that one of an entry's names means; None where nobody publishes the model.

    Parameters
    ----------
    model
        The entry.
    name
        Its id, an alias or a hub id, in any case. An alias means the hub id that is called so, else the one that
        contains all its words.

    Examples
    --------
    >>> from catalog.load import open_catalog
    >>> llama = open_catalog([]).get(Model, "llama-3.1-70b")
    >>> hub_id_of(llama, "META-LLAMA/Llama-3.3-70B-instruct"), hub_id_of(llama, "llama-3.3-70b")
    ('meta-llama/Llama-3.3-70B-Instruct', 'meta-llama/Llama-3.3-70B-Instruct')
    """
    key = name.strip().lower()
    ids = hub_ids(model)
    own = ids[0] if ids else None
    if key == model.id:
        return own
    for matching in (
        [hub_id for hub_id in ids if hub_id.lower() == key],
        [hub_id for hub_id in ids if _base(hub_id).lower() == key],
    ):
        if matching:
            return matching[0]
    containing = [hub_id for hub_id in ids if _words(key) <= _words(hub_id)]
    if not containing or own in containing:
        return own
    return min(containing, key=lambda hub_id: (not _words(hub_id) & {"instruct", "chat", "it"}, len(_words(hub_id))))


def same_checkpoint(one: str, other: str) -> bool:
    """Whether two hub ids name one checkpoint: as its owner renamed it, in any case.

    >>> same_checkpoint("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct")
    True
    >>> same_checkpoint("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct")
    False
    """
    return one.lower() == other.lower() or _words(one) == _words(other)


def served_name_of(model: Model, name: str) -> str:
    """Return the name under which a model is served that somebody asked for by one of its names.

    Returns
    -------
    str
        The hub id where one was typed, else the id or alias, as the catalog spells it.
    """
    key = name.strip().lower()
    return next((spelled for spelled in all_names(model) if spelled.lower() == key), model.id)


def misleading_aliases(model: Model) -> Iterator[str]:
    """Yield aliases that name a variant of which the entry has no hub id, so that another would be served."""
    own = _words(model.hf_id) | _words(model.id)
    for alias in model.aliases:
        found = hub_id_of(model, alias)
        missing = (_words(alias) - own - (_words(found) if found else set())) & VARIANTS
        if found is not None and missing:
            yield alias


def family_of(name: str, catalog: Catalog) -> str | None:
    """Return the listed name from which a checkpoint's own name was derived; None if none is recognised.

    Parameters
    ----------
    name
        A hub id or path that the catalog doesn't list.
    catalog
        The facts.

    Examples
    --------
    >>> from catalog.load import open_catalog
    >>> family_of("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w8a8", open_catalog([]))
    'meta-llama/Meta-Llama-3.1-70B-Instruct'
    >>> family_of("NousResearch/Hermes-3-Llama-3.1-8B", open_catalog([]))
    'llama-3.1-8b'
    """
    listed = listed_name(name, catalog)
    if listed is not None:
        return listed
    inside = f"-{_dashed(_base(name))}-"
    inside = "-" + inside.rpartition("-distill-")[2]  # a distillation is a checkpoint of what follows
    spellings = [spelling for model in catalog.all(Model) for spelling in all_names(model)]
    found = [s for s in spellings if f"-{_dashed(_base(s))}-" in inside and len(_words(_base(s))) > 1]
    return max(found, key=lambda s: (len(_base(s)), "/" not in s, s), default=None)


def listed_name(name: str, catalog: Catalog) -> str | None:
    """Return the listed name that a checkpoint has when what quantisers and directories add is taken away."""
    by_base = {_base(hub_id).lower(): hub_id for model in catalog.all(Model) for hub_id in reversed(hub_ids(model))}
    for spelling in _shorter_names(name):
        if catalog.has(Model, spelling):
            return spelling
        if _base(spelling).lower() in by_base:
            return by_base[_base(spelling).lower()]
    return None


def _shorter_names(name: str) -> list[str]:
    """Return a name, then shorter ones: without its owner or directories, without what quantisers add."""
    found = [name]
    rest = _base(name.rstrip("/"))
    while rest:
        found += [rest, f"{name.rsplit('/', 1)[0]}/{rest}"]
        shorter = _ADDED.sub("", rest)
        if shorter == rest:
            break
        rest = shorter
    return found


def all_names(model: Model) -> Iterable[str]:
    """Return every spelling by which an entry can be asked for."""
    return dict.fromkeys((model.id, *model.aliases, *hub_ids(model)))


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _dashed(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.]+", name.lower())) - {""}
