"""Which change moves which of the four metrics: computed, next to the paper's marks."""

from __future__ import annotations

from dataclasses import replace

from planner.cost.compression import CompressionTable
from planner.paper.cases import Study
from planner.paper.facts import marks
from planner.paper.tables import Cell, Column, Table
from planner.paper.view import Metrics, View, kept, metrics

CONTEXT = 50_000
_SAME = 0.005
"""Relative change below which a metric doesn't move."""


def levers(study: Study) -> Table:
    """Every change against the example at 50K on one A100, as a factor on each metric."""
    base = metrics(study.base, CONTEXT)
    rows = [
        _row("context 4K to 50K", metrics(study.base, 4_000), base),
        _row("HBM x2", base, metrics(_scaled(study.base, hbm=2.0), CONTEXT)),
        _row("FLOP/s x2", base, metrics(_scaled(study.base, flops=2.0), CONTEXT)),
        _row("HBM bandwidth x2", base, metrics(_scaled(study.base, bandwidth=2.0), CONTEXT)),
        _row("PCIe x2", base, metrics(_scaled(study.base, pcie=2.0), CONTEXT)),
        _row("tensor parallelism x2", base, metrics(study.base, CONTEXT, 2)),
        _row("MHA to GQA", metrics(study.model("yi-34b-mha"), CONTEXT), base),
        _row("GQA to MQA", base, metrics(study.model("yi-34b-mqa"), CONTEXT)),
    ]
    cuts: dict[str, CompressionTable] = {
        "layer: 1 of 60, also in prefill": kept(layer=1 / 60, prefill=1 / 60),
        "head: 20 of 1024": kept(head=20 / 1024),
        "token: half": kept(token=1 / 2),
        "hidden: 4 of 16 bits": kept(hidden=1 / 4),
    }
    rows += [_row(name, base, metrics(study.base, CONTEXT, 1, table)) for name, table in cuts.items()]
    return Table(
        "levers",
        "Which change moves which metric: Yi-34B at 50K on one A100",
        "rebuilt",
        tuple(
            Column(key, title)
            for key, title in {
                "change": "change",
                "users_factor": "users",
                "prefill_factor": "prefill",
                "decode_factor": "decode",
                "switch_factor": "switch",
                "moves": "moves",
                "paper": "the paper's marks",
                "provenance": "provenance",
            }.items()
        ),
        tuple(rows),
        (
            "Factors are new over old: more users are better, longer times worse. + better, - worse.",
            "The layer row is a bound: it takes it that skipped layers aren't computed in prefill either.",
        ),
    )


def _row(name: str, before: Metrics, after: Metrics) -> tuple[Cell, ...]:
    factors = {
        "users": after.users / before.users,
        "prefill": after.prefill_s / before.prefill_s,
        "decode": after.decode_s / before.decode_s,
        "switch": after.switch_s / before.switch_s,
    }
    said = marks()[name]
    return (name, *factors.values(), _moves(factors), said.marks, said.source.provenance)


def _moves(factors: dict[str, float]) -> str:
    """Metrics that change, each with + for better or - for worse."""
    found = []
    for name, factor in factors.items():
        if abs(factor - 1.0) > _SAME:
            better = (factor > 1.0) == (name == "users")
            found.append(f"{name}{'+' if better else '-'}")
    return " ".join(found)


def _scaled(view: View, *, hbm: float = 1.0, flops: float = 1.0, bandwidth: float = 1.0, pcie: float = 1.0) -> View:
    """The view on a GPU with some of its rates multiplied."""
    gpu = view.hardware
    link = gpu.pcie.model_copy(update={"effective": gpu.pcie.effective * pcie})
    peak = gpu.flops.model_copy(update={"bf16": gpu.flops.bf16 * flops})
    update = {
        "hbm": gpu.hbm * hbm,
        "hbm_bandwidth": gpu.hbm_bandwidth * bandwidth,
        "flops": peak,
        "pcie": link,
    }
    return replace(view, hardware=gpu.model_copy(update=update))
