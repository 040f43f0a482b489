"""What engines are started with is what their own start code was asked about, and accepted.

The record holds each case's commands and what the engine said to them. Here, without an engine: today's
commands are the recorded ones, every pair of values is there, and what the engines said is what was planned.
`test_start_path_engines.py` asks the engines again; a change of what is emitted is recorded with

    python -m scripts.engine_reference ENVIRONMENT --record

(docs/deploy.md says how the environment is made; only changed commands are asked.)
"""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from catalog.load import Catalog, open_catalog
from catalog.schema import Model
from planner.emit.capacity import reserve
from planner.emit.deployment import Deployment
from planner.emit.read_deployment import read_deployment
from planner.targets import check_targets
from scripts.engine_reference.cases import ENGINES, FACTORS, Case, document_of, refusal_of
from scripts.engine_reference.record import GOLDEN, read_record, recorded_cases, starts_of, versions

Start = dict[str, Any]
RECORDED = ("program", "pool", "rank", "words", "environment", "settings")
"""What of a start is emitted; the rest is what an engine said."""


@cache
def recorded() -> dict[str, tuple[Case, list[Start]]]:
    return {case.name: (case, starts) for engine in ENGINES for case, starts in recorded_cases(engine)}


NAMES = sorted(recorded())
STARTED = [name for name in NAMES if recorded()[name][0].refused is None]
REFUSED = [name for name in NAMES if recorded()[name][0].refused is not None]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def deployment_of(case: Case, catalog: Catalog) -> Deployment:
    return read_deployment(
        document_of(case, catalog), catalog, offload_backend=check_targets(",".join(case.targets))[2]
    )


def test_the_record_is_of_the_locked_versions() -> None:
    for engine in ENGINES:
        assert read_record(engine)["versions"] == versions(), f"{engine}: record again"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_pair_of_values_is_started_or_refused(engine: str) -> None:
    cases = [case for case, _ in recorded_cases(engine) if case.factors]
    started = {pair for case in cases if case.refused is None for pair in combinations(case.factors.items(), 2)}
    refused = {pair for case in cases if case.refused is not None for pair in combinations(case.factors.items(), 2)}
    for one, other in combinations(FACTORS, 2):
        for value in FACTORS[one]:
            for another in FACTORS[other]:
                pair = ((one, value), (other, another))
                assert pair in started | refused or never_started(value, started) or never_started(another, started)
    assert len(started) > len(refused) or engine not in ("vllm", "sglang")


def never_started(value: str, started: set[Any]) -> bool:
    """Whether an engine starts nothing with a value at all: one refusal says so."""
    return all(value not in (a[1], b[1]) for a, b in started)


@pytest.mark.parametrize("name", STARTED)
def test_what_is_emitted_is_what_was_asked(name: str, catalog: Catalog, tmp_path: Path) -> None:
    case, starts = recorded()[name]
    today = starts_of(case, catalog, tmp_path)
    assert today == [{key: start[key] for key in RECORDED if key in start} for start in starts], (
        "emitted otherwise than the engines were asked: record again"
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_refused_still_is(name: str, catalog: Catalog) -> None:
    case, _ = recorded()[name]
    if case.decision is not None:
        assert refusal_of(case, catalog) is not None, "it can be had now: record again, with --choose"


@pytest.mark.parametrize("name", STARTED)
def test_the_engine_starts_and_holds_what_was_planned(name: str, catalog: Catalog) -> None:
    case, starts = recorded()[name]
    whole = deployment_of(case, catalog)
    for start in starts:
        said = start.get("answer")
        if said is None:
            assert whole.engine.id in ("llama.cpp", "tensorrt-llm") or start.get("program") == "trtllm", start
            continue
        assert said["accepted"], (start.get("words", start.get("program")), said["error"])
        if "words" not in start or "program" in start or start["rank"]:
            continue
        pool = next(pool for pool in whole.pools if pool.name == start["pool"])
        deployment = whole.of(pool)
        if deployment.engine.id == "vllm":
            assert said["max_model_len"] == deployment.max_model_len
            assert said["max_num_batched_tokens"] == deployment.batched_tokens(pool)
            held = reserve(deployment, pool, deployment.batched_tokens(pool))
            if held is None or held.capacity is None:
                continue
            if held.exact:
                assert (said["blocks"], said["tokens"]) == (held.capacity.blocks, held.capacity.tokens)
            assert said["concurrency"] >= held.capacity.concurrency - 1e-4
        elif deployment.engine.id == "sglang" and pool.resident_sessions is not None:
            held_tokens = said["pool"]["max_total_num_tokens"] * pool.dcp
            divided = deployment.architecture.attention_kinds & {"sliding", "chunked", "linear"}
            exact = not divided and "fp8" not in (deployment.decision.weights, said.get("quantization"))
            assert held_tokens >= (deployment.kv_tokens(pool) if exact else deployment.max_model_len)
            assert said["pool"]["max_running_requests"] >= pool.sequences


def test_tensorrt_llm_gets_only_fields_that_it_publishes() -> None:
    """Its package can't be installed here: a strict schema, written by hand from llm_args, stands in its place."""
    schema = json.loads((GOLDEN / "tensorrt_llm_args.schema.json").read_text())
    files = [s["settings"] for case, starts in recorded_cases("tensorrt-llm") for s in starts if "settings" in s]
    assert files
    for settings in files:
        jsonschema.validate(settings, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**settings, "max_seq_lens": 1}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**settings, "kv_cache_config": {"max_token": 1}}, schema)


def test_the_configs_are_files_as_found(catalog: Catalog) -> None:
    used = {str(case.request["model"]) for case, _ in recorded().values() if case.refused is None}
    weak = {model: catalog.get(Model, model).config_grade for model in sorted(used)}
    assert {model: grade for model, grade in weak.items() if grade in ("confirmed", "recalled")} == {}
