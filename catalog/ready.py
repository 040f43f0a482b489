"""Which ready checkpoint an engine loads: the published one of a model in a precision, its own maker's first."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.identity import same_checkpoint
from catalog.load import Catalog
from catalog.schema import Checkpoint, CheckpointFormat, Engine

_MAKERS_OF_ENGINES = ("nvidia", "amd", "redhatai", "neuralmagic")
"""Publishers that build GPUs or engines, and test what they publish on them; neuralmagic is RedHatAI's former name."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A ready checkpoint as one engine runs it on one GPU."""

    checkpoint: Checkpoint
    format: CheckpointFormat

    @property
    def hub_id(self) -> str:
        """What is loaded."""
        return self.checkpoint.hub_id


def format_on(
    engine: Engine, checkpoint: Checkpoint, capability: str, *, experts: bool = False
) -> CheckpointFormat | None:
    """Return how an engine runs a checkpoint on GPUs of a compute capability; None: it isn't known to load it.

    Parameters
    ----------
    engine
        Who loads it.
    checkpoint
        What is loaded.
    capability
        Compute capability of the GPU.
    experts
        Whether the model is a mixture of experts.
    """
    if checkpoint.quant_method is None:
        return None
    for known in engine.checkpoint_formats:
        same_method = known.quant_method == checkpoint.quant_method
        if experts and not known.experts:
            continue
        same_algorithm = known.algorithm in (None, checkpoint.algorithm)
        if (
            same_method
            and same_algorithm
            and known.point == checkpoint.point
            and capability in known.compute_capabilities
        ):
            return known
    return None


def best_ready(
    catalog: Catalog, model_id: str, base: str, point: str, engine: Engine, capability: str, *, experts: bool = False
) -> Ready | None:
    """Return the best ready checkpoint of one model in one precision that an engine loads on a GPU.

    Parameters
    ----------
    catalog
        The facts.
    model_id
        The model's id.
    base
        The hub id that was asked for: an Instruct's quantisation is no base model's.
    point
        Catalog point of the weights.
    engine
        Who loads it.
    capability
        Compute capability of the GPU.
    experts
        Whether the model is a mixture of experts.
    """
    found = []
    for checkpoint in catalog.checkpoints(model_id):
        if checkpoint.point != point or checkpoint.provenance == "recalled":
            continue
        known = format_on(engine, checkpoint, capability, experts=experts)
        if known is not None and same_checkpoint(checkpoint.base, base):
            found.append(Ready(checkpoint, known))
    return min(found, key=lambda ready: _rank(ready, base), default=None)


def _rank(ready: Ready, base: str) -> tuple[bool, int, bool, str]:
    owner = ready.hub_id.partition("/")[0].lower()
    known = _MAKERS_OF_ENGINES.index(owner) if owner in _MAKERS_OF_ENGINES else len(_MAKERS_OF_ENGINES)
    own = owner == base.partition("/")[0].lower()
    return not own, known, ready.checkpoint.provenance != "found", ready.hub_id
