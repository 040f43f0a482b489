"""Predictions of this planner and of other tools side by side, on the same measured points.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install genz-llm llm-analysis aiconfigurator
    python scripts/compare_tools.py --peers /tmp/peers/bin/python

The planner's column is held out: every point is predicted by a fit that saw nothing of its source (or, with
``--held-out model``, of its model in its source). The other tools run with their own defaults, each on what
it can express; what they refuse is counted. Takes minutes; needs the extra ``fit``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from catalog.load import open_catalog
from planner.fit.runtime import Case, HeldOut, cases, modern, predict_held_out
from planner.measured.accuracy import BUILT_IN_POINTS
from planner.measured.points import architecture_of, read_points, weights_of

TOOLS = ("genz", "llm-analysis", "aiconfigurator")
OURS = "plan, held out"
WORKER = Path(__file__).with_name("peer_predictions.py")


def described(case: Case) -> dict[str, Any]:
    """A point as `peer_predictions` takes it."""
    point = case.point
    architecture = architecture_of(point)
    experts = next((layer.experts.count for layer in architecture.layers if layer.experts), 0)
    whole = ("layers", "hidden", "q_heads", "kv_heads", "head_dim", "ffn", "vocab", "tp", "pp", "batch")
    sizes = {name: int(float(point[name])) for name in (*whole, "input_tokens", "output_tokens")}
    attention = sizes["hidden"] * sizes["head_dim"] * 2 * (sizes["q_heads"] + sizes["kv_heads"])
    layer = attention + 3 * sizes["hidden"] * sizes["ffn"]
    with_gate = sizes["layers"] * layer + 2 * sizes["vocab"] * sizes["hidden"]
    return {
        "id": point.id,
        "engine": point.engine,
        "gpu": point.hardware,
        "metric": point.metric,
        "weights": weights_of(point["weight_dtype"])[0],
        "kv_dtype": point["kv_dtype"],
        "experts": experts,
        "gated": float(point["params_b"]) * 1e9 > 0.85 * with_gate,
        **sizes,
    }


def asked(tool: str, python: str, points: Sequence[dict[str, Any]]) -> dict[str, float | str]:
    """A tool's times, or its reasons, by the points' ids."""
    done = subprocess.run(  # noqa: S603
        [python, str(WORKER), tool], input=json.dumps(points), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{tool}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no answer'}")
    found: dict[str, float | str] = json.loads(done.stdout)
    return found


def figures(predicted: dict[str, float], measured: dict[str, float], ids: Sequence[str]) -> list[str]:
    """Number of points, MAPE, median, P90 and bias."""
    errors = np.array([predicted[name] / measured[name] - 1.0 for name in ids])
    if not len(errors):
        return ["0", *["-"] * 4]
    size = np.abs(errors)
    shares = (size.mean(), np.median(size), np.quantile(size, 0.9), errors.mean())
    return [str(len(errors)), *(f"{share:.1%}" for share in shares)]


def table(title: str, rows: Sequence[tuple[str, list[str]]]) -> Table:
    """A table of figures per tool."""
    shown = Table(title=title, title_justify="left")
    for name in ("predicted by", "n", "MAPE", "median", "P90", "bias"):
        shown.add_column(name, justify="left" if name == "predicted by" else "right")
    for name, cells in rows:
        shown.add_row(name, *cells)
    return shown


def compare(held: Sequence[HeldOut], answers: dict[str, dict[str, float | str]], console: Console) -> None:
    """Print each tool against the planner on what that tool prices, and all on what all price."""
    measured = {one.case.point.id: one.case.point.value_s for one in held}
    predicted: dict[str, dict[str, float]] = {OURS: {one.case.point.id: one.predicted_s for one in held}}
    for tool, given in answers.items():
        predicted[tool] = {name: value for name, value in given.items() if isinstance(value, float)}
    a100 = {one.case.point.id for one in held if one.case.point.hardware.startswith("a100") and modern(one.case.point)}
    for title, among in (("all points", set(measured)), ("A100, engines of 2024 and later", a100)):
        for tool in answers:
            ids = sorted(among & predicted[tool].keys())
            pair = [(name, figures(predicted[name], measured, ids)) for name in (OURS, tool)]
            console.print(table(f"{title}: what {tool} prices", pair))
        roofline = [tool for tool in answers if tool != "aiconfigurator"]
        shared = sorted(among.intersection(*(predicted[tool].keys() for tool in roofline)))
        every = [(name, figures(predicted[name], measured, shared)) for name in (OURS, *roofline)]
        console.print(table(f"{title}: what {' and '.join(roofline)} price", every))
    for tool, given in answers.items():
        reasons = Counter(re.sub(r"[0-9.]+", "N", value)[:80] for value in given.values() if isinstance(value, str))
        console.print(f"{tool}: no time for {sum(reasons.values())} of {len(given)} points")
        for reason, count in reasons.most_common(5):
            console.print(f"  {count} x {reason}", markup=False)


def main() -> None:
    """Compare on the catalog's points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=sys.executable, help="Python of an environment that holds the other tools")
    parser.add_argument("--points", type=Path, default=BUILT_IN_POINTS, help="CSV of measured points")
    parser.add_argument("--held-out", choices=("source", "model"), default="source")
    parser.add_argument("--answers", type=Path, help="file that keeps the other tools' answers; read where it exists")
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated")
    given = parser.parse_args()
    found = cases(open_catalog(), read_points(given.points))
    points = [described(case) for case in found]
    if given.answers and given.answers.exists():
        answers = json.loads(given.answers.read_text(encoding="utf-8"))
    else:
        answers = {tool: asked(tool, given.peers, points) for tool in given.tools.split(",")}
        if given.answers:
            given.answers.write_text(json.dumps(answers), encoding="utf-8")

    def group(case: Case) -> str:
        return case.point.source if given.held_out == "source" else f"{case.point.source} {case.point.model}"

    compare(predict_held_out(found, group), answers, Console(width=100))


if __name__ == "__main__":
    main()
