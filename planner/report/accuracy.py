"""``plan accuracy`` in the terminal and as a picture: predictions against measurements."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from planner.measured.accuracy import Accuracy, Figures, Judged
from planner.report.canvas import canvas

_PIPE_WIDTH = 170
"""Columns where nobody's terminal sets the width."""
_COLOURS = {"prefill_s": "#b3450b", "tpot_s": "#0b5cad", "e2e_s": "#2f7d32"}
_LABELS = {"prefill_s": "prefill", "tpot_s": "decode step", "e2e_s": "whole request"}
_WORST = 10
"""Points listed as the worst ones."""


def print_accuracy(report: Accuracy, *, every: bool) -> None:
    """Print the report to stdout; ``every`` lists all points, not only the worst."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(AccuracyReport(report, every=every))


class AccuracyReport:
    """The report, for `rich.print` or a `rich.console.Console`."""

    def __init__(self, report: Accuracy, *, every: bool) -> None:
        self._report = report
        self._every = every

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = self._report
        yield _summary(report)
        judged = sorted(report.judged, key=lambda one: -abs(one.error))
        shown = judged if self._every else judged[:_WORST]
        if shown:
            yield Text("")
            yield _points("Every point" if self._every else f"The {len(shown)} worst points", shown)
        for one in report.unpriced:
            yield Text(f"not priced: {one.point.id}: {one.reason}")
        if report.fitted:
            yield Text(
                f"{report.fitted} of these points were used to fit what engines add to their kernels: their errors are "
                "no measure of accuracy. docs/accuracy.md has the errors of models and sources held out."
            )


def _summary(report: Accuracy) -> Table:
    table = Table(title="Predictions against measurements", title_justify="left")
    for name in ("source", "metric"):
        table.add_column(name)
    for name in ("points", "MAPE", "median", "P90", "bias", "in 80 % interval"):
        table.add_column(name, justify="right")
    for (source, metric), figures in report.by("source", "metric").items():
        table.add_row(source[:60], _LABELS[metric], *_cells(figures))
    table.add_section()
    table.add_row("all", "", *_cells(Figures.of(report.judged)))
    return table


def _cells(figures: Figures) -> list[str]:
    shares = (figures.mape, figures.median_ape, figures.p90_ape)
    return [str(figures.n), *map(_percent, shares), _percent(figures.bias, signed=True), _percent(figures.coverage_80)]


def _percent(share: float, *, signed: bool = False) -> str:
    """Write a share in percent.

    >>> _percent(0.1234), _percent(-0.05, signed=True), _percent(float("nan"))
    ('12.3 %', '-5.0 %', '-')
    """
    if math.isnan(share):
        return "-"
    return f"{100 * share:+.1f} %" if signed else f"{100 * share:.1f} %"


def _points(title: str, judged: list[Judged]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("id", "engine", "model", "GPUs"):
        table.add_column(name)
    for name in ("batch", "in", "out", "measured [s]", "predicted [s]", "80 % interval [s]", "error"):
        table.add_column(name, justify="right")
    for one in judged:
        point, predicted = one.point, one.predicted
        table.add_row(
            point.id,
            f"{point.engine} {point.version[:12]}",
            point.model[:24],
            f"{point['gpus']}x{point.hardware}",
            *(point[column] for column in ("batch", "input_tokens", "output_tokens")),
            f"{point.value_s:.4g}",
            f"{predicted.value_s:.4g}",
            f"{predicted.low_s:.4g} to {predicted.high_s:.4g}",
            _percent(one.error, signed=True),
        )
    return table


def draw(report: Accuracy, path: Path) -> None:
    """Draw predicted over measured times with their intervals.

    Parameters
    ----------
    report
        The judged points.
    path
        A .png or .svg file; overwritten if it exists.
    """
    with canvas(path, 7.0, 6.4) as figure:
        axes = figure.subplots()
        for metric, colour in _COLOURS.items():
            _draw_metric(axes, [one for one in report.judged if one.point.metric == metric], metric, colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.axline((1.0, 1.0), (10.0, 10.0), color="black", linewidth=0.8)
        axes.set_xlabel("measured [s]")
        axes.set_ylabel("predicted [s], with 80 % interval")
        figures = Figures.of(report.judged)
        axes.set_title(f"{figures.n} points: MAPE {_percent(figures.mape)}, median {_percent(figures.median_ape)}")
        axes.legend()


def _draw_metric(axes: Any, judged: list[Judged], metric: str, colour: str) -> None:
    if not judged:
        return
    values = [one.predicted.value_s for one in judged]
    below = [one.predicted.value_s - one.predicted.low_s for one in judged]
    above = [one.predicted.high_s - one.predicted.value_s for one in judged]
    measured = [one.point.value_s for one in judged]
    axes.errorbar(
        measured, values, yerr=[below, above], fmt="o", ms=3, lw=0.5, color=colour, label=_LABELS[metric], alpha=0.7
    )
