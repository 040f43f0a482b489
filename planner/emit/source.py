"""Where a deployment's model comes from: the hub id that was asked for, or a local directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.ready import Ready, format_on
from catalog.schema import Engine
from planner.emit.running import Running
from planner.errors import InputError
from planner.problem import Problem
from planner.space.ready import has_experts, ready_checkpoint

PLACES = ("{models}", "{directory}", "{rank}", "{head}", "{file}")
"""What launches leave for platforms to fill in; no user's text may contain it."""


_AS_MADE = ("bf16", "native")
"""Weights of a checkpoint that nobody quantised after its makers."""


def is_path(name: str) -> bool:
    """Whether what is loaded is a directory or file of a server."""
    return name.startswith(("/", ".", "~"))


@dataclass(frozen=True, slots=True)
class Source:
    """What a deployment loads."""

    model: str
    """Hub id or directory of the model in its makers' weights."""
    checkpoint: str | None
    """A checkpoint that was named for it, by the operator, the request or the server before."""
    ready: Ready | None
    """What is known of the published checkpoint that is loaded; None: none is, or it isn't listed."""
    is_local: bool
    """Whether it is a directory of one machine, and nothing was named for others."""


def source_of(
    problem: Problem, engine: Engine, point: str | None, checkpoint: str | None, running: Running | None
) -> Source:
    """Return what a deployment loads: what was named, else what is published, else the model as it is.

    Parameters
    ----------
    problem
        The question.
    engine
        Who loads it.
    point
        Catalog point of the plan's weights; None: the model's own.
    checkpoint
        What the operator named.
    running
        A server whose place it takes: what that loads stays, if the plan's weights are of its precision.

    Raises
    ------
    InputError
        If a name can't be one word of a command, a checkpoint has other weights than the plan, or there is nothing.
    """
    model = _model_source(problem, checkpoint, running)
    asked = None if problem.checkpoint is None else problem.checkpoint.hub_id
    named = _kept_checkpoint(running, point) if checkpoint is None else one_word(checkpoint, "--checkpoint")
    is_local = checkpoint is None and (problem.model_entry is None or is_path(named or model))
    named = named or asked
    if point is None:
        return Source(model, named, None, is_local)
    if named is not None and named != asked:
        return Source(model, named, _listed(problem, engine, point, named), is_local)
    # The published quantisations are of the model that was asked for, not of a fine-tune that runs in its place.
    ready = ready_checkpoint(problem, engine, point) if model == problem.hub_id else None
    return Source(model, named, ready, is_local)


def _listed(problem: Problem, engine: Engine, point: str, named: str) -> Ready | None:
    """Return what is known of a checkpoint that was named; nothing, if it isn't listed."""
    listed = problem.catalog.checkpoint(named)
    if listed is None or listed[1].point is None:
        return None
    if listed[1].point != point:
        raise InputError(
            f"--checkpoint {named}: its weights are {listed[1].point.removeprefix('w_')}, the plan's are "
            f"{point.removeprefix('w_')}; plan with --model {named}"
        )
    capability = problem.cluster.hardware.compute_capability
    found = format_on(engine, listed[1], capability, experts=has_experts(problem))
    return None if found is None else Ready(listed[1], found)


def _kept_checkpoint(running: Running | None, point: str | None) -> str | None:
    """Return the quantised checkpoint of a running server where the plan has weights of its precision."""
    if running is None or running.model is None or running.weights in _AS_MADE or point is None:
        return None
    same = f"w_{running.weights}" == point
    return one_word(running.model, "the command: model") if same else None


def _model_source(problem: Problem, checkpoint: str | None, running: Running | None) -> str:
    """Return the hub id that was asked for, or the directory of a local model; what runs already stays.

    Raises
    ------
    InputError
        If nobody publishes the model's weights and no checkpoint is named.
    """
    if running is not None and running.model is not None and running.weights in _AS_MADE:
        return one_word(running.model, "the command: model")
    if problem.model_entry is None:
        path = Path(problem.model_id)
        return one_word(str((path.parent if path.is_file() else path).absolute()), "the plan: model")
    if problem.hub_id is None and checkpoint is None:
        raise InputError(
            f"the plan: model {problem.model_id}: no weights of it are published; name yours with --checkpoint"
        )
    return one_word(problem.hub_id or checkpoint or "", "the plan: model")


def one_word(name: str, where: str) -> str:
    """Return a name that can be one word of a command line.

    Raises
    ------
    InputError
        If a program would take it for a flag, a terminal for a command, or this program for a place to fill in.
    """
    if not name or name.startswith("-") or any(not character.isprintable() for character in name):
        raise InputError(f"{where} {name!r}: is empty, begins with a dash or has control characters; rename it")
    filled = [place for place in PLACES if place in name]
    if filled:
        raise InputError(f"{where} {name!r}: contains {filled[0]}, which stands for something here; rename it")
    return name
