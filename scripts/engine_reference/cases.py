"""The deployments whose start is tried: every pair of what decides how an engine is started.

Each is a request and a decision, priced and emitted by the program itself. What it refuses is an outcome too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from catalog.load import Catalog
from catalog.schema import Engine
from planner.decision import Decision
from planner.emit import emit
from planner.errors import InputError
from planner.pipeline import evaluate
from planner.plan import Document
from planner.price import evaluate as price
from planner.problem import resolve
from planner.request import read_request
from planner.service import Service
from planner.space import open_space
from planner.space.options import native_weights
from planner.verify import unavailable
from scripts.engine_reference.covering import Row, cover

GPUS_PER_SERVER = 8
FACTORS: dict[str, tuple[str, ...]] = {
    "serving": ("aggregated", "pools"),
    "tier": ("none", "ddr", "nvme", "lmcache"),
    "servers": ("one", "several"),
    "model": ("dense", "mla", "windowed", "hybrid", "moe-ep"),
    "gpu": ("A100", "H100"),
    "cache": ("16-bit", "8-bit"),
}
"""``servers``: whether an instance spans several. ``cache``: bits of an element of the KV cache."""
ENGINES = ("vllm", "sglang", "lmdeploy", "llama.cpp", "tensorrt-llm")
MODELS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("dense", "one"): (("qwen3-32b", "30K"), ("llama-3.1-8b", "100K")),
    ("dense", "several"): (("llama-3.1-70b", "100K"),),
    ("mla", "one"): (("deepseek-v2-lite", "30K"),),
    ("mla", "several"): (("deepseek-v3", "100K"),),
    ("windowed", "one"): (("gpt-oss-120b", "100K"), ("gemma-4-26b-a4b", "100K")),
    ("windowed", "several"): (("llama-4-scout", "1M"), ("gpt-oss-120b", "100K")),
    ("hybrid", "one"): (("nemotron-3-nano-30b-a3b", "200K"), ("qwen3-next-80b-a3b", "200K")),
    ("hybrid", "several"): (("qwen3-next-80b-a3b", "200K"), ("nemotron-3-super-120b-a12b", "200K")),
    ("moe-ep", "one"): (("qwen3-30b-a3b-2507", "200K"),),
    ("moe-ep", "several"): (("qwen3-235b-a22b-2507", "100K"),),
}
"""(kind, servers of an instance) -> models and contexts, the first that can be had; their configs are real files."""
EIGHT_BIT = ("kv_fp8_e4m3", "kv_int8_pth", "kv_fp8_e5m2", "lcpp_q8_0")
WEIGHTS = {"A100": ("bf16", "fp8"), "H100": ("fp8", "bf16")}
"""Of models that aren't quantised by their makers."""
TOO_SMALL = "no session fits these GPUs"
BATCH = {"decode_sequences": 4, "prefill_chunk_tokens": 4096}


@dataclass(frozen=True, slots=True)
class Case:
    """A deployment to start, or why there is none."""

    name: str
    factors: Row
    request: dict[str, Any]
    decision: dict[str, Any] | None
    targets: list[str]
    refused: str | None = None


def covering_cases(engine: str, catalog: Catalog) -> Iterator[Case]:
    """Yield an engine's cases: every pair of values in a deployment, or the refusal of one that has it."""
    made: dict[tuple[str, ...], Case] = {}

    def is_possible(row: Row) -> bool:
        made[tuple(row.values())] = case = _case(engine, row, catalog)
        return case.refused is None

    for row, _ in cover(FACTORS, is_possible):
        yield made[tuple(row.values())]


def document_of(case: Case, catalog: Catalog) -> Document:
    """Price a case's decision."""
    return evaluate(read_request(case.request), decision_of(case.decision or {}), catalog)


def decision_of(content: dict[str, Any]) -> Decision | Service:
    """Read a case's decision: groups side by side, or one service."""
    return Decision.model_validate(content) if "groups" in content else Service.model_validate(content)


def files_of(case: Case, catalog: Catalog) -> dict[str, str]:
    """Return a case's files, as the program emits them today."""
    return emit(document_of(case, catalog), case.targets, catalog)


def refusal_of(case: Case, catalog: Catalog) -> str | None:
    """Return why the program doesn't deploy a case, in its own words; None: it does."""
    return case.refused if case.decision is None else _refusal(case.request, case.decision, case.targets, catalog)


