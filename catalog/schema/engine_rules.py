"""What an engine does with a model, on a GPU, at a length."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from catalog.schema.base import Entry, Fact, Id, Text, Tokens

Value = str | int | float | bool


class ConfigKey(Fact):
    """A condition on one key of ``config.json``; a model inside another (``text_config``) is looked into too."""

    key: str
    """A path with dots: ``dual_chunk_attention_config``, ``quantization_config.quant_method``."""
    present: bool | None = None
    """True: there and not null. False: missing or null."""
    values: tuple[Value, ...] = ()
    """The key has one of these."""
    above: float | None = None
    """The key is a number above this."""

    @model_validator(mode="after")
    def _says_something(self) -> ConfigKey:
        if self.present is None and not self.values and self.above is None:
            raise ValueError("says nothing of the key; give present, values or above")
        return self


class EngineCondition(Fact):
    """When a rule of an engine applies. All fields given must hold; of several values in one field, any."""

    architectures: tuple[str, ...] = ()
    """Names in the config's ``architectures``; ``*`` stands for any text."""
    implementation: Literal["native", "transformers"] | None = None
    """Whether the engine has the architecture itself or runs the class of Transformers."""
    config: tuple[ConfigKey, ...] = ()
    rope_types: tuple[str, ...] = ()
    """Some layers' positions are of one of these types."""
    rope_types_beside: tuple[str, ...] = ()
    """Some layers' positions are of a type that isn't among these."""
    attention: tuple[Literal["mha", "gqa", "mqa", "mla", "sliding", "chunked", "linear", "sparse"], ...] = ()
    """Kinds of attention, of which some layers have one."""
    attention_sinks: bool | None = None
    experts: bool | None = None
    """Some layers have routed experts."""
    head_dims_beside: tuple[int, ...] = ()
    """Some layers' heads have a width that isn't among these [elements]."""
    head_dim_above: int | None = None
    """Some layers' heads are wider than this [elements]."""
    k_v_differ: bool | None = None
    """Keys are wider than values, or narrower."""
    compute_capabilities: tuple[Text, ...] = ()
    ctx_above: Tokens | None = None
    """The document is longer than this [tokens]."""
    rounds_above: int | None = None
    """Sessions ask more questions than this."""
    beyond_declared: bool | None = None
    """The longest session is longer than the config's ``max_position_embeddings``."""


class EngineRule(Entry):
    """What one engine does with a model, on a GPU, at a length: read in its code, or seen when it ran.

    - ``refuses``: it doesn't start.
    - ``ignores``: it starts and leaves out what the config asks for, so that answers are trustworthy only up
      to `trusted_tokens`.
    - ``excludes``: it can't keep KV in `kv_formats`.
    - ``forces``: attention runs in `backend`, whatever it would choose elsewhere.
    - ``needs``: it starts with `environment`, `flags`, `overrides` of the config, or `kv_cache_dtype`.
    - ``tells``: what an operator should know.
    """

    engine: Id
    since: Text | None = None
    """First version to which it applies; None: all before `until`."""
    until: Text | None = None
    """Last version to which it applies; None: the newest known."""
    when: EngineCondition
    verdict: Literal["refuses", "ignores", "excludes", "forces", "needs", "tells"]
    why: str
    """What the user reads: what the engine does, in its own words where it has some."""
    way_out: str | None = None
    evidence: Literal["ran", "read"]
    """ran: the engine's own code answered so. read: its source says so."""
    trusted_tokens: Tokens | None = None
    """Longest context with answers that the model was made for [tokens]."""
    trusted_key: str | None = None
    """Key of the config that says the same of each model."""
    kv_formats: tuple[str, ...] = ()
    """The engine's own names of the KV formats that it can't use, or for which it takes `backend` (empty: all)."""
    backend: str | None = None
    kv_cache_dtype: str | None = None
    """What to write for KV in the engine's own precision, where its usual word for it is refused."""
    environment: dict[str, str] = {}
    flags: dict[str, str] = {}
    overrides: dict[str, Any] = {}
    """Keys of the config that must be changed; null takes one away."""

    @model_validator(mode="after")
    def _does_what_it_says(self) -> EngineRule:
        settings = self.environment or self.flags or self.overrides or self.kv_cache_dtype
        wanted: dict[str, tuple[object, str]] = {
            "ignores": (self.trusted_tokens or self.trusted_key, "trusted_tokens or trusted_key"),
            "excludes": (self.kv_formats, "kv_formats"),
            "forces": (self.backend, "backend"),
            "needs": (settings, "environment, flags, overrides or kv_cache_dtype"),
        }
        given, names = wanted.get(self.verdict, (True, ""))
        if not given:
            raise ValueError(f"verdict {self.verdict} without {names}; say which")
        return self
