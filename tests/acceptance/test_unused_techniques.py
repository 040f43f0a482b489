"""A technique that was named and isn't used: the plan says why, and which budget lets it in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

Plan = Callable[..., Any]
ASKED = ["--model", "llama-3.1-8b", "--ctx", "32K", "--gpus", "1xH100", "--efficiency", "peak"]


def told(plan: Plan, *options: str) -> str:
    shown = plan(*ASKED, *options)
    assert shown.code == 0, shown.stderr
    return " ".join(line for line in shown.stdout.splitlines() if "isn't used" in line)


def test_the_budget_that_lets_it_in_does(plan: Plan) -> None:
    options = ("--weights", "bf16", "--techniques", "kv_fp8_e4m3", "--max-quality-loss")
    said = told(plan, *options, "0.5%")
    found = re.search(r"kv_fp8_e4m3 isn't used: .*--max-quality-loss ([\d.]+)% lets it in", said)
    assert found is not None, said
    assert told(plan, *options, f"{found[1]}%", "--tolerance", "0%") == ""
    less = float(found[1]) - 0.1
    assert "lets it in" in told(plan, *options, f"{less:.1f}%", "--tolerance", "0%")


def test_what_the_best_plan_with_it_gives_is_what_planning_with_it_alone_gives(plan: Plan) -> None:
    options = ("--weights", "bf16", "--max-quality-loss", "20%", "--tolerance", "0%", "--techniques")
    both = plan(*ASKED, *options, "kv_fp8_e4m3,kv_int8_pth", "--no-gains", "--format", "json").json
    taken = both["decision"]["groups"][0]["compression"]["hidden"]["point"]
    other = {"kv_fp8_e4m3": "kv_int8_pth", "kv_int8_pth": "kv_fp8_e4m3"}[taken]
    said = told(plan, *options, "kv_fp8_e4m3,kv_int8_pth")
    alone = plan(*ASKED, *options, other, "--no-gains", "--format", "json").json
    worse = re.search(rf"{other} isn't used: the best plan with it is ([\d.]+)% worse", said)
    share = 1.0 - alone["objective"]["best"] / both["objective"]["best"]
    assert alone["decision"]["groups"][0]["compression"]["hidden"]["point"] == other
    if worse is None:
        assert "as good" in said
        assert share == pytest.approx(0.0, abs=1e-6)
    else:
        assert float(worse[1]) / 100.0 == pytest.approx(share, abs=6e-4)
