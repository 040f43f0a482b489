"""What somebody asks for by name is what the emitted files load, serve, measure and check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.identity import NO_HUB_ID, all_names, hub_id_of, hub_ids
from catalog.load import open_catalog
from catalog.schema import Model
from planner import evaluate
from planner.emit import emit
from planner.errors import InputError
from planner.plan import Document
from planner.request import Request
from planner.service import Batch, Parallel, Service

Plan = Callable[..., Any]
MODELS = [model.id for model in open_catalog([]).all(Model) if model.hf_id != NO_HUB_ID]
SAMPLE = MODELS[::25]
ASKED = ("--ctx", "32K", "--gpus", "1xH100", "--no-gains")
NOT_A_NAME = ("plan.json", "provenance.json")
"""Files that quote where facts were read."""


def other_names(files: dict[str, str], model: Model, expected: str) -> Iterator[str]:
    """Yield the lines that name another checkpoint of the entry."""
    others = "|".join(re.escape(hub_id) for hub_id in hub_ids(model) if hub_id.lower() != expected.lower())
    found = re.compile(rf"(?<![\w.-])(?:{others})(?![\w.-])", re.IGNORECASE)
    for path, text in files.items():
        if others and path not in NOT_A_NAME:
            yield from (f"{path}: {line.strip()}" for line in text.splitlines() if found.search(line))


@pytest.mark.parametrize("typed", ["meta-llama/Llama-3.1-8B-Instruct", "META-LLAMA/llama-3.1-8b-INSTRUCT"])
def test_a_hub_id_is_what_is_loaded_served_measured_and_checked(plan: Plan, tmp_path: Path, typed: str) -> None:
    spelled = "meta-llama/Llama-3.1-8B-Instruct"
    found = plan("--model", typed, *ASKED, "--weights", "bf16", "--emit", tmp_path / "d", "--format", "json")
    assert found.code == 0, found.stderr
    assert found.json["request"]["model"] == typed
    files = {str(path.relative_to(tmp_path / "d")): path.read_text() for path in (tmp_path / "d").rglob("*.*")}
    assert list(other_names(files, open_catalog([]).get(Model, "llama-3.1-8b"), spelled)) == []
    readme = files["README.md"]
    assert readme.startswith(f"# `{spelled}`")
    assert readme.count(spelled) >= 6  # heading, clients, load test and its tokenizer, quality check, comparison
    assert yaml.safe_load(files["vllm/serve.yaml"])["model"] == spelled
    assert f"--served-model-name {spelled}" in files["vllm/serve.sh"].replace(" \\\n ", "")


@pytest.mark.parametrize(
    ("typed", "loaded", "served"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.1", None),
        ("mistral-7b-instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-instruct-v0.1"),
        ("mistralai/mistral-7b-v0.1", "mistralai/Mistral-7B-v0.1", None),
        ("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
        ("Falcon-7B-Instruct", "tiiuae/falcon-7b-instruct", "falcon-7b-instruct"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507", None),
    ],
)
def test_no_name_stands_for_another_checkpoint(typed: str, loaded: str, served: str | None) -> None:
    files = emit(document_of(typed), ["vllm"], open_catalog([]))
    settings = yaml.safe_load(files["vllm/serve.yaml"])
    assert settings["model"] == loaded
    assert settings["served-model-name"] in (served or loaded, [served or loaded])


def document_of(name: str) -> Document:
    """A plan as `plan evaluate` prices it, on so many GPUs as the model's heads divide into."""
    request = Request(ctx=1000, gpus="8xH200", model=name, rounds=1)
    for tp in (8, 4, 2, 1):
        parallel, batch = Parallel(tp=tp), Batch(decode_sequences=1, prefill_chunk_tokens=2048)
        try:
            return evaluate(request, Service(engine="vllm", parallel=parallel, batch=batch), open_catalog([]))
        except InputError as error:
            if "no engine serves" in str(error) or "decision: engine" in str(error):
                pytest.skip(str(error))
            if "divide" not in str(error):
                raise
    raise AssertionError(name)


def check_every_name(model_id: str) -> None:
    catalog = open_catalog([])
    model = catalog.get(Model, model_id)
    document = document_of(model_id)
    for name in all_names(model):
        for typed in (name, name.upper()):
            expected = hub_id_of(model, name)
            assert expected is not None
            if "/" in name:
                assert expected == name
            asked = document.model_copy(update={"request": {**document.request, "model": typed}})
            try:
                files = emit(asked, ["vllm", "kubernetes"], catalog)
            except InputError:
                if typed != name:
                    raise
                return  # an architecture that vLLM doesn't run here, whatever its name
            assert list(other_names(files, model, expected)) == []
            settings = yaml.safe_load(files["vllm/serve.yaml"])
            assert settings["model"] == expected
            assert settings["served-model-name"] in (name, [name])
            assert f"--tokenizer {expected} " in files["README.md"]
            assert json.loads(files["provenance.json"])["model"] == expected


@pytest.mark.parametrize("model_id", SAMPLE)
def test_every_name_of_some_models_is_that_model(model_id: str) -> None:
    check_every_name(model_id)


@pytest.mark.slow
@pytest.mark.parametrize("model_id", MODELS)
def test_every_name_of_every_model_is_that_model(model_id: str) -> None:
    check_every_name(model_id)


def test_an_unlisted_fine_tune_is_told_how_to_be_served(plan: Plan) -> None:
    found = plan("--model", "NousResearch/Hermes-3-Llama-3.1-8B", *ASKED)
    assert found.code == 2
    assert "plan with --model llama-3.1-8b, and emit with --checkpoint NousResearch/Hermes-3-Llama-3.1-8B" in (
        found.stderr
    )
    assert "--checkpoint" not in plan("--model", "google/foo", *ASKED).stderr


def test_a_directory_of_this_machine_reaches_no_manifest_unless_asked(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = open_catalog([]).get(Model, "qwen3-8b").config
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    asked = ("--model", tmp_path / "mine", "--ctx", "16K", "--gpus", "1xH100", "--no-gains", "--weights", "bf16")
    made = plan(*asked, "--emit", tmp_path / "d")
    assert made.code == 0, made.stderr
    assert "need --checkpoint ID or PATH" in made.stderr
    written = {path.parent.name for path in (tmp_path / "d").rglob("*.*")}
    assert written == {"d", "vllm"}
    refused = plan("emit", tmp_path / "d" / "plan.json", "--target", "kubernetes", "-o", tmp_path / "k")
    assert refused.code == 2
    assert "add --checkpoint ID" in refused.stderr
    named = plan(
        "emit", tmp_path / "d" / "plan.json", "--target", "kubernetes,compose", "-o", tmp_path / "n",
        "--checkpoint", "me/mine",
    )  # fmt: skip
    assert named.code == 0, named.stderr
    for path in (tmp_path / "n" / "kubernetes", tmp_path / "n" / "compose"):
        assert not any(str(tmp_path) in file.read_text() for file in path.iterdir())
        assert any("me/mine" in file.read_text() for file in path.iterdir())


def test_weights_that_nobody_publishes_are_asked_for(plan: Plan, tmp_path: Path) -> None:
    found = plan(
        "--model", "gpt-20b", "--ctx", "1K", "--rounds", "1", "--gpus", "8xA100", "--no-gains", "--emit", tmp_path / "d"
    )
    assert found.code == 2
    assert "no weights of it are published; name yours with --checkpoint" in found.stderr
