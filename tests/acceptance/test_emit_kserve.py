"""KServe merges presets below what is emitted; the merged pods are the ones that have to run."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from catalog.schema import Model
from planner.emit import emit
from planner.errors import InputError
from planner.plan import Document
from tests.kserve import merged_pods, problems_of_pod
from tests.manifests import documents
from tests.plans import flat_plan, plan_of, shipped_catalog

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
WRITTEN = [
    "llama8b-int8",
    "llama8b-split",
    "qwen32b-awq-yarn",
    "sglang-fp8-hicache",
    "llamacpp-q8",
    "lmdeploy-int4-awq",
    "trtllm-host-cache",
    "deepseek-v3-two-servers",
]


@cache
def service_of(name: str) -> dict[str, Any]:
    document = Document.model_validate_json((PLANS / f"{name}.json").read_text())
    text = emit(document, "kserve", shipped_catalog())["kserve/llm-inference-service.yaml"]
    return next(d for d in documents(text) if d["kind"] == "LLMInferenceService")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_merged_pods_start_and_are_asked_where_they_answer(name: str, tls: bool) -> None:
    pods = merged_pods(service_of(name), tls=tls)
    assert pods
    for pod in pods.values():
        assert problems_of_pod(pod) == []
        template = {"metadata": {}, "spec": pod}
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(wrapped, "1.37", strict=True)


PLANTED = {
    "CreateContainerConfigError": lambda c: c.pop("securityContext"),
    "speaks HTTPS": lambda c: c["command"].__setitem__(2, 'exec "$0" "$@"'),
    "several handlers": lambda c: c["lifecycle"].__setitem__("preStop", {"sleep": {"seconds": 15}}),
    "no GPU": lambda c: c.pop("resources"),
}


@pytest.mark.parametrize("told", sorted(PLANTED))
def test_what_a_preset_would_break_is_seen(told: str) -> None:
    service = copy.deepcopy(service_of("llama8b-int8"))
    container = service["spec"]["template"]["containers"][0]
    PLANTED[told](container)
    container.setdefault("resources", {"limits": {}})
    (pod,) = merged_pods(service, tls=True).values()
    assert any(told in problem for problem in problems_of_pod(pod))


def test_a_group_has_as_many_servers_as_the_instance() -> None:
    spec = service_of("deepseek-v3-two-servers")["spec"]
    parallelism = spec["parallelism"]
    assert parallelism["data"] // parallelism["dataLocal"] == 2
    assert "worker" in spec


def test_pools_that_the_proxy_does_not_know_are_refused() -> None:
    document = Document.model_validate_json((PLANS / "sglang-split.json").read_text())
    with pytest.raises(InputError, match="proxy before a decode pool"):
        emit(document, "kserve", shipped_catalog())


def test_an_instance_over_servers_without_data_parallel_ranks_is_refused() -> None:
    document = Document.model_validate_json((PLANS / "scout-1m-pp.json").read_text())
    with pytest.raises(InputError, match="no preset"):
        emit(document, "kserve", shipped_catalog())


@pytest.mark.parametrize("name", ["{{ .Secret }}", "a{{{b", "{{`x`}}", "{{ if .GlobalConfig.EnableTLS }}x{{ end }}"])
def test_braces_in_a_name_stay_braces(name: str, tmp_path: Path) -> None:
    content = flat_plan("llama8b-int8")
    directory = tmp_path / name
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(shipped_catalog().get(Model, "llama-3.1-8b").config))
    content["request"]["model"] = str(directory)
    document = plan_of(content)
    files = emit(document, "kserve", shipped_catalog(), checkpoint=str(directory))
    text = files["kserve/llm-inference-service.yaml"]
    service = next(d for d in documents(text) if d["kind"] == "LLMInferenceService")
    for tls in (False, True):
        (pod,) = merged_pods(service, tls=tls).values()
        assert str(directory) in pod["containers"][0]["args"]