def _case(engine: str, row: Row, catalog: Catalog) -> Case:
    """Return the first deployment with a row's values that the program has, else the first refusal."""
    name = " ".join([engine, *row.values()])
    targets = [engine, "lmcache"] if row["tier"] == "lmcache" else [engine]
    refusals: list[Case] = []
    for request, decision in _candidates(engine, row, catalog):
        problem = _refusal(request, decision, targets, catalog)
        case = Case(name, row, request, decision, targets, problem)
        if problem is None:
            return case
        refusals.append(case)
    # That memory is too small says little; what an engine lacks says more.
    return min(refusals, key=lambda case: case.refused == TOO_SMALL)


def _refusal(request: dict[str, Any], decision: dict[str, Any], targets: list[str], catalog: Catalog) -> str | None:
    """Return why the program doesn't deploy a decision, in its own words; None: it does."""
    try:
        problem = resolve(read_request(request), catalog)
        evaluation = price(problem, decision_of(decision))
        reasons = unavailable(problem, open_space(problem), evaluation)
        if reasons:
            return "; ".join(reasons)
        memory = evaluation.metrics.hbm_bytes_per_gpu
        if evaluation.metrics.concurrency < 1 or memory.weights + memory.kv > memory.limit:
            return TOO_SMALL
        emit(evaluate(read_request(request), decision_of(decision), catalog), targets, catalog)
    except InputError as error:
        return str(error)
    return None


def _candidates(engine: str, row: Row, catalog: Catalog) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield requests and decisions with a row's values, the preferred one first."""
    known = {form.technique_point for form in catalog.get(Engine, engine).kv_formats}
    eight = [cache for cache in EIGHT_BIT if cache in known] or EIGHT_BIT[:1]
    for model, context in MODELS[row["model"], row["servers"]]:
        for cache in eight if row["cache"] == "8-bit" else (None,):
            more: dict[str, Any] = {}
            if cache is not None:
                more["compression"] = {"hidden": {"technique": cache, "point": cache}}
            if row["tier"] != "none":
                more["offload"] = {"policy": "swap", "tier": "nvme" if row["tier"] == "nvme" else "ddr"}
            for request, decision in _splits(engine, model, context, row, catalog):
                yield request, {**decision, **more}


def _splits(
    engine: str, model: str, context: str | int, row: Row, catalog: Catalog
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield requests and decisions of a model in each shape, with each precision of its weights."""
    for gpus, shape in _shapes(row):
        request = {"ctx": context, "gpus": gpus, "model": model, "engine": engine}
        own = native_weights(resolve(read_request({**request, "engine": "any"}), catalog), frozenset()).id
        for weights in WEIGHTS[row["gpu"]] if own == "bf16" else (own,):
            yield request, {"engine": engine, "weights": weights, **shape}


def simple_case(name: str, engine: str, model: str, context: int, gpu: str, catalog: Catalog) -> Case:
    """Return a model on one server, without a tier or another KV format."""
    row = {"serving": "aggregated", "servers": "one", "model": "", "gpu": gpu}
    refusals = []
    for request, decision in _splits(engine, model, context, row, catalog):
        problem = _refusal(request, decision, [engine], catalog)
        case = Case(name, {}, request, decision, [engine], problem)
        if problem is None:
            return case
        refusals.append(case)
    return refusals[0]


def _shapes(row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield clusters and splits: over the GPUs of an instance, by tensors and stages, or by experts."""
    nodes = 2 if row["servers"] == "several" else 1
    pools = row["serving"] == "pools"
    servers = nodes * (2 if pools and nodes > 1 else 1)
    each = GPUS_PER_SERVER // 2 if pools and nodes == 1 else GPUS_PER_SERVER
    gpus = f"{servers}x{GPUS_PER_SERVER}x{row['gpu']}" if servers > 1 else f"{GPUS_PER_SERVER}x{row['gpu']}"
    for tp in (each, each // 2, each // 4):
        if tp < 1:
            continue
        if row["model"] == "moe-ep":
            if tp == each:
                continue  # experts spread over replicas
            parallel = {"tp": tp, "ep": each * nodes, "replicas": each * nodes // tp}
        else:
            parallel = {"tp": tp, "pp": each * nodes // tp}
        pool = {"parallel": parallel, "batch": BATCH}
        if pools:
            yield gpus, {"serving": "disaggregated", "pools": {"prefill": pool, "decode": pool}}
        else:
            yield gpus, pool
