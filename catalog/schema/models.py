"""Models: the config file of a checkpoint, how long a context it holds, and where it is the default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from catalog.schema.base import Bytes, Entry, Fact, Id, Text, Tokens

ConfigGrade = Literal["proven", "copied", "confirmed", "recalled"]
"""How well a config file is known. proven: its bytes have a sha256 that was published for the file on the hub.
copied: from the package of a named publisher, whose bytes nobody vouches for. confirmed: the fields agree with
a second source. recalled: from memory; usable by name only, with a warning."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ConfigFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.json$")]


class PublishedConfig(Fact):
    """A hash that somebody published for a model's config file."""

    url: str
    """The file on the hub, with its revision."""
    sha256: Sha256
    source: str
    """Who published the hash."""
    differs: str | None = None
    """Where the file that we keep has other bytes: in which fields, or that this isn't known."""


class ExtensionStep(Fact):
    """One published setting that lengthens a model's window."""

    factor: Annotated[float, Field(gt=1)]
    to_tokens: Tokens
    """Window with this factor [tokens]."""


class Extension(Fact):
    """How a model's window is lengthened beyond the one in its config file, as its publisher says.

    - ``none``: no method is known.
    - ``config``: the config file holds what is needed; nothing is to be set.
    - ``nope``: attention without positions; the window is only a number, which is raised.
    - ``yarn``: YaRN with one of the published factors; `steps`.
    - ``dca``: dual chunk attention.
    """

    method: Literal["none", "config", "nope", "yarn", "dca"]
    steps: tuple[ExtensionStep, ...] = ()
    to_tokens: Tokens | None = None
    """Longest window by this method [tokens]; None for ``none``."""
    original_tokens: Tokens | None = None
    """Window to which the factors apply, ``original_max_position_embeddings`` [tokens]; None: the trained one."""
    source: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Extension:
        if (self.method == "none") != (self.to_tokens is None):
            raise ValueError("give to_tokens with every method but none")
        if (self.method == "yarn") != bool(self.steps):
            raise ValueError("give steps (factor, to_tokens) with yarn, and only there")
        if self.method != "none" and not self.source:
            raise ValueError("say in source where the method is published")
        lengths = [step.to_tokens for step in self.steps]
        if lengths != sorted(lengths) or (lengths and lengths[-1] != self.to_tokens):
            raise ValueError("order the steps by to_tokens; the last is the longest window")
        return self


class DefaultFor(Fact):
    """Requests without a model for which this one is planned."""

    context_tokens: Tokens
    """Up to this context [tokens]."""
    compute_capabilities: tuple[Text, ...] = ()
    """GPUs of these compute capabilities; empty: all."""
    cluster_hbm: Bytes | None = None
    """Least HBM of all GPUs together [B]; None: any."""
    engines: tuple[Id, ...] = ()
    """Where one of these engines serves; empty: any."""
    reason: str
    source: str


class Model(Entry):
    """One checkpoint: its Hugging Face ``config.json`` as found, and what the file doesn't say.

    Trained window, method of extension and advertised window are three facts: an engine that lacks the
    method serves no more than the trained window.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["config"]}, {"required": ["config_file"]}]},
    )

    hf_id: str
    """The repository that is served by default: the instruction-tuned one where there is one."""
    context_tokens: Tokens
    """The advertised window [tokens]."""
    trained_tokens: Tokens = Field(default_factory=lambda data: data.get("context_tokens", 0))
    """The window of the training [tokens]; left out: the advertised one."""
    extension: Extension = Extension(method="none")
    config: dict[str, Any] = {}
    """The config, parsed. An entry writes it here or names a file, not both."""
    config_file: ConfigFile | None = None
    """The config as found, byte for byte, in ``configs/`` beside ``models/``."""
    config_of: str | None = None
    """Repository whose config file it is, where that isn't `hf_id`."""
    config_grade: ConfigGrade | None = None
    """None: a config of the user's own."""
    config_sha256: Sha256 | None = None
    """Of the bytes of `config_file`."""
    config_published: PublishedConfig | None = None
    default_for: tuple[DefaultFor, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if not self.config:
            raise ValueError("write config:, or name a file of configs/ in config_file:")
        if self.trained_tokens > self.context_tokens:
            raise ValueError("trained_tokens is more than context_tokens; a model is advertised for what it can")
        reach = self.extension.to_tokens
        if self.extension.method not in ("none", "config") and reach is not None and reach < self.trained_tokens:
            raise ValueError("extension.to_tokens is less than trained_tokens; an extension lengthens")
        if self.default_for and self.config_grade in ("confirmed", "recalled"):
            raise ValueError("default_for: a default has a config that is proven or copied")
        return self
