"""Reading what somebody already runs: every field that a flag expresses, and the rest told apart."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.decision import Decision
from planner.emit import emit
from planner.emit.stamp import decision_hash
from planner.errors import InputError
from planner.importing import Imported, import_text
from planner.plan import Document
from planner.service import Service

PLANS = sorted((Path(__file__).parents[1] / "golden" / "emit" / "plans").glob("*.json"))
VLLM_PLANS = [p.stem for p in PLANS if json.loads(p.read_text())["decision"]["groups"][0]["engine"] == "vllm"]


def read(text: str, gpus: str = "8xA100", beside: Decision | None = None) -> Imported:
    return import_text(text, gpus, open_catalog(), beside)


@cache
def planned(name: str) -> tuple[Document, dict[str, str]]:
    path = next(p for p in PLANS if p.stem == name)
    document = Document.model_validate_json(path.read_text())
    targets = ["vllm", "kubernetes"] + ([] if name in ("scout-1m-pp", "deepseek-v3-two-servers") else ["compose"])
    return document, emit(document, targets, open_catalog())


def alike(decision: Service) -> dict[str, Any]:
    """A decision with its choices as catalog points, and a decode pool's question in one piece."""
    content = decision.model_dump(mode="json")
    for choice in content["compression"].values():
        if choice["technique"] != "none":
            technique = choice["point"] or choice["technique"]
            choice |= {"technique": open_catalog().point(technique)[1].id, "strength": None, "point": None}
    if content["pools"]:
        del content["parallel"], content["batch"]  # Those of the pools are said.
        content["pools"]["decode"]["batch"]["prefill_chunk_tokens"] = None
    return content


@pytest.mark.parametrize("name", VLLM_PLANS)
def test_every_emitted_file_gives_its_decision_back(name: str) -> None:
    document, files = planned(name)
    texts = [text for path, text in files.items() if path.endswith(("serve.sh", "prefill.sh", "decode.sh"))]
    texts += [text for path, text in files.items() if path.endswith(("compose.yaml", "kubernetes.yaml"))]
    for text in texts:
        found = read(text, document.request["gpus"], document.decision)
        assert alike(found.decision) == alike(document.service)
        assert not found.undetermined
        assert found.version == "0.33.0"
        assert found.context_tokens == int(document.request["ctx"]) + document.request["rounds"] * 350


@pytest.mark.parametrize("name", VLLM_PLANS)
def test_without_its_stamp_a_file_says_what_it_leaves_open(name: str) -> None:
    document, files = planned(name)
    text = files["kubernetes/kubernetes.yaml"].replace("plan-hash", "note").replace("plan/hash", "note")
    found = read(text, document.request["gpus"], document.decision)
    assert any(field.endswith("batch.resident_sessions") for field in found.undetermined)
    assert not found.from_stamp
    assert found.decision.serving == document.service.serving
    if found.decision.serving == "aggregated":
        assert found.decision.parallel == document.service.parallel
        assert found.decision.batch.decode_sequences == document.service.batch.decode_sequences
        assert found.decision.batch.prefill_chunk_tokens == document.service.batch.prefill_chunk_tokens


@pytest.mark.parametrize("name", VLLM_PLANS)
def test_kserve_and_ray_give_their_decision_back(name: str) -> None:
    document, _ = planned(name)
    for target in ("kserve", "ray"):
        try:
            files = emit(document, target, open_catalog())
        except InputError:
            continue  # this plan isn't written for this platform
        file = {"kserve": "llm-inference-service", "ray": "application"}[target]
        text = files[f"{target}/{file}.yaml"]
        found = read(text, document.request["gpus"], document.decision)
        assert alike(found.decision) == alike(document.service), target
        assert not found.undetermined
        assert found.model is not None
        if document.service.serving == "disaggregated":
            shell = read(planned(name)[1]["vllm/decode.sh"], document.request["gpus"], document.decision)
            assert found.flags["--max-num-batched-tokens"] == shell.flags["--max-num-batched-tokens"]


def test_an_inference_service_of_kserve() -> None:
    predictor = {"minReplicas": 2, "model": {"image": "vllm/vllm-openai:v0.33.0", "args": ["--model", "m", "-tp", "4"]}}
    text = yaml.safe_dump({"kind": "InferenceService", "metadata": {"name": "x"}, "spec": {"predictor": predictor}})
    found = read(text)
    assert (found.decision.parallel.tp, found.decision.parallel.replicas) == (4, 2)


def test_a_flag_wins_over_the_plan_and_is_told() -> None:
    document, files = planned("llama8b-int8")
    text = files["vllm/serve.sh"].replace("--max-num-seqs 5", "--max-num-seqs 9")
    found = read(text, beside=document.decision)
    assert found.decision.batch.decode_sequences == 8
    assert any("batch.decode_sequences: the flags say 8, its plan 4" in note for note in found.notes)


