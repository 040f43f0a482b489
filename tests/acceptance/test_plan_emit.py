"""`plan --emit DIR`: a plan becomes deployment files in the same command, or nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.plan import Infeasible

Plan = Callable[..., Any]
ASKED = ("--ctx", "50K", "--gpus", "2xA100", "--model", "llama-3.1-8b", "--engine", "vllm", "--no-gains")


def test_one_command_plans_and_emits_what_the_plan_says(plan: Plan, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "plan.json"
    made = plan(*ASKED, "--format", "json", "-o", file, "--emit", out)
    assert made.code == 0, made.stderr
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"vllm/serve.sh", "vllm/serve.yaml", "compose/compose.yaml", "kubernetes/kubernetes.yaml"} <= written
    assert {"README.md", "plan.json", "provenance.json"} <= written
    assert (out / "plan.json").read_text() == file.read_text()
    document = made.json  # stdout is the document and nothing else
    assert json.loads(file.read_text()) == document
    batch = document["decision"]["groups"][0]["batch"]
    sequences = 1 if batch["resident_sessions"] == 1 else batch["decode_sequences"] + 1
    settings = yaml.safe_load((out / "vllm" / "serve.yaml").read_text())
    assert settings["max-model-len"] == 50_000 + 5 * 350
    assert settings["max-num-seqs"] == sequences
    assert settings["tensor-parallel-size"] == document["decision"]["groups"][0]["parallel"]["tp"]
    told = made.stderr.splitlines()
    assert f"emitted: {out / 'vllm' / 'serve.sh'}" in told
    again = plan(*ASKED, "--emit", out)
    assert (again.code, again.stdout) == (2, "")
    assert f"--emit {out}: isn't empty" in again.stderr
    assert plan(*ASKED, "--emit", out, "--target", "shell", "--force").code == 0
    assert not (out / "kubernetes").exists()
    assert (out / "shell" / "serve.sh").exists()


def test_an_infeasible_request_writes_nothing(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Infeasible(conflicts=(("--weights bf16", "--gpus 1xRTX-4090"),), relaxations=())
    monkeypatch.setattr("planner.explain.explain_infeasible", lambda *_: told)
    asked = ("--ctx", "50K", "--gpus", "1xRTX-4090", "--model", "llama-3.1-70b", "--weights", "bf16")
    made = plan(*asked, "--emit", tmp_path / "out")
    assert made.code == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--emit", "{file}"), "--emit {file}: is a file; give a directory"),
        (("--emit", "{new}", "--target", "kubernets"), "did you mean kubernetes?"),
        (("--emit", "{new}", "--efficiency", "peak"), "--emit: a plan at theoretical peak"),
        (("--checkpoint", "a/b"), "--checkpoint a/b: is for --emit DIR; add it"),
    ],
)
def test_what_can_never_be_emitted_is_told_before_planning(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("planner.pipeline.make_plan", lambda *_, **__: pytest.fail("planned"))
    places = {"file": str(tmp_path / "file"), "new": str(tmp_path / "new")}
    (tmp_path / "file").write_text("")
    made = plan(*ASKED, *(option.format(**places) for option in options))
    assert (made.code, made.stdout) == (2, "")
    assert told.format(**places) in made.stderr
    assert not (tmp_path / "new").exists()
