"""A checkpoint that nobody publishes is made once, by a Job or a service that ends; what serves makes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose

from tests.manifests import check_manifest, documents, read_yaml

Plan = Callable[..., Any]
ASKED = ("--model", "mistral-7b-v0.3", "--weights", "int8_w8a8", "--engine", "vllm", "--ctx", "16K", "--no-gains")


@pytest.fixture
def emitted(plan: Plan, tmp_path: Path) -> dict[str, str]:
    found = plan(*ASKED, "--gpus", "2xA100", "--emit", tmp_path / "d", "--target", "vllm,kubernetes,kserve,compose")
    assert found.code == 0, found.stderr
    assert "make_checkpoint.py makes them once" in found.stderr
    return {str(path.relative_to(tmp_path / "d")): path.read_text() for path in (tmp_path / "d").rglob("*.*")}


@pytest.mark.parametrize("folder", ["kubernetes", "kserve"])
def test_a_job_makes_it_into_the_claim_that_pods_read(emitted: dict[str, str], folder: str) -> None:
    made = documents(emitted[f"{folder}/make-checkpoint.yaml"])
    assert [check_manifest(document) for document in made] == ["PersistentVolumeClaim", "ConfigMap", "Job"]
    claim, program, job = made
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    compile(program["data"]["make_checkpoint.py"], "make_checkpoint.py", "exec")
    used = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert used == {claim["metadata"]["name"]}
    assert not any("KEY" in variable["name"] for variable in container["env"])
    main = next(name for name in emitted if name.startswith(folder) and "make" not in name)
    text = emitted[main]
    assert "make_checkpoint" not in text
    assert "llmcompressor" not in text
    assert container["command"][3] in text  # what is made is what is served
    assert f"claimName: {claim['metadata']['name']}" in text
    assert "checkpoint-is-there" in text
    for document in documents(text):
        check_manifest(document)
    assert f"kubectl apply -f {folder}/make-checkpoint.yaml" in emitted["README.md"]


def test_a_service_makes_it_and_ends_before_the_others_start(emitted: dict[str, str]) -> None:
    PyCompose.from_yaml(emitted["compose/compose.yaml"])
    composed = read_yaml(emitted["compose/compose.yaml"])
    services = composed["services"]
    maker = services.pop("make-checkpoint")
    assert maker["restart"] == "no"
    for name, service in services.items():
        assert "llmcompressor" not in str(service)
        if name != "router":
            assert service["depends_on"] == {"make-checkpoint": {"condition": "service_completed_successfully"}}
    assert maker["entrypoint"][3] == services["serve-0"]["command"][0]


def test_pods_with_storage_of_their_own_cannot_share_what_is_made(plan: Plan, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("node: dgx-a100-80gb\nnodes: 1\nstorage: {access: ReadWriteOnce}\n")
    found = plan(*ASKED, "--gpus", cluster, "--emit", tmp_path / "d", "--target", "kubernetes")
    assert found.code == 2
    assert "give storage.claim or storage.access ReadWriteMany" in found.stderr
