"""What is emitted reads back: import(emit(plan)) = plan, from the files alone, for every engine and platform.

Stamps, comments, plan.json and README are taken away; what no flag expresses has to be called undetermined.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from catalog.load import open_catalog
from catalog.schema import Engine
from planner.emit import emit
from planner.errors import InputError
from planner.importing import Imported, import_text
from planner.plan import Document
from planner.service import Service
from tests.plans import flat_plan, plan_of

BASES = {
    "vllm": ("llama70b-fp8", "llama8b-split", "deepseek-v3-dcp", "deepseek-v3-two-servers", "llama70b-swap"),
    "sglang": ("sglang-fp8-hicache", "sglang-split", "sglang-split-hicache", "deepseek-v3-dcp"),
    "tensorrt-llm": ("trtllm-host-cache", "deepseek-v3-dcp"),
    "lmdeploy": ("lmdeploy-int4-awq",),
    "llama.cpp": ("llamacpp-q8",),
}
"""Golden plans from which random ones are made, with models and clusters of every kind."""
FILES = {
    "shell": r"/(?:serve|prefill|decode)\.sh$",
    "compose": r"compose/compose\.yaml$",
    "kubernetes": r"kubernetes/kubernetes\.yaml$",
    "kserve": r"kserve/llm-inference-service\.yaml$",
    "ray": r"ray/application\.yaml$",
}
"""Platform -> the files that start servers."""


@st.composite
def plans(draw: st.DrawFn, engine: str) -> Document:
    """Random decisions of an engine, in the place of a golden plan's."""
    content = copy.deepcopy(flat_plan(draw(st.sampled_from(BASES[engine]))))
    decision = content["decision"]
    decision["engine"] = content["request"]["engine"] = engine
    gpus = 16 if content["request"]["gpus"].startswith("2x8") else int(content["request"]["gpus"].split("x")[0])
    pools = [decision["pools"][role] for role in ("prefill", "decode")] if decision["pools"] else [decision]
    points = [kv_format.technique_point for kv_format in open_catalog().get(Engine, engine).kv_formats]
    point = draw(st.sampled_from(points))
    decision["compression"]["hidden"] = {"technique": "none" if point == "kv_bf16" else point, "point": None}
    decision["compression"]["hidden"]["strength"] = None
    if decision["weights"] != "native":  # which its makers alone decide
        decision["weights"] = draw(st.sampled_from(["bf16", "fp8", "awq4", "gptq4", "int8_w8a8"]))
    policy, tier = draw(st.sampled_from([("none", None), ("swap", "ddr"), ("swap", "nvme"), ("recompute", None)]))
    decision["offload"] = {"policy": policy, "tier": tier}
    content["metrics"] |= {"ddr_bytes": 1e11 if tier == "ddr" else 0.0, "nvme_bytes": 1e11 if tier == "nvme" else 0.0}
    for pool in pools:
        tp, pp, dcp = (
            draw(st.sampled_from([1, 2, 4, 8])),
            draw(st.sampled_from([1, 1, 2])),
            draw(st.sampled_from([1, 1, 2])),
        )
        most = gpus // len(pools) // (tp * pp)
        assume(most >= 1)
        replicas = draw(st.integers(1, most))
        ep = draw(st.sampled_from([1, tp * replicas])) if "deepseek" in content["request"]["model"] else 1
        pool["parallel"] = {"tp": tp, "pp": pp, "dcp": dcp, "pcp": 1, "ep": ep, "replicas": replicas}
        pool["batch"]["decode_sequences"] = draw(st.integers(1, 64))
        pool["batch"]["prefill_chunk_tokens"] = draw(st.sampled_from([None, 512, 1000, 2048, 8192]))
        pool["batch"]["prefill_throttled"] = False
        if pool is pools[-1]:
            # A session alone is served alone.
            resident = draw(st.sampled_from([1, pool["batch"]["decode_sequences"] + draw(st.integers(1, 20))]))
            pool["batch"]["resident_sessions"] = resident
            pool["batch"]["decode_sequences"] = min(pool["batch"]["decode_sequences"], resident)
    return plan_of(content)


def fields(service: Service) -> dict[str, Any]:
    """A service by dotted field, its choices as catalog points."""
    content = service.model_dump(mode="json", exclude={"users_per_replica"})
    for name, choice in content["compression"].items():
        point = choice["point"] or choice["technique"]
        content["compression"][name] = point if point == "none" else open_catalog().point(point)[1].id
    if content["pools"]:
        del content["parallel"], content["batch"]  # those of the pools are said
        del content["pools"]["decode"]["batch"]["prefill_chunk_tokens"]  # a question, in one piece
    else:
        del content["pools"]
    return dict(_dotted(content, ""))


def _dotted(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _dotted(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value


def read_back(document: Document, engine: str, platform: str) -> list[Imported]:
    """What the emitted files say, each alone; none where the plan isn't written for this platform."""
    try:
        files = emit(document, engine if platform == "shell" else platform, open_catalog())
    except InputError:
        return []
    texts = {path: _bare(text) for path, text in files.items() if not path.endswith(("plan.json", "README.md"))}
    found = []
    for path, text in texts.items():
        if re.search(FILES[platform], path):
            beside = {name.rsplit("/", 1)[-1]: other for name, other in texts.items() if _folder(name) == _folder(path)}
            found.append(import_text(text, document.request["gpus"], open_catalog(), neighbour=beside.get))
    return found


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0] if "/" in path else ""


def _bare(text: str) -> str:
    without_comments = re.sub(r"^\s*#(?!!).*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^.*plan[-/](?:hash|pool).*\n", "", without_comments, flags=re.MULTILINE)


@pytest.mark.parametrize("platform", sorted(FILES))
@pytest.mark.parametrize("engine", sorted(BASES))
def test_what_is_emitted_reads_back(engine: str, platform: str) -> None:
    @given(plans(engine))
    @settings(
        max_examples=6,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def reads_back(document: Document) -> None:
        planned = fields(document.service)
        for found in read_back(document, engine, platform):
            assert found.decision.engine == engine
            assert not found.unpriced
            read = fields(found.decision)
            for name, value in planned.items():
                if not any(name == field or name.startswith(f"{field}.") for field in found.undetermined):
                    assert read.get(name) == value, f"{name}: planned {value}, read {read.get(name)}"

    reads_back()
