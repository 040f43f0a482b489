"""Ready checkpoints: taken first, never another model's, and what has to be made is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.load import open_catalog
from catalog.ready import best_ready
from catalog.schema import Checkpoints, Engine
from planner import evaluate
from planner.emit import emit
from planner.errors import InputError
from planner.plan import Document
from planner.request import Request
from planner.service import Batch, Parallel, Service

Plan = Callable[..., Any]
INSTRUCT = "meta-llama/Llama-3.1-8B-Instruct"
ASKED = ("--ctx", "32K", "--gpus", "1xA100", "--no-gains", "--engine", "vllm")
FACTS = open_catalog([])
READY = sorted(
    {
        (entry.model, ready.base, ready.point)
        for entry in FACTS.all(Checkpoints)
        for ready in entry.checkpoints
        if ready.point is not None
    }
)


def test_a_published_checkpoint_is_loaded_and_nothing_is_made(plan: Plan, tmp_path: Path) -> None:
    made = plan("--model", INSTRUCT, *ASKED, "--weights", "int8_w8a8", "--emit", tmp_path / "d", "--format", "json")
    assert made.code == 0, made.stderr
    settings = yaml.safe_load((tmp_path / "d" / "vllm" / "serve.yaml").read_text())
    assert settings["model"] == "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8"
    assert settings["served-model-name"] == INSTRUCT
    assert "quantization" not in settings  # vLLM reads it in the checkpoint
    text = "".join(path.read_text() for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert "make_checkpoint" not in text
    assert "loads RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8" in made.stderr
    assert f"--tokenizer {INSTRUCT} " in (tmp_path / "d" / "README.md").read_text()
    assert not any("published checkpoint" in line for line in made.json["warnings"])
    assert made.json["provenance"]["weights_choice"].startswith("int8_w8a8, published: RedHatAI/")


def test_a_format_that_nobody_publishes_costs_a_visible_line(plan: Plan) -> None:
    found = plan("--model", "mistralai/Mistral-7B-Instruct-v0.3", *ASKED, "--weights", "int8_w8a8", "--format", "json")
    (line,) = [line for line in found.json["warnings"] if "published checkpoint" in line]
    assert line.startswith("int8_w8a8: the catalog knows no published checkpoint of mistralai/Mistral-7B-Instruct-v0.3")
    shown = plan("--model", "mistralai/Mistral-7B-Instruct-v0.3", *ASKED, "--weights", "int8_w8a8").stdout
    assert "Weights: int8_w8a8, TO BE MADE FIRST" in "\n".join(shown.splitlines()[:7])


@pytest.mark.parametrize("base", ["meta-llama/Llama-3.1-8B", INSTRUCT])
def test_no_instruct_is_served_for_a_base_nor_the_other_way_round(base: str) -> None:
    vllm = FACTS.get(Engine, "vllm")
    found = best_ready(FACTS, "llama-3.1-8b", base, "w_int8_w8a8", vllm, "8.0")
    assert found is not None
    assert ("Instruct" in found.hub_id) == ("Instruct" in base)


def test_a_checkpoint_that_is_asked_for_pins_its_weights(plan: Plan, tmp_path: Path) -> None:
    name = "nvidia/Llama-3.1-8B-Instruct-FP8"
    found = plan("--model", name.upper(), *ASKED, "--emit", tmp_path / "d", "--format", "json")
    assert found.code == 0, found.stderr
    assert found.json["decision"]["groups"][0]["weights"] == "fp8"
    settings = yaml.safe_load((tmp_path / "d" / "vllm" / "serve.yaml").read_text())
    assert (settings["model"], settings["served-model-name"]) == (name, name)
    assert "quantization" not in settings
    refused = plan("--model", name, *ASKED, "--weights", "awq4")
    assert (refused.code, "use one of any, fp8" in refused.stderr) == (2, True)
    (tmp_path / "decision.json").write_text(json.dumps({"engine": "vllm", "weights": "bf16"}))
    priced = plan(
        "evaluate", "--model", name, "--ctx", "8K", "--gpus", "1xA100", "--decision", tmp_path / "decision.json"
    )
    assert priced.code == 2
    assert f"{name} is fp8, not bf16" in priced.stderr


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("nvidia/Llama-3.1-8B-Instruct-NVFP4", "vllm"), "its weights (modelopt NVFP4) can't be priced yet"),
        (("nvidia/Llama-3.1-8B-Instruct-FP8", "sglang"), "sglang isn't known to load modelopt on NVIDIA A100"),
        (("zai-org/GLM-4.5-Air-FP8", "vllm"), "of a method that isn't known"),
    ],
)
def test_what_cannot_be_planned_is_told_with_the_way_out(plan: Plan, asked: tuple[str, str], told: str) -> None:
    found = plan("--model", asked[0], "--engine", asked[1], "--ctx", "8K", "--gpus", "8xA100", "--no-gains")
    assert found.code == 2
    assert told in found.stderr
    assert "and let its weights be chosen" in found.stderr


def test_a_checkpoint_of_other_weights_is_refused_beside_a_plan(plan: Plan, tmp_path: Path) -> None:
    asked = ("--weights", "int8_w8a8", "--emit", tmp_path / "d")
    found = plan("--model", INSTRUCT, *ASKED, *asked, "--checkpoint", "nvidia/Llama-3.1-8B-Instruct-FP8")
    assert found.code == 2
    assert "its weights are fp8, the plan's are int8_w8a8" in found.stderr


def document_of(base: str, point: str) -> Document:
    request = Request(ctx=1000, gpus="2x8xH100", model=base, rounds=1)
    last = InputError("nothing tried")
    for tp, pp in ((8, 1), (4, 1), (2, 1), (1, 1), (8, 2)):
        batch = Batch(decode_sequences=1, prefill_chunk_tokens=2048)
        decision = Service(
            engine="vllm", weights=point.removeprefix("w_"), parallel=Parallel(tp=tp, pp=pp), batch=batch
        )
        try:
            return evaluate(request, decision, FACTS)
        except InputError as error:
            last = error
    pytest.skip(str(last))


def check_nothing_is_made(base: str, point: str) -> None:
    document = document_of(base, point)
    try:
        files = emit(document, ["vllm", "kubernetes"], FACTS)
    except InputError as error:
        pytest.skip(str(error))
    model = document.request["model"]
    found = best_ready(FACTS, next(m for m, b, p in READY if b == model), base, point, FACTS.get(Engine, "vllm"), "9.0")
    made = any("make_checkpoint" in text for name, text in files.items() if name != "plan.json")
    assert made == (found is None and point != "w_fp8")
    if found is not None:
        assert yaml.safe_load(files["vllm/serve.yaml"])["model"] == found.hub_id


@pytest.mark.parametrize(("base", "point"), [(base, point) for _, base, point in READY[::40]])
def test_nothing_is_made_that_some_models_have_ready(base: str, point: str) -> None:
    check_nothing_is_made(base, point)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "point"), [(base, point) for _, base, point in READY])
def test_nothing_is_made_that_any_model_has_ready(base: str, point: str) -> None:
    check_nothing_is_made(base, point)


def test_the_catalog_shows_and_checks_them(plan: Plan, write_entry: Callable[..., Path]) -> None:
    listed = plan("catalog", "list", "checkpoints", "--format", "json").json
    assert len(listed) > 70
    assert "Qwen/Qwen3-8B-AWQ" in plan("catalog", "show", "checkpoints", "qwen3-8b").stdout
    overlay = write_entry(
        "checkpoints",
        "mine",
        """
        id: mine
        name: Mine
        model: llama-3.1-8b
        sources: [{ref: here}]
        checked: 2026-11-30
        checkpoints:
          - {hub_id: Qwen/Qwen3-8B-AWQ, base: Qwen/Qwen3-8B, point: w_awq4, provenance: found, source: here}
        """,
    )
    found = plan("catalog", "validate", overlay)
    assert found.code == 2
    for told in (
        "Qwen/Qwen3-8B-AWQ is already in",
        "has a precision but no quant_method",
        "Qwen/Qwen3-8B is no hub id of llama-3.1-8b",
    ):
        assert told in found.stderr
