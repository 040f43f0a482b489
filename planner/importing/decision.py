"""From a text to a decision, and an account of what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from catalog.load import Catalog
from catalog.schema import Engine
from planner.decision import Decision
from planner.emit.tables import TABLES
from planner.errors import InputError
from planner.importing.command import Neighbour, alone
from planner.importing.commands import read_commands
from planner.importing.fields import fields_of, main_of, said_window
from planner.importing.flags import Given, read_flags
from planner.importing.own_plan import fill_from_plan, own_plan
from planner.importing.unknown import shown
from planner.request import resolve_cluster
from planner.service import Batch, Compression, OffloadChoice, Parallel, Pool, Pools, Service

M = TypeVar("M", Parallel, Batch)

_NOT_PRICED = {"served_names", "model", "transfer_backend", "block_tokens", "speculative", "draft", "flash_attention"}
"""Fields of flags on which no price depends."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a running deployment decides, and what it doesn't say."""

    decision: Service
    model: str | None
    """As the command names it: a hub id or a path."""
    version: str
    context_tokens: int | None
    """``--max-model-len``: longest session that is served; None: the model's own window [tokens]."""
    gpus: str
    flags: Mapping[str, Any]
    """What the server is started with, of the decode pool where there are two; flags by their first name."""
    from_stamp: tuple[str, ...]
    """Fields that came from the file's own plan, which its stamp names."""
    undetermined: tuple[str, ...]
    """Fields that neither a flag nor the file's own plan gives."""
    notes: tuple[str, ...]
    unread: tuple[tuple[str, str], ...] = ()
    """Words of the command that aren't read, with the reason."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """The same as `flags`, in the planner's own fields (`planner.emit.tables.table.Row`)."""
    unpriced: tuple[str, ...] = ()
    """What a price would depend on and the file doesn't say; empty: nothing."""

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "model": self.model,
            "engine_version": self.version,
            "context_tokens": self.context_tokens,
            "gpus": self.gpus,
            "decision": Decision.anywhere([self.decision]).model_dump(mode="json"),
            "from_stamp": list(self.from_stamp),
            "undetermined": list(self.undetermined),
            "notes": list(self.notes),
        }


def import_text(
    text: str, gpus: str, catalog: Catalog, beside: Decision | None = None, neighbour: Neighbour = alone
) -> Imported:
    """Read a command line, a script, a unit, a compose file, manifests or a chart's values into a decision.

    Parameters
    ----------
    text
        The file's content.
    gpus
        The GPUs that it runs on, as ``--gpus`` takes them.
    catalog
        The facts.
    beside
        The decision of the ``plan.json`` beside the file; what no flag expresses is taken from the service that the
        file's stamp is of.
    neighbour
        Files beside it (``.env``, a unit's EnvironmentFile).

    Raises
    ------
    InputError
        If the text starts no server, or servers of several models or engines.
    """
    resolve_cluster(gpus, catalog)
    commands = read_commands(text, neighbour)
    given = [read_flags(command, neighbour) for command in commands]
    _check_alike(given)
    engine = catalog.get(Engine, given[0].engine)
    stamp = next((c.stamp for c in commands if c.stamp is not None), None)
    notes = [f"{c.where}: {shown(note)}" for c, g in zip(commands, given, strict=True) for note in (*c.notes, *g.notes)]
    notes += _unlike(given)
    fields, open_fields = fields_of(commands, given, engine, catalog, notes)
    planned = own_plan(stamp, beside, fields, notes)
    from_stamp, undetermined = fill_from_plan(fields, open_fields, planned, notes)
    windows = [window for g in given if (window := said_window(g)) is not None]
    main = main_of(commands, given)
    return Imported(
        decision=_decision(fields),
        model=next((g.model for g in given if g.model is not None), None),
        version=given[0].version,
        context_tokens=max(windows, default=None),
        gpus=gpus,
        flags=main.flags,
        from_stamp=tuple(from_stamp),
        undetermined=tuple(undetermined),
        notes=tuple(dict.fromkeys(notes)),
        unread=tuple(dict.fromkeys(row for g in given for row in g.unread)),
        said=main.said,
        unpriced=_unpriced(given, undetermined, planned is not None),
    )


def _check_alike(given: Sequence[Given]) -> None:
    models = sorted({g.model for g in given if g.model is not None})
    if len(models) > 1:
        raise InputError(f"the file: serves several models ({', '.join(models)}); give one deployment at a time")
    engines = sorted({g.engine for g in given})
    if len(engines) > 1:
        raise InputError(f"the file: starts several engines ({', '.join(engines)}); give one deployment at a time")


def _unlike(given: Sequence[Given]) -> list[str]:
    """Say which flags change speed or memory in a way that isn't priced."""
    told = {}
    for one in given:
        for flag, what in TABLES[one.engine].unpriced.items():
            if one.flags.get(flag) not in (None, False, "none", "0", 0):
                told[what] = f"{flag}: {what} isn't priced: what runs is faster or slower than priced here"
    return list(told.values())


def _unpriced(given: Sequence[Given], undetermined: Sequence[str], has_plan: bool) -> tuple[str, ...]:
    """Return what a price would depend on and the file doesn't say."""
    found = [f"{words} may hold any flag" for one in given for words in one.open_words]
    found += [
        f"{TABLES[one.engine].row(name).flag} has a value that isn't in the file"
        for one in given
        for name in sorted(one.unset - _NOT_PRICED)
    ]
    if "weights" in undetermined and not has_plan:
        found.append("the precision of the weights isn't one that is priced")
    return tuple(dict.fromkeys(found))


def _decision(fields: Mapping[str, Any]) -> Service:
    compression = {n.partition(".")[2]: v for n, v in fields.items() if n.startswith("compression.")}
    offload = OffloadChoice(policy=fields["offload.policy"], tier=fields["offload.tier"])
    common: dict[str, Any] = {
        "engine": fields["engine"],
        "weights": fields.get("weights", "bf16"),
        "compression": Compression(**compression),
        "offload": offload,
        "serving": fields["serving"],
    }
    if fields["serving"] == "aggregated":
        return Service(**common, parallel=_part(fields, "parallel.", Parallel), batch=_part(fields, "batch.", Batch))
    return Service(**common, pools=Pools(prefill=_pool_of(fields, "prefill"), decode=_pool_of(fields, "decode")))


def _pool_of(fields: Mapping[str, Any], role: str) -> Pool:
    whole = fields.get(f"pools.{role}")
    if isinstance(whole, Pool):
        return whole
    prefix = f"pools.{role}."
    return Pool(parallel=_part(fields, f"{prefix}parallel.", Parallel), batch=_part(fields, f"{prefix}batch.", Batch))


def _part(fields: Mapping[str, Any], prefix: str, model: type[M]) -> M:
    return model(**{n.removeprefix(prefix): v for n, v in fields.items() if n.startswith(prefix)})
