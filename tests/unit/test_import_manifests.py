"""Compose files, manifests, resources of serving platforms and values of charts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from catalog.load import open_catalog
from planner.errors import InputError
from planner.importing import Imported, import_text


def read(document: Any, files: dict[str, str] | None = None) -> Imported:
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    return import_text(text, "8xH100", open_catalog(), neighbour=(files or {}).get)


def pod(**container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", **container}]}}},
    }


def test_variables_of_a_container_are_filled_in() -> None:
    documents = [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"TP": "2", "LEN": "8192"}},
        pod(
            image="registry/pytorch-vllm-serve:v1",
            command=["python3", "-m", "vllm.entrypoints.openai.api_server"],
            args=["--model=$(MODEL)", "-tp", "$(TP)", "--max-model-len=$(LEN)"],
            env=[{"name": "MODEL", "value": "org/m"}],
            envFrom=[{"configMapRef": {"name": "settings"}}],
        ),
    ]
    found = read(yaml.safe_dump_all(documents))
    assert (found.model, found.decision.parallel.tp, found.context_tokens) == ("org/m", 2, 8192)
    assert found.decision.parallel.replicas == 3


def test_a_variable_that_is_not_there_is_told() -> None:
    found = read(pod(image="vllm/vllm-openai", args=["--model", "org/m", "-tp", "$(TP)"]))
    assert found.unpriced == ("--tensor-parallel-size has a value that isn't in the file",)


@pytest.mark.parametrize(
    "image", ["ghcr.io/llm-d/llm-d-cuda:v0.7.0", "rocm/vllm:latest", "mirror.local/team/vllm-openai-cu130"]
)
def test_images_of_other_makers_start_vllm(image: str) -> None:
    assert read(pod(image=image, args=["--model", "org/m", "-tp", "2"])).decision.parallel.tp == 2


def test_an_image_alone_is_no_server() -> None:
    for document in (
        {"image": {"repository": "vllm/vllm-openai", "tag": "v1"}, "tp": 8},
        pod(image="vllm/vllm-openai"),
    ):
        with pytest.raises(InputError):
            read(document)


def test_what_was_found_instead_is_named() -> None:
    with pytest.raises(InputError, match="Service front; compose services web"):
        read(yaml.safe_dump_all([{"kind": "Service", "metadata": {"name": "front"}}, {"services": {"web": {}}}]))
    with pytest.raises(InputError, match="helm template"):
        read({"engine": {"image": {"repository": "vllm/vllm-openai"}}})
    with pytest.raises(InputError, match=r"line 5: isn't YAML"):
        read("kind: Pod\nmetadata:\n  name: x\n  broken: [\n")


def test_a_template_beside_the_manifest_leaves_it_readable() -> None:
    manifest = yaml.safe_dump(pod(image="vllm/vllm-openai", args=["--model", "org/m", "-tp", "2"]))
    found = read(f"{manifest}---\nkind: Secret\nstringData:\n  token: {{{{TOKEN}}}}\n")
    assert found.decision.parallel.tp == 2


def test_compose_takes_defaults_the_environment_file_and_dollars() -> None:
    service = {
        "image": "${IMAGE:-vllm/vllm-openai:v0.33.0}",
        "command": ["--model", "${MODEL}", "-tp", "${TP:-2}", "--max-model-len", "${LEN:-1024}"],
        "deploy": {"replicas": 2},
    }
    found = read({"services": {"llm": service}}, {".env": "MODEL=org/m\nLEN=2048\n"})
    assert (found.model, found.decision.parallel.tp, found.context_tokens) == ("org/m", 2, 2048)
    assert found.decision.parallel.replicas == 2
    wrapped = {
        "image": "vllm/vllm-openai",
        "entrypoint": ["bash", "-c", 'exec vllm serve $${EAGER:+--enforce-eager} "$$@"', "--"],
        "command": ["--model", "org/m", "-tp", "4"],
    }
    found = read({"services": {"llm": wrapped}})
    assert (found.model, found.decision.parallel.tp) == ("org/m", 4)


def test_resources_of_serving_platforms() -> None:
    serve = {
        "applications": [
            {
                "args": {
                    "llm_configs": [
                        {
                            "model_loading_config": {"model_id": "m", "model_source": "org/m"},
                            "engine_kwargs": {"tensor_parallel_size": 2},
                            "deployment_config": {"autoscaling_config": {"min_replicas": 2, "max_replicas": 4}},
                        }
                    ]
                }
            }
        ]
    }
    found = read({"kind": "RayService", "metadata": {"name": "r"}, "spec": {"serveConfigV2": yaml.safe_dump(serve)}})
    assert (found.model, found.decision.parallel.tp, found.decision.parallel.replicas) == ("org/m", 2, 2)
    assert any("scales from 2 to 4" in note for note in found.notes)
    service = {
        "model": {"uri": "hf://org/m", "name": "m"},
        "replicas": 2,
        "parallelism": {"tensor": 4, "expert": True},
        "template": {
            "containers": [{"name": "main", "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-num-seqs 9"}]}]
        },
    }
    found = read({"kind": "LLMInferenceService", "metadata": {"name": "l"}, "spec": service})
    assert (found.model, found.decision.parallel.tp, found.decision.parallel.ep) == ("org/m", 4, 4)
    assert (found.decision.parallel.replicas, found.decision.batch.decode_sequences) == (2, 8)
    predictor = {
        "minReplicas": 2,
        "model": {"modelFormat": {"name": "huggingface"}, "args": ["--model_id=org/m", "--tensor-parallel-size=2"]},
    }
    found = read({"kind": "InferenceService", "metadata": {"name": "i"}, "spec": {"predictor": predictor}})
    assert (found.model, found.decision.parallel.tp, found.decision.parallel.replicas) == ("org/m", 2, 2)


def test_a_dynamo_graph_has_its_pools() -> None:
    def worker(role: str, tp: int) -> dict[str, Any]:
        words = [
            "--model",
            "org/m",
            "--tensor-parallel-size",
            str(tp),
            *(["--is-prefill-worker"] * (role == "prefill")),
        ]
        transfer = ["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_both"}']
        container = {
            "image": "nvcr.io/x/vllm-runtime",
            "command": ["python3", "-m", "dynamo.vllm"],
            "args": [*words, *transfer],
        }
        return {
            "componentType": "worker",
            "subComponentType": role,
            "replicas": 2,
            "extraPodSpec": {"mainContainer": container},
        }

    graph = {"services": {"Frontend": {}, "p": worker("prefill", 1), "d": worker("decode", 2)}}
    pools = read({"kind": "DynamoGraphDeployment", "metadata": {"name": "g"}, "spec": graph}).decision.pools
    assert pools is not None
    assert (pools.prefill.parallel.tp, pools.decode.parallel.tp, pools.decode.parallel.replicas) == (1, 2, 2)


def test_values_of_known_charts() -> None:
    stack = {
        "servingEngineSpec": {
            "modelSpec": [
                {
                    "name": "m",
                    "modelURL": "org/m",
                    "replicaCount": 2,
                    "vllmConfig": {"tensorParallelSize": 2, "maxModelLen": 4096, "enablePrefixCaching": False},
                    "lmcacheConfig": {"enabled": True},
                }
            ]
        }
    }
    found = read(stack)
    assert (found.model, found.decision.parallel.tp, found.decision.parallel.replicas) == ("org/m", 2, 2)
    assert (found.context_tokens, found.decision.offload.policy) == (4096, "swap")
    modelservice = {
        "modelArtifacts": {"uri": "hf://org/m", "name": "org/m"},
        "decode": {
            "replicas": 2,
            "parallelism": {"tensor": 2},
            "containers": [
                {
                    "image": "ghcr.io/llm-d/llm-d-cuda:v1",
                    "modelCommand": "vllmServe",
                    "args": ["--max-model-len", "4096"],
                }
            ],
        },
    }
    found = read(modelservice)
    assert (found.model, found.decision.parallel.tp, found.decision.parallel.replicas) == ("org/m", 2, 2)


def test_a_task_whose_text_starts_a_server_is_read() -> None:
    task = {"envs": {"MODEL": "org/m"}, "resources": {"gpus": 8}, "run": "pip install vllm\nvllm serve $MODEL -tp 2\n"}
    found = read(task)
    assert (found.model, found.decision.parallel.tp) == ("org/m", 2)
