"""Several kinds of replicas side by side: from a decision to files that validators take, and that say all of it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose

from catalog.load import open_catalog
from planner.emit import emit
from planner.emit.router import HAPROXY
from planner.emit.stamp import HASH_KEY
from planner.plan import Document
from tests.conftest import Output
from tests.manifests import check_manifest, documents, read_yaml

GOLDEN = Path(__file__).parents[1] / "golden" / "emit" / "kinds"
NOT_SHOWN = {"plan.json", "sessions.jsonl", "check_speed.py"}
"""Tested for what they hold; their text is long, or another file's own."""
Plan = Callable[..., Output]

LARGE = {
    "id": "a",
    "engine": "vllm",
    "replicas": 1,
    "parallel": {"tp": 4},
    "batch": {"decode_sequences": 16, "prefill_chunk_tokens": 8192},
}
SMALL = {
    "id": "b",
    "engine": "vllm",
    "replicas": 2,
    "weights": "fp8",
    "parallel": {"tp": 1},
    "batch": {"decode_sequences": 4, "prefill_chunk_tokens": 2048},
}
REQUEST = ("--model", "llama-3.1-8b", "--ctx", "32K")


def planned(plan: Plan, directory: Path, *groups: dict[str, Any], gpus: str = "8xH100") -> Path:
    """Price a decision of these groups; return the plan's file."""
    decision = directory / "decision.json"
    decision.write_text(json.dumps({"groups": list(groups)}))
    out = directory / "plan.json"
    done = plan("evaluate", *REQUEST, "--gpus", gpus, "--decision", decision, "--format", "json")
    assert done.code == 0, done.stderr
    out.write_text(done.stdout)
    return out


def emitted(plan: Plan, directory: Path, file: Path, target: str) -> Path:
    done = plan("emit", file, "--target", target, "-o", directory / "out")
    assert done.code == 0, done.stderr
    return directory / "out"


@pytest.fixture
def mixed(plan: Plan, tmp_path: Path) -> Path:
    """Return the files of one replica of four GPUs and two of one, of which two have fp8 weights."""
    return emitted(plan, tmp_path, planned(plan, tmp_path, LARGE, SMALL), "vllm,compose,kubernetes")


def test_the_files_are_the_golden_ones() -> None:
    """PLAN_UPDATE_GOLDEN=1 writes them; the difference is to be read before it is committed."""
    document = Document.model_validate_json((GOLDEN / "llama8b-two-kinds.json").read_text())
    files = emit(document, ["vllm", "kubernetes", "compose"], open_catalog())
    text = "".join(f"===== {path}\n{content}" for path, content in files.items() if path not in NOT_SHOWN)
    golden = GOLDEN / "llama8b-two-kinds.txt"
    if os.environ.get("PLAN_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


def test_kubernetes_takes_a_workload_per_kind_and_one_router(mixed: Path) -> None:
    found = documents((mixed / "kubernetes/kubernetes.yaml").read_text())
    for manifest in found:
        check_manifest(manifest)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in found]
    assert len(set(names)) == len(names)
    slug = "plan-llama-3-1-8b"
    deployments = {m["metadata"]["name"]: m["spec"] for m in found if m["kind"] == "Deployment"}
    assert {name: spec["replicas"] for name, spec in deployments.items()} == {
        f"{slug}-serve-a": 1,
        f"{slug}-serve-b": 2,
        f"{slug}-router": 1,
    }
    large, small, router = (
        deployments[f"{slug}-{name}"]["template"]["spec"] for name in ("serve-a", "serve-b", "router")
    )
    gpus = [pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in (large, small)]
    assert gpus == ["4", "1"]
    models = [pod["containers"][0]["args"][0] for pod in (large, small)]
    assert models == ["meta-llama/Llama-3.1-8B-Instruct", "nvidia/Llama-3.1-8B-Instruct-FP8"]
    assert router["automountServiceAccountToken"] is False
    services = {m["metadata"]["name"]: m["spec"] for m in found if m["kind"] == "Service"}
    assert services[slug]["selector"]["app.kubernetes.io/component"] == "router"
    assert services[f"{slug}-serve-b"] | {"ports": []} == {
        "clusterIP": "None",
        "selector": deployments[f"{slug}-serve-b"]["selector"]["matchLabels"],
        "ports": [],
    }
    (config,) = (m["data"] for m in found if m["kind"] == "ConfigMap" and m["metadata"]["name"] == f"{slug}-router")
    assert f'server-template serve-b- 2 "{slug}-serve-b.${{NAMESPACE}}.svc.${{CLUSTER_DOMAIN}}:8000"' in str(
        config["haproxy.cfg"]
    )


def test_all_files_bear_one_stamp(mixed: Path) -> None:
    found = documents((mixed / "kubernetes/kubernetes.yaml").read_text(), "Deployment")
    stamps = {m["metadata"]["annotations"][HASH_KEY] for m in found if "annotations" in m["metadata"]}
    (stamp,) = stamps
    for name in ("vllm/serve-a.sh", "vllm/serve-b.sh", "vllm/router.sh", "vllm/haproxy.cfg", "compose/compose.yaml"):
        assert f"plan-hash: {stamp}" in (mixed / name).read_text()


