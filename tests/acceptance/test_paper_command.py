"""`plan paper`: the source paper's analysis next to what it prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_table_shows_printed_and_computed_values_with_their_provenance(plan: Callable[..., Any]) -> None:
    out = plan("paper")
    assert out.code == 0
    line = next(line for line in out.stdout.splitlines() if line.startswith("prefill, 50K"))
    for part in ("14.1 s", "secondary", "14.34 s", "+1.7%", "doesn't close"):
        assert part in line
    for title in ("Running example", "Tensor parallelism", "MHA to GQA to MQA", "GPUs", "Models", "1M as cheap as 4K"):
        assert any(line.startswith(title) for line in out.stdout.splitlines()), title
    assert out.stderr == ""


def test_nothing_recalled_is_shown_as_found(plan: Callable[..., Any]) -> None:
    printed = plan("paper", "--format", "json").json["printed"]
    assert {row["provenance"] for row in printed} == {"found", "secondary", "recalled"}
    assert {row["id"]: row["provenance"] for row in printed}["switch-50k"] == "recalled"
    assert [row["id"] for row in printed if row["provenance"] == "found"] == ["goal"]


def test_json_is_one_document_with_every_case_and_table(plan: Callable[..., Any]) -> None:
    document = plan("paper", "--format", "json").json
    assert document["schema_version"] == 1
    assert document["cases"]["KV-TOK"] == {"label": "KV per token", "unit": "B", "value": 245760}
    rows = document["tables"]["running_example"]["rows"]
    assert [row["ctx"] for row in rows] == ["4K", "50K", "100K", "200K", "1M"]
    assert [row["users"] for row in rows] == [18, 1, 0, 0, 0]


def test_the_figure_is_written_and_said_on_stderr(plan: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "paper.png"
    out = plan("paper", "--figure", target, "--format", "json")
    assert out.code == 0
    assert target.read_bytes().startswith(PNG)
    assert str(target) in out.stderr
    assert out.json["schema_version"] == 1


def test_an_existing_figure_is_kept_unless_forced(plan: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "paper.svg"
    target.write_text("mine")
    out = plan("paper", "--figure", target)
    assert out.code == 2
    assert "--force" in out.stderr
    assert out.stdout == ""
    assert target.read_text() == "mine"
    assert plan("paper", "--figure", target, "--force").code == 0
    assert "<svg" in target.read_text("utf-8")


def test_a_figure_of_an_unknown_format_is_refused(plan: Callable[..., Any], tmp_path: Path) -> None:
    out = plan("paper", "--figure", tmp_path / "paper.pdf")
    assert out.code == 2
    assert ".png or .svg" in out.stderr
    assert "Traceback" not in out.stderr