def test_the_plan_of_another_file_is_not_taken() -> None:
    document, files = planned("llama8b-int8")
    other, _ = planned("llama70b-fp8")
    for beside, told in ((other.decision, "only flags were used"), (None, "isn't beside it")):
        found = read(files["kubernetes/kubernetes.yaml"], beside=beside)
        assert any(told in note for note in found.notes)
        assert not found.from_stamp
        assert "batch.resident_sessions" in found.undetermined
    stamp = decision_hash(document.service)
    for text in (files["vllm/serve.sh"], files["compose/compose.yaml"], files["kubernetes/kubernetes.yaml"]):
        assert stamp in text
        assert max(len(line) for line in text.splitlines() if line.startswith("#")) <= 130


def test_a_plain_command_line() -> None:
    found = read("vllm serve meta-llama/Llama-3.1-70B -tp 8 --max_model_len=128K --kv-cache-dtype fp8 --max-num-seqs 9")
    assert found.model == "meta-llama/Llama-3.1-70B"
    assert found.context_tokens == 131_072
    assert found.decision.parallel.tp == 8
    assert found.decision.batch.decode_sequences == 8
    assert found.decision.compression.hidden.point == "kv_fp8_e4m3"
    assert "batch.prefill_chunk_tokens" in found.undetermined
    assert "parallel.replicas" in found.undetermined


def test_small_k_is_a_thousand() -> None:
    assert read("vllm serve m --max-model-len 128k").context_tokens == 128_000


def test_a_docker_command_with_continuations_and_what_comes_after() -> None:
    text = """
    docker run --gpus all -p 8000:8000 --ipc=host \\
      vllm/vllm-openai:v0.32.0 \\
      --model Qwen/Qwen3-32B-AWQ --tensor-parallel-size 2 \\
      --kv-offloading-size 100 --no-enable-chunked-prefill --max-num-seqs 4 && echo up
    """
    found = read(text)
    assert found.version == "0.32.0"
    assert found.decision.weights == "awq4"
    assert found.decision.parallel.tp == 2
    assert found.decision.offload.policy == "swap"
    assert found.decision.batch.prefill_chunk_tokens is None


@pytest.mark.parametrize(
    ("tag", "version"),
    [("", "0.33.0"), (":latest", "0.33.0"), (":v0.32.0-x86_64", "0.32.0"), ("@sha256:0123abcd", "0.33.0")],
)
def test_images_are_known_by_name_whatever_their_tag(tag: str, version: str) -> None:
    found = read(f"docker run --gpus all registry.local/vllm/vllm-openai{tag} --model m/m -tp 4")
    assert (found.version, found.decision.parallel.tp, found.model) == (version, 4, "m/m")


def test_a_pod_that_starts_vllm_through_a_shell() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "registry.local/vllm/vllm-openai:v0.33.0",
                    "command": ["/bin/sh", "-c"],
                    "args": ["export A=1\nvllm serve some/model --enable-expert-parallel -tp 4 -dp 2; sleep 1"],
                }
            ]
        },
    }
    found = read(yaml.safe_dump(pod))
    assert found.decision.parallel.ep == 8
    assert found.decision.parallel.replicas == 2


def test_a_config_file_in_a_config_map_is_read() -> None:
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"v.yaml": "max-num-seqs: 17\n"}},
        {
            "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {
                "replicas": 3,
                "template": {
                    "spec": {
                        "containers": [{"image": "vllm/vllm-openai:v0.33.0", "args": ["m", "--config", "/c/v.yaml"]}]
                    }
                },
            },
        },
    ]
    found = read(yaml.safe_dump_all(documents))
    assert found.decision.batch.decode_sequences == 16
    assert found.decision.parallel.replicas == 3


def test_stale_and_unreadable_flags_are_noted() -> None:
    found = read('vllm serve m --swap-space 4 --config /elsewhere.yaml --max-num-seqs "$SEQS" --kv-cache-dtype int8')
    text = "\n".join(found.notes)
    assert "--swap-space 4: vLLM 0.33.0 has no such flag" in text
    assert "/elsewhere.yaml: the file isn't part" in text
    assert "--max-num-seqs $SEQS: left to whoever starts it" in text
    assert "compression.hidden" in found.undetermined


def test_what_starts_no_vllm_is_refused() -> None:
    for text in ("", "echo hello", "services: {web: {image: nginx}}", "kind: Pod\nspec: {containers: []}", "[1, 2]"):
        with pytest.raises(InputError, match="holds no server that is read here"):
            read(text)
    with pytest.raises(InputError, match="check its quotes"):
        read("vllm serve 'unclosed")
    with pytest.raises(InputError, match="several models"):
        read("vllm serve a\nvllm serve b")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"vllm serve {text}", f"services: {{a: {{image: vllm/vllm-openai, command: {text!r}}}}}"):
        try:
            found = read(candidate)
        except InputError:
            continue
        json.dumps(found.as_json())