def test_compose_gives_every_gpu_once(mixed: Path) -> None:
    text = (mixed / "compose/compose.yaml").read_text()
    PyCompose.from_yaml(text)
    services = read_yaml(text)["services"]
    assert sorted(services) == ["router", "serve-a-0", "serve-b-0", "serve-b-1"]
    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
        if name != "router"
    }
    assert devices == {"serve-a-0": ["0", "1", "2", "3"], "serve-b-0": ["4"], "serve-b-1": ["5"]}
    assert set(services["router"]["depends_on"]) == set(devices)
    config = (mixed / "compose/haproxy.cfg").read_text()
    assert [line.split()[1:3] for line in config.splitlines() if line.startswith("    server ")] == [
        ["serve-a-0", "serve-a-0:8000"],
        ["serve-b-0", "serve-b-0:8000"],
        ["serve-b-1", "serve-b-1:8000"],
    ]


def test_shellcheck_has_nothing_to_say(mixed: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    scripts = [str(path) for path in mixed.rglob("*.sh")]
    assert len(scripts) == 3
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_scripts_start_each_instance_on_gpus_and_a_port_of_its_own(mixed: Path, tmp_path: Path) -> None:
    """A `vllm` that prints how it was called stands on the path."""
    calls = [started(mixed / "vllm", tmp_path, script, str(index)) for script, index in CALLS]
    assert [gpus for gpus, _ in calls] == ["0,1,2,3", "4", "5"]
    assert [words[words.index("--port") + 1] for _, words in calls] == ["8000", "8001", "8002"]
    assert [words[words.index("--tensor-parallel-size") + 1] for _, words in calls] == ["4", "1", "1"]


CALLS = (("serve-a.sh", 0), ("serve-b.sh", 0), ("serve-b.sh", 1))


def started(folder: Path, directory: Path, script: str, *arguments: str) -> tuple[str, list[str]]:
    """Run a script with an engine that tells its GPUs and its words."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in (("vllm", 'echo "$CUDA_VISIBLE_DEVICES" "$@"'), ("python3", "echo 0.33.0")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", folder / script, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    gpus, *words = shlex.split(done.stdout)
    return gpus, words


def test_the_router_has_places_in_proportion_to_the_promised_users(mixed: Path) -> None:
    plan_ = json.loads((mixed / "plan.json").read_text())
    large, small = (service["users"] for service in plan_["metrics"]["services"])
    router = plan_["decision"]["router"]
    assert (router["id"], router["policy"]) == (HAPROXY.name, "weighted")
    weights = router["weights"]
    assert weights["a"] / weights["b"] == pytest.approx(large / small)
    places = [
        int(line.split()[-1])
        for line in (mixed / "vllm/haproxy.cfg").read_text().splitlines()
        if line.startswith("    server ")
    ]
    assert len(places) == 3
    assert places[0] / places[1] == pytest.approx(2 * large / small, rel=0.05)
    assert places[1] == places[2]


def test_the_page_speaks_of_every_kind(mixed: Path) -> None:
    page = (mixed / "README.md").read_text()
    for text in (
        "- serve-a: 1 x vllm",
        "- serve-b: 2 x vllm",
        "- serve-a: weights: `bf16`",
        "- serve-b: weights: `fp8`",
        "- shell, serve-b: `vllm/serve-b.sh 0`, `vllm/serve-b.sh 1` on server 0",
        "| serve-a | 1 |",
        "| serve-a: KV tokens that an instance reports at start |",
        "| serve-b: KV tokens that an instance reports at start |",
        "apt-get install haproxy",
        "X-Session-ID",
        "/finish_session?session_id=",
    ):
        assert text in page
    users = json.loads((mixed / "plan.json").read_text())["metrics"]["users"]
    assert f"--concurrency {-(-users // 1):.0f}" in page
    kinds = json.loads((mixed / "provenance.json").read_text())["kinds"]
    assert set(kinds) == {"serve-a", "serve-b"}


def test_replicas_of_several_servers_are_found_at_their_addresses(plan: Plan, tmp_path: Path) -> None:
    large = LARGE | {"parallel": {"tp": 8}}
    out = emitted(plan, tmp_path, planned(plan, tmp_path, large, SMALL, gpus="10xH100"), "shell")
    config = (out / "shell/haproxy.cfg").read_text()
    assert [line.split()[2] for line in config.splitlines() if line.startswith("    server ")] == [
        '"${SERVER_0}:8000"',
        '"${SERVER_1}:8000"',
        '"${SERVER_1}:8001"',
    ]
    assert "set SERVERS to the addresses of the plan's servers 0 1" in (out / "shell/router.sh").read_text()
    assert 'SERVERS="ADDRESS0 ADDRESS1" shell/router.sh' in (out / "README.md").read_text()


def test_an_instance_of_several_servers_stands_beside_a_small_one(plan: Plan, tmp_path: Path) -> None:
    """Two servers for one instance, and the third for another kind; the router asks the first of the two."""
    large = LARGE | {"parallel": {"tp": 8, "pp": 2}}
    out = emitted(plan, tmp_path, planned(plan, tmp_path, large, SMALL, gpus="3x8xH100"), "vllm,kubernetes")
    found = documents((out / "kubernetes/kubernetes.yaml").read_text())
    kinds = [(check_manifest(manifest), manifest["metadata"]["name"]) for manifest in found]
    assert ("LeaderWorkerSet", "plan-llama-3-1-8b-serve-a") in kinds
    assert ("Deployment", "plan-llama-3-1-8b-serve-b") in kinds
    config = (out / "vllm/haproxy.cfg").read_text()
    assert [line.split()[2] for line in config.splitlines() if line.startswith("    server ")] == [
        '"${SERVER_0}:8000"',
        '"${SERVER_2}:8000"',
        '"${SERVER_2}:8001"',
    ]
    page = (out / "README.md").read_text()
    assert "`RANK=0 HEAD=ADDRESS vllm/serve-a.sh` on the first of 2 servers" in page
    assert 'SERVERS="ADDRESS0 ADDRESS2" vllm/router.sh' in page


def test_kinds_of_different_engines_start_together(plan: Plan, tmp_path: Path) -> None:
    small = SMALL | {"engine": "sglang", "weights": "bf16"}
    out = emitted(plan, tmp_path, planned(plan, tmp_path, LARGE, small), "shell,compose,kubernetes")
    assert "exec vllm serve" in (out / "shell/serve-a.sh").read_text()
    assert "sglang" in (out / "shell/serve-b.sh").read_text()
    services = read_yaml((out / "compose/compose.yaml").read_text())["services"]
    images = {name: service["image"].split(":")[0] for name, service in services.items()}
    assert images == {
        "serve-a-0": "vllm/vllm-openai",
        "serve-b-0": "lmsysorg/sglang",
        "serve-b-1": "lmsysorg/sglang",
        "router": "haproxy",
    }
    for manifest in documents((out / "kubernetes/kubernetes.yaml").read_text()):
        check_manifest(manifest)


def test_files_of_two_kinds_dont_overwrite_each_other(plan: Plan, tmp_path: Path) -> None:
    """SGLang's host tier is a file, or a flag; each kind's is its own."""
    swap = {"engine": "sglang", "weights": "bf16", "offload": {"policy": "swap", "tier": "nvme"}}
    file = planned(plan, tmp_path, LARGE | swap, SMALL | swap)
    out = emitted(plan, tmp_path, file, "sglang,lmcache,compose,kubernetes")
    names = sorted(path.name for path in (out / "compose").iterdir())
    assert [name for name in names if name.startswith("serve-")] == ["serve-a-lmcache.yaml", "serve-b-lmcache.yaml"]
    for name in ("a", "b"):
        assert f"serve-{name}-lmcache.yaml" in (out / f"sglang/serve-{name}.sh").read_text()


@pytest.mark.parametrize("target", ["kserve", "ray"])
def test_platforms_without_such_a_router_say_so(plan: Plan, tmp_path: Path, target: str) -> None:
    done = plan("emit", planned(plan, tmp_path, LARGE, SMALL), "--target", target, "-o", tmp_path / "out")
    assert done.code == 2
    assert "several kinds of replicas" in done.stderr
    assert "shell, systemd, compose, kubernetes" in done.stderr


def test_pools_stand_beside_nothing(plan: Plan, tmp_path: Path) -> None:
    prefill = SMALL | {"id": "p", "role": "prefill", "feeds": ["d"], "replicas": 1}
    decode = SMALL | {"id": "d", "role": "decode", "replicas": 1}
    file = planned(plan, tmp_path, LARGE, prefill, decode)
    done = plan("emit", file, "--target", "vllm", "-o", tmp_path / "out")
    assert done.code == 2
    assert "no router hands requests from one pool to the other and knows places too" in done.stderr


def test_one_checkpoint_cant_be_named_for_two_kinds_of_weights(plan: Plan, tmp_path: Path) -> None:
    file = planned(plan, tmp_path, LARGE, SMALL)
    done = plan("emit", file, "--target", "vllm", "--checkpoint", "me/mine", "-o", tmp_path / "out")
    assert done.code == 2
    assert "different weights" in done.stderr


def test_another_router_than_the_one_that_is_written_is_refused(plan: Plan, tmp_path: Path) -> None:
    file = planned(plan, tmp_path, LARGE, SMALL)
    content = json.loads(file.read_text())
    content["decision"]["router"]["id"] = "nginx"
    file.write_text(json.dumps(content))
    done = plan("emit", file, "--target", "vllm", "-o", tmp_path / "out")
    assert done.code == 2
    assert "decision.router.id nginx" in done.stderr


def test_import_says_that_it_reads_one_kind(plan: Plan, tmp_path: Path) -> None:
    out = emitted(plan, tmp_path, planned(plan, tmp_path, LARGE, SMALL | {"weights": "bf16"}), "kubernetes")
    done = plan("import", out / "kubernetes/kubernetes.yaml", "--gpus", "8xH100", "--ctx", "32K")
    assert done.code == 2
    assert "several kinds of replicas (tp 1, pp 1 and tp 4, pp 1)" in done.stderr
