"""Where nothing can be planned: exit 3, the clash, and the cheapest repair of each limit, all true."""

from __future__ import annotations

import json
from typing import Any

import pytest

import cli

BASE = {"--model": "llama-3.1-8b", "--ctx": "128K", "--gpus": "1xA100", "--efficiency": "peak", "--engine": "vllm"}


def run(capsys: pytest.CaptureFixture[str], options: dict[str, str]) -> tuple[int, dict[str, Any]]:
    code = cli.main([*(word for pair in options.items() for word in pair), "--format", "json"])
    said = capsys.readouterr()
    assert code in (0, 3), said.err
    return code, json.loads(said.out)


@pytest.mark.slow
def test_a_latency_nobody_reaches(capsys: pytest.CaptureFixture[str]) -> None:
    options = {**BASE, "--max-latency": "4ms"}
    code, document = run(capsys, options)
    assert code == 3
    assert document["status"] == "infeasible"
    assert any("--max-latency 4ms" in clash for clash in document["infeasible"]["conflicts"])
    rows = {row["limit"]: row["to"] for row in document["infeasible"]["relaxations"]}
    repaired = int(rows["--max-latency"].removesuffix("ms"))
    assert run(capsys, {**options, "--max-latency": f"{repaired}ms"})[0] == 0
    assert run(capsys, {**options, "--max-latency": f"{repaired - 1}ms"})[0] == 3
    more = rows["--gpus"]
    if more is not None:
        count, name = more.split("x", 1)
        assert run(capsys, {**options, "--gpus": more})[0] == 0
        assert run(capsys, {**options, "--gpus": f"{int(count) - 1}x{name}"})[0] == 3


@pytest.mark.slow
def test_more_users_than_fit(capsys: pytest.CaptureFixture[str]) -> None:
    options = {**BASE, "--users": "100000"}
    code, document = run(capsys, options)
    assert code == 3
    rows = {row["limit"]: row["to"] for row in document["infeasible"]["relaxations"]}
    most = int(rows["--users"])
    assert run(capsys, {**options, "--users": str(most)})[0] == 0
    assert run(capsys, {**options, "--users": str(most + 1)})[0] == 3


def test_weights_that_do_not_fit_need_more_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    options = {**BASE, "--model": "llama-3.1-70b", "--ctx": "4K", "--weights": "bf16"}
    code, document = run(capsys, options)
    assert code == 3
    assert ["--weights bf16", "--gpus 1xA100"] in document["infeasible"]["conflicts"]
    rows = {row["limit"]: row["to"] for row in document["infeasible"]["relaxations"]}
    assert rows["--gpus"] == "2xA100"
    assert run(capsys, {**options, "--gpus": "2xA100"})[0] == 0
