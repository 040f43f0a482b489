"""The engines' own start code says again what is recorded, and refuses what is planted.

Slow, and it needs an environment of 12 GB, which `.ci/run` makes and docs/deploy.md explains:

    PLAN_ENGINES=/path/to/environment pytest -m slow tests/acceptance/test_start_path_engines.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.load import Catalog, open_catalog
from catalog.schema import Model
from planner.plan import Document
from scripts.engine_reference.ask import ask
from scripts.engine_reference.cases import ENGINES, Case
from scripts.engine_reference.commands import commands_of
from scripts.engine_reference.named import PLANNED
from scripts.engine_reference.questions import config_text
from scripts.engine_reference.record import questions_of, recorded_cases

ENVIRONMENT = os.environ.get("PLAN_ENGINES")
Question = dict[str, Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENVIRONMENT is None, reason="PLAN_ENGINES names no environment with the engines"),
]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def said(module: str, questions: list[Question], place: Path) -> list[dict[str, Any]]:
    answers = list(ask(Path(str(ENVIRONMENT)), module, questions, place))
    assert len(answers) == len(questions)
    for answer in answers:
        answer.pop("name")
    return answers


def recorded(catalog: Catalog) -> Iterator[tuple[str, Question, dict[str, Any], Case, dict[str, Any]]]:
    """Yield the module to ask, the question, the recorded answer, the case and the start."""
    for engine in ENGINES:
        for case, starts in recorded_cases(engine):
            if case.refused is None:
                asked = questions_of(engine, case, starts, catalog)
                for start, (module, question) in zip(starts, asked, strict=True):
                    if module:
                        yield module, question, start["answer"], case, start


@pytest.mark.parametrize("module", ["vllm", "sglang", "others"])
def test_the_engines_say_what_is_recorded(module: str, catalog: Catalog, tmp_path: Path) -> None:
    rows = [row for row in recorded(catalog) if row[0] == module]
    answers = said(module, [question for _, question, *_ in rows], tmp_path)
    other = {
        (case.name, start.get("pool", start.get("program")), start.get("rank")): (answer, now)
        for (_, _, answer, case, start), now in zip(rows, answers, strict=True)
        if answer != now
    }
    assert other == {}


# --------------------------------------------------------------------------- planted errors


def command(engine: str, catalog: Catalog, wanted: Callable[[Case, dict[str, Any]], bool]) -> Question:
    """Return the first recorded question of an engine that is as wanted."""
    return next(
        question
        for module, question, answer, case, start in recorded(catalog)
        if module == engine and "program" not in start and answer["accepted"] and wanted(case, start)
    )


def with_flag(question: Question, name: str, value: str | None) -> Question:
    """Return a question with another value of a flag, or one more flag."""
    words = without(question, name)["words"]
    return {**question, "words": [*words, name, *([value] if value else [])]}


def without(question: Question, name: str) -> Question:
    words = question["words"]
    if name not in words:
        return question
    at = words.index(name)
    after = at + 1 if at + 1 == len(words) or words[at + 1].startswith("--") else at + 2
    return {**question, "words": words[:at] + words[after:]}


def factor(**values: str) -> Callable[[Case, dict[str, Any]], bool]:
    return lambda case, start: not start.get("rank") and all(case.factors.get(k) == v for k, v in values.items())


def test_vllm_refuses_what_is_planted(catalog: Catalog, tmp_path: Path) -> None:
    worker = command("vllm", catalog, lambda _, start: "--headless" in start["words"])
    latent = command("vllm", catalog, factor(model="mla", gpu="A100", cache="16-bit"))
    dense = command("vllm", catalog, factor(model="dense", gpu="A100"))
    chunks = {"chunk_size": 262_144, "local_size": 8_192, "original_max_position_embeddings": 262_144}
    dca = {**json.loads(config_text(catalog.get(Model, "qwen2.5-14b-1m"))), "dual_chunk_attention_config": chunks}
    planted = {
        "cannot be used with --headless": with_flag(worker, "--api-server-count", "1"),
        "FP8 KV cache is not supported by the Triton MLA backend": with_flag(latent, "--kv-cache-dtype", "fp8_e4m3"),
        "must be divisible by tensor parallel size": with_flag(dense, "--tensor-parallel-size", "3"),
        "unexpected keyword argument 'layer_idx'": {
            **with_flag(dense, "--tensor-parallel-size", "8"),
            "config": json.dumps(dca),
        },
    }
    for words, answer in zip(planted, said("vllm", list(planted.values()), tmp_path), strict=True):
        assert not answer["accepted"], words
        assert words in answer["error"]
        assert "engine_reference" not in answer["raised_in"]


def test_sglang_refuses_what_is_planted(catalog: Catalog, tmp_path: Path) -> None:
    decode = command("sglang", catalog, lambda _, start: start["pool"] == "decode" and not start["rank"])
    dense = command("sglang", catalog, factor(model="dense", gpu="A100"))
    planted = {
        # A decode pool keeps no prefixes, so it can't have a tier for them.
        "mutually exclusive": with_flag(decode, "--enable-hierarchical-cache", None),
        "assert self.total_num_heads %": with_flag(dense, "--tp-size", "3"),
    }
    for words, answer in zip(planted, said("sglang", list(planted.values()), tmp_path), strict=True):
        assert not answer["accepted"], words
        assert words in answer["error"]
        assert answer["raised_in"].startswith("sglang/")


# --------------------------------------------------------------------------- no flag is for nothing

SILENT = {
    "vllm": {
        "--served-model-name": "a name for clients",
        "--host": "where it listens",
        "--port": "where it listens",
        "--max-num-queued-reqs": "the API server's own limit",
        "--api-server-count": "processes in front of the engine",
        "--shutdown-timeout": "how long it drains",
        "--enable-prompt-tokens-details": "what its answers tell",
        "--dtype": "the config's own type",
        "--enable-chunked-prefill": "vLLM's default, which another version may change",
        "--enable-prefix-caching": "vLLM's default, which another version may change",
        "--gpu-memory-utilization": "vLLM's default; the KV bytes are given",
        "--block-size": "vLLM's default, or overridden by a hybrid's own",
        "--pipeline-parallel-size": "one stage is vLLM's default",
        "--tensor-parallel-size": "one rank is vLLM's default",
        "--distributed-executor-backend": "vLLM's own choice over several servers",
        "--attention-backend": "vLLM's own choice for this cache and GPU",
        "--master-addr": "the address of another server",
        "--kv-offloading-backend": "vLLM's default",
        "--node-rank": "the first server is the default",
    },
    "sglang": {
        "--served-model-name": "a name for clients",
        "--host": "where it listens",
        "--port": "where it listens",
        "--enable-metrics": "what it tells of itself",
        "--enable-cache-report": "what its answers tell",
        "--dtype": "the config's own type",
        "--pp-size": "one stage is SGLang's default",
        "--tp-size": "one rank is SGLang's default",
        "--attention-backend": "SGLang's own choice for this GPU",
        "--hicache-write-policy": "SGLang's default, which another version may change",
        "--disaggregation-bootstrap-port": "where it listens",
        "--dist-init-addr": "the address of another server",
        "--node-rank": "the first server is the default",
        "--lmcache-config-file": "LMCache's own file",
    },
}
"""Flags that may change nothing of what an engine reports, and why."""
STRIPPED = [factor(model="dense", serving="aggregated"), factor(tier="ddr", serving="aggregated")]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_flag_changes_what_the_engine_reports(engine: str, catalog: Catalog, tmp_path: Path) -> None:
    whole = [command(engine, catalog, wanted) for wanted in STRIPPED]
    needed = {"--model-path"}
    asked = [
        (question, name)
        for question in whole
        for name in (word for word in question["words"] if word.startswith("--"))
        if name not in needed
    ]
    answers = said(engine, whole + [without(question, name) for question, name in asked], tmp_path)
    full, stripped = answers[: len(whole)], answers[len(whole) :]
    same: dict[str, bool] = {}
    for (question, name), answer in zip(asked, stripped, strict=True):
        same[name] = same.get(name, True) and answer == full[whole.index(question)]
    silent = {name for name, is_same in same.items() if is_same}
    assert silent <= set(SILENT[engine]), "these flags change nothing that the engine reports"
    assert {"--max-total-tokens", "--kv-cache-memory-bytes"} & (set(same) - silent)


# --------------------------------------------------------------------------- the main command

MAIN = [(engine, name) for engine, requests in PLANNED.items() for name in requests if name.startswith("plan ")]


@pytest.mark.parametrize(("engine", "line"), MAIN)
def test_the_engine_accepts_what_the_main_command_emits(
    engine: str, line: str, catalog: Catalog, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "cli", *line.split()[1:], "--no-gains", "--emit", str(out), "--target", engine],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    document = Document.model_validate_json(files["plan.json"])
    commands = commands_of(document, files, [engine], catalog, tmp_path / "run")
    case = Case(line, {}, {}, document.service.model_dump(mode="json"), [engine])
    starts = [command.as_json() for command in commands]
    asked = list(questions_of(engine, case, starts, catalog, document))
    for answer in said(engine, [question for _, question in asked], tmp_path / "asked"):
        assert answer["accepted"], answer
