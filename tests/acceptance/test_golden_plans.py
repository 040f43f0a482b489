"""Documents of about seventy commands, number by number: what changes a plan anywhere shows here.

`tests/golden/requests.toml` names the commands. ``PLAN_UPDATE_GOLDEN=1`` writes what they say now; the difference is
to be read before it is committed.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "tests" / "golden" / "plans"
COMMANDS = tomllib.loads((ROOT / "tests" / "golden" / "requests.toml").read_text(encoding="utf-8"))

LEFT_OUT = {
    "catalog_hash": "any fact changes it",
    "sources": "prose of the catalog, which has its own tests",
    "bound": "how near a proof comes is a matter of its way; status says whether it is one",
    "gap": "the same",
    "priced": "how much work a proof took",
    "search": "the same",
}
"""Leaves that two right programs may differ in, and why."""
OF_A_PLAN_INSIDE = ("status", "objective", "decision")
"""What is kept of a whole plan inside another document; whole plans have goldens of their own."""
TOLERANCE = 1e-9
"""Relative."""
SMALLEST = 1e-12
"""Numbers that differ by less are equal [any unit]."""
MOST_TOLD = 25
"""Leaves that a failure names."""


def kept(value: Any, *, inside: bool = False) -> Any:
    """What of a document is compared: not what is left out by name; a null is as good as absent."""
    if isinstance(value, list):
        return [kept(one, inside=True) for one in value]
    if not isinstance(value, dict):
        return value
    if inside and "schema_version" in value:
        value = {name: value[name] for name in OF_A_PLAN_INSIDE if name in value}
    return {name: kept(one, inside=True) for name, one in value.items() if one is not None and name not in LEFT_OUT}


def differences(golden: Any, now: Any, where: str = "") -> Iterator[str]:
    """Every leaf that isn't what it was, by its path."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*golden, *now]):
            yield from differences(golden.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif isinstance(golden, list) and isinstance(now, list):
        for place in range(max(len(golden), len(now))):
            one, other = (side[place] if place < len(side) else None for side in (golden, now))
            yield from differences(one, other, f"{where}[{place}]")
    elif not same(golden, now):
        yield f"{where}: was {shown(golden)}, is {shown(now)}"


def same(golden: Any, now: Any) -> bool:
    """Whether two leaves are equal: numbers to nine digits, everything else exactly."""
    if isinstance(golden, bool) or isinstance(now, bool):
        return golden is now
    if isinstance(golden, int | float) and isinstance(now, int | float):
        return abs(golden - now) <= max(TOLERANCE * max(abs(golden), abs(now)), SMALLEST)
    return bool(golden == now)


def shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


@pytest.fixture
def said(plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Run a line of commands as a shell in the project's root would, and return what it says."""

    def run(line: str) -> dict[str, Any]:
        monkeypatch.chdir(ROOT)
        # Deadlines count this process's own time: how busy the machine is may not decide what an explanation finds.
        monkeypatch.setattr(time, "monotonic", time.process_time)
        stdout = ""
        for command in line.split(" | "):
            monkeypatch.setattr("sys.stdin", io.StringIO(stdout))
            result = plan(*shlex.split(command), "--format", "json")
            stdout = result.stdout
        found: dict[str, Any] = {"command": f"plan {line}", "exit_code": result.code}
        if stdout:
            return {**found, "document": kept(json.loads(stdout))}
        return {**found, "stderr": result.stderr.splitlines()}

    return run


def check(name: str, now: dict[str, Any]) -> None:
    golden = PLANS / f"{name}.json"
    if os.environ.get("PLAN_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    found = list(differences(json.loads(golden.read_text(encoding="utf-8")), now))
    if found:
        rest = [f"... and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
        head = f"{golden.relative_to(ROOT)}: {now['command']}: {len(found)} leaves differ"
        pytest.fail("\n  ".join([head, *found[:MOST_TOLD], *rest]), pytrace=False)


@pytest.mark.parametrize("name", COMMANDS["quick"])
def test_documents_are_the_golden_ones(name: str, said: Callable[[str], dict[str, Any]]) -> None:
    check(name, said(COMMANDS["quick"][name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS["slow"])
def test_more_documents_are_the_golden_ones(name: str, said: Callable[[str], dict[str, Any]]) -> None:
    check(name, said(COMMANDS["slow"][name]))


def test_every_golden_has_its_command() -> None:
    commands = {**COMMANDS["quick"], **COMMANDS["slow"]}
    assert len(commands) == len(COMMANDS["quick"]) + len(COMMANDS["slow"])
    assert {path.stem for path in PLANS.glob("*.json")} == set(commands)


def test_a_difference_names_its_leaf() -> None:
    golden = {"metrics": {"users": 1.0, "latency": {"ttft_s": {"full": 2.0}}}, "groups": [{"tp": 1}], "warnings": []}
    now = {"metrics": {"users": 1.0 + 1e-8, "latency": {}}, "groups": [{"tp": True}, {"tp": 2}], "warnings": []}
    assert list(differences(golden, now)) == [
        "metrics.users: was 1.0, is 1.00000001",
        'metrics.latency.ttft_s: was {"full": 2.0}, is absent',
        "groups[0].tp: was 1, is true",
        'groups[1]: was absent, is {"tp": 2}',
    ]
    assert not list(differences(golden, json.loads(json.dumps(golden))))
    assert not list(differences({"users": 3}, {"users": 3.0 * (1.0 + 1e-10)}))
