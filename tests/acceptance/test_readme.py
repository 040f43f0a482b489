"""The README's promises: two commands for a fresh machine, and examples that work as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = Callable[..., Any]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
FRESH = [command for command in COMMANDS if command.startswith("python3.11 -m venv .venv && ")]
EXAMPLES = [
    *(command.rpartition(" && .venv/bin/")[2] for command in FRESH if "pytest" not in command),
    *(command for command in COMMANDS if command.startswith("plan ")),
]


def test_two_commands_take_a_fresh_machine_to_an_answer_and_to_passing_tests() -> None:
    install, test = FRESH
    assert ".venv/bin/pip install ." in install
    assert ".venv/bin/plan " in install
    assert test == "python3.11 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest -n 2"


def test_ci_finds_exactly_one_command_that_passes_the_tests() -> None:
    assert len([command for command in COMMANDS if "pytest" in command]) == 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_work_as_they_stand(plan: Plan, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-catalog" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(example)
    assert program == "plan"
    output = plan(*arguments)
    assert output.code == 0, output.stderr
    assert output.stdout or output.stderr


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))],
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []
