"""Typed access to an untrusted ``config.json`` that collects every problem instead of raising at the first.

A reader asks for what it needs; where the file has something else, the problem is noted and a
harmless stand-in is returned, so that one pass reports everything that is wrong. The stand-ins
never reach a user: `catalog.architecture.read.read_config` raises as soon as there is a problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_LAYERS = 10_000
"""More layers than this are refused before any list is built."""
MAX_DIM = 10_000_000
"""Largest believable dimension of a tensor."""
MAX_TOKENS = 10_000_000_000
"""Largest believable context or window [tokens]."""

CACHE_SWITCHES = (
    "attention_chunk_size",
    "attn_type_list",
    "compress_ratios",
    "cla_share_factor",
    "cross_layer_sharing",
    "hybrid_layer_pattern",
    "hybrid_override_pattern",
    "index_topk",
    "kv_lora_rank",
    "layer_types",
    "layers_block_type",
    "linear_attn_config",
    "num_kv_shared_layers",
    "sliding_window",
    "sparse_attention_config",
    "use_cla",
)
"""Fields that change what is cached. One that is set, but that the family's reader doesn't know, is a problem."""


def shown(value: object) -> str:
    """Write a value for a message, shortened.

    >>> shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"
    """
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:35] + "...")
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    return "a list" if isinstance(value, Sequence) else "an object"


class Fields:
    """One JSON object: its values, the problems found so far, and which names have been read.

    Parameters
    ----------
    values
        The object as parsed.
    problems
        Where to note problems; shared with nested objects.
    path
        Prefix of field names in messages: ``text_config.`` in a multimodal config.
    """

    def __init__(self, values: Mapping[str, object], problems: list[str], path: str = "") -> None:
        self._values = values
        self._seen: set[str] = set()
        self._wrong: set[str] = set()
        self.problems = problems
        self.path = path

    def problem(self, field: str, what: str, fix: str) -> None:
        """Note ``field: what is wrong; what to do``, once."""
        self._wrong.add(field)
        text = f"{self.path}{field}: {what}; {fix}"
        if text not in self.problems:
            self.problems.append(text)

    def raw(self, *names: str) -> object:
        """The first of these fields that is present and not null, else None. All count as read."""
        self._seen.update(names)
        return next((self._values[name] for name in names if self._values.get(name) is not None), None)

    def has(self, *names: str) -> bool:
        """Whether one of these fields is present and not null."""
        return self.raw(*names) is not None

    def sound(self, *names: str) -> bool:
        """Whether none of these fields has a problem, so that its value can be compared with others."""
        return self._wrong.isdisjoint(names)

    def ignore(self, *names: str) -> None:
        """Count these fields as read: the family knows them and they change nothing that is cached."""
        self._seen.update(names)

    def count(self, *names: str, default: int | None = None, least: int = 1, most: int = MAX_DIM) -> int:
        """A whole number from `least` to `most`; `names` are spellings of one field, the first is reported.

        A missing field without a `default` is a problem. Floats are refused even if whole, since no
        published config writes dimensions that way and ``4.096e3`` is likelier a slip than a size.
        """
        value = self.raw(*names)
        name = next((name for name in names if self._values.get(name) is not None), names[0])
        if value is None:
            if default is None:
                also = f" (or {', '.join(names[1:])})" if names[1:] else ""
                self.problem(names[0], "missing", f"add it as a whole number{also}")
                return least
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(name, f"{shown(value)} is no whole number", f"write one from {least} to {most}")
            return least
        if not least <= value <= most:
            self.problem(name, f"{shown(value)} is out of range", f"write a whole number from {least} to {most}")
            return least
        return value

    def layers(self, *names: str) -> int:
        """Number of layers, capped at `MAX_LAYERS`."""
        return self.count(*(names or ("num_hidden_layers",)), most=MAX_LAYERS)

    def flag(self, *names: str, default: bool = False) -> bool:
        """A JSON boolean."""
        value = self.raw(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(names[0], f"{shown(value)} is no boolean", "write true or false")
            return default
        return value

    def ratio(self, name: str, default: float = 0.0, least: float = 0.0, most: float = 1e6) -> float:
        """A finite number from `least` to `most`."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.problem(name, f"{shown(value)} is no number from {least:g} to {most:g}", "write one")
            return default
        return float(value)

    def window(self, name: str = "sliding_window") -> int | None:
        """A window in tokens, or None where it is null, absent, 0 or -1 (all mean: no window)."""
        value = self.raw(name)
        if value is None or (value in (0, -1) and not isinstance(value, bool)):
            return None
        return self.count(name, most=MAX_TOKENS)

    def kinds(self, name: str, layers: int, meaning: Mapping[object, str], *, longer: bool = False) -> list[str] | None:
        """One entry per layer, each translated by `meaning`; None where the field is absent.

        Parameters
        ----------
        name
            The field.
        layers
            Entries that it must have.
        meaning
            Entry as written -> what it means. Any other entry is a problem.
        longer
            Whether more entries are allowed (configs that list their MTP layers too); the rest is cut.
        """
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            self.problem(name, f"{shown(value)} is no list", f"write a list of {layers} entries")
            return [next(iter(meaning.values()))] * layers
        if len(value) < layers or (len(value) > layers and not longer):
            self.problem(name, f"{len(value)} entries for {layers} layers", "make both agree")
            return [next(iter(meaning.values()))] * layers
        found: list[str] = []
        for index, entry in enumerate(value[:layers]):
            if isinstance(entry, bool) or not isinstance(entry, str | int) or entry not in meaning:
                known = ", ".join(str(key) for key in meaning)
                self.problem(
                    f"{name}[{index}]",
                    f"unknown kind of layer {shown(entry)}",
                    f"known here: {known}; a kind that this reader doesn't know would get a wrong KV size",
                )
                return [next(iter(meaning.values()))] * layers
            found.append(meaning[entry])
        return found

    def indices(self, name: str, layers: int, first: int = 0) -> set[int]:
        """A list of layer numbers, each from `first` to ``layers - 1 + first``, as a set; empty where absent."""
        value = self.raw(name)
        if value is None:
            return set()
        bad = f"write a list of layer numbers from {first} to {layers - 1 + first}"
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > layers:
            self.problem(name, f"{shown(value)} is no list of layer numbers", bad)
            return set()
        numbers = [v for v in value if isinstance(v, int) and not isinstance(v, bool) and first <= v < layers + first]
        if len(numbers) != len(value):
            self.problem(name, "an entry is no layer number", bad)
        return {number - first for number in numbers}

    def nested(self, name: str, *, required: bool = True) -> Fields | None:
        """The object in this field, with problems shared and named ``name.field``."""
        value = self.raw(name)
        if value is None:
            if required:
                self.problem(name, "missing", "add the object that the model's config.json has there")
            return None
        if not isinstance(value, Mapping):
            self.problem(name, f"{shown(value)} is no object", "copy it from the model's config.json")
            return None
        return Fields(value, self.problems, f"{self.path}{name}.")

    def check_unread(self) -> None:
        """Note a problem for every cache-changing field that is set and that nobody has read."""
        for name in CACHE_SWITCHES:
            value = self._values.get(name)
            if name in self._seen or value is None or value is False or value in (0, -1, [], {}, ""):
                continue
            self.problem(
                name,
                f"{shown(value)} changes what is cached, and this model_type isn't known to have it",
                "remove the field if the model doesn't use it, or set the model_type that does",
            )
