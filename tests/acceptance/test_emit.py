"""Emitted files are what validators accept, what engines are started with, and what the plan says."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from compose_spec import PyCompose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.schema import Engine, Model
from planner.emit import emit, write
from planner.emit.source import PLACES
from planner.errors import InputError
from planner.plan import Document
from tests.manifests import check_manifest, documents, read_yaml
from tests.plans import flat_plan, plan_of, shipped_catalog

GOLDEN = Path(__file__).parents[1] / "golden" / "emit"
PLANS = sorted((GOLDEN / "plans").glob("*.json"))
SEVERAL_SERVERS = {"scout-1m-pp", "deepseek-v3-two-servers"}
NOT_SHOWN = {"plan.json", "sessions.jsonl", "check_speed.py"}
"""Tested for what they hold; their text is long, or another file's own."""
OFFLINE = {"kvpress-snapkv"}
SERVED = [path.stem for path in PLANS if path.stem not in OFFLINE]


@cache
def emitted(name: str) -> dict[str, str]:
    document = Document.model_validate_json((GOLDEN / "plans" / f"{name}.json").read_text())
    targets = [document.service.engine]
    if name not in OFFLINE:
        targets += ["kubernetes"] if name in SEVERAL_SERVERS else ["kubernetes", "compose"]
    return emit(document, targets, shipped_catalog())


names = pytest.mark.parametrize("name", [path.stem for path in PLANS])


@names
def test_the_files_are_the_golden_ones(name: str) -> None:
    """PLAN_UPDATE_GOLDEN=1 writes them; the difference is to be read before it is committed."""
    golden = GOLDEN / f"{name}.txt"
    shown = {path: text for path, text in emitted(name).items() if path not in NOT_SHOWN}
    text = "".join(f"===== {path}\n{content}" for path, content in shown.items())
    if os.environ.get("PLAN_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


@names
def test_the_plan_beside_the_files_is_exact(name: str) -> None:
    plan = Document.model_validate_json((GOLDEN / "plans" / f"{name}.json").read_text())
    assert Document.model_validate_json(emitted(name)["plan.json"]) == plan


@pytest.mark.parametrize("name", SERVED)
def test_kubernetes_takes_the_manifests(name: str) -> None:
    texts = [t for path, t in emitted(name).items() if path.startswith("kubernetes/") and path.endswith(".yaml")]
    kinds = [check_manifest(manifest) for text in texts for manifest in documents(text)]
    assert "Service" in kinds
    assert "Deployment" in kinds or "LeaderWorkerSet" in kinds


@pytest.mark.parametrize("name", ["llama8b-int8", "llama8b-split", "qwen32b-awq-yarn"])
def test_kserve_takes_the_service(name: str) -> None:
    document = Document.model_validate_json((GOLDEN / "plans" / f"{name}.json").read_text())
    text = emit(document, "kserve", shipped_catalog())["kserve/llm-inference-service.yaml"]
    kinds = [check_manifest(manifest) for manifest in documents(text)]
    assert kinds[-1] == "LLMInferenceService"


def test_ray_takes_vllms_arguments_in_python() -> None:
    document = Document.model_validate_json((GOLDEN / "plans" / "llama8b-int8.json").read_text())
    text = emit(document, "ray", shipped_catalog())["ray/application.yaml"]
    (application,) = read_yaml(text)["applications"]
    (config,) = application["args"]["llm_configs"]
    arguments = config["engine_kwargs"]
    assert arguments["kv_cache_dtype"] == "int8_per_token_head"
    assert arguments["max_model_len"] == 121_750
    assert config["deployment_config"]["num_replicas"] == 8
    assert config["accelerator_type"] == "A100"
    assert "PrefixCacheAffinityRouter" in config["deployment_config"]["request_router_config"]["request_router_class"]


def test_a_mutated_manifest_is_refused() -> None:
    manifest = documents(emitted("llama70b-fp8")["kubernetes/kubernetes.yaml"], "Deployment")[0]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["startupProbes"] = container.pop("startupProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        check_manifest(manifest)


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    for name in (path.stem for path in PLANS):
        write({path: text for path, text in emitted(name).items() if path.endswith(".sh")}, tmp_path / name)
    scripts = [str(path) for path in tmp_path.rglob("*.sh")]
    assert len(scripts) > len(PLANS)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_the_operator_reads_what_is_predicted_and_how_surely() -> None:
    page = emitted("llama70b-fp8")["README.md"]
    for row in (
        "| time to first token, whole document, every slot taken | 40 s | 35 s to 46 s |",
        "| time per output token, every slot taken, worst step | 0.11 s | 0.1 s to 0.12 s |",
        "| KV tokens that an instance reports at start | 2517729 | exact |",
        "| concurrency that an instance reports at start | 20.68 | exact |",
        "KV memory of a GPU: 41.80 GiB for the planned sessions, 48.03 GiB given.",
    ):
        assert row in page
    assert "| time to first token, whole document, every slot taken | " in emitted("llama8b-int8")["README.md"]


def test_pods_wait_for_hours_of_loading_and_name_their_secret() -> None:
    manifest = documents(emitted("llama70b-fp8")["kubernetes/kubernetes.yaml"], "Deployment")[0]
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    token = next(e for e in container["env"] if e["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["name"] == "hf-token"
    assert "value" not in token
    assert pod["nodeSelector"]["nvidia.com/gpu.compute.major"] == "8"
    assert any(volume["name"] == "shm" and volume["emptyDir"]["medium"] == "Memory" for volume in pod["volumes"])


@pytest.mark.parametrize("name", sorted(set(SERVED) - SEVERAL_SERVERS))
def test_compose_takes_the_file_and_gpus_are_given_once(name: str) -> None:
    text = emitted(name)["compose/compose.yaml"]
    PyCompose.from_yaml(text)
    services = read_yaml(text)["services"]
    devices = [
        gpu
        for name_, service in services.items()
        if name_ != "make-checkpoint"  # it has ended when the others start
        for device in service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        for gpu in device["device_ids"]
    ]
    plan = Document.model_validate_json(emitted(name)["plan.json"])
    assert len(devices) == len(set(devices)) == plan.metrics.gpus_used


# --------------------------------------------------------------------------- what a shell really runs

RECORD = """#!{python}
import json, os, sys
with open({out!r}, "a") as f:
    f.write(json.dumps({{"argv": sys.argv, "env": dict(os.environ)}}) + "\\n")
"""
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then echo {version}; else exec {program} "$@"; fi
"""


def run_script(files: dict[str, str], script: str, place: Path, **environment: str) -> list[dict[str, Any]]:
    """Run an emitted script with engines that only write down how they were called."""
    shutil.rmtree(place, ignore_errors=True)
    programs = place / "bin"
    programs.mkdir(parents=True)
    record = place / "record.jsonl"
    for name in ("vllm", "vllm-router", "sglang", "lmdeploy", "llama-server", "trtllm-serve"):
        (programs / name).write_text(RECORD.format(python=sys.executable, out=str(record)))
        (programs / name).chmod(0o755)
    version = environment.pop("VERSION", "0.33.0")
    (programs / "python3").write_text(PYTHON.format(version=version, program=programs / "vllm"))
    (programs / "python3").chmod(0o755)
    write(files, place / "out")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    arguments = shlex.split(environment.pop("ARGUMENTS", ""))
    subprocess.run(
        ["bash", str(place / "out" / script), *arguments],
        check=True,
        capture_output=True,
        env={"PATH": path, "HOME": str(place), **environment},
        cwd=place,
        timeout=30,
    )
    return [json.loads(line) for line in record.read_text().splitlines()]


def test_every_instance_gets_its_own_gpus_and_port(tmp_path: Path) -> None:
    seen = set()
    for instance in range(8):
        (call,) = run_script(emitted("llama8b-int8"), "vllm/serve.sh", tmp_path, ARGUMENTS=str(instance))
        words = call["argv"]
        assert words[1:3] == ["serve", "meta-llama/Llama-3.1-8B-Instruct"]
        seen.add((call["env"]["CUDA_VISIBLE_DEVICES"], words[words.index("--port") + 1]))
    assert seen == {(str(i), str(8000 + i)) for i in range(8)}


def test_pools_on_one_server_share_its_gpus(tmp_path: Path) -> None:
    files = emitted("llama8b-split")
    gpus: list[str] = []
    for role, count in (("prefill", 2), ("decode", 4)):
        for instance in range(count):
            (call,) = run_script(files, f"vllm/{role}.sh", tmp_path, ARGUMENTS=str(instance))
            gpus += call["env"]["CUDA_VISIBLE_DEVICES"].split(",")
    assert sorted(gpus) == [str(i) for i in range(8)]


def test_the_router_knows_every_instance(tmp_path: Path) -> None:
    (call,) = run_script(emitted("llama8b-split"), "vllm/router.sh", tmp_path)
    words = call["argv"]
    assert words.count("--prefill") == 2
    assert words.count("--decode") == 4
    assert words[words.index("--policy") + 1] == "sticky_least_loaded"
    assert len({word for word in words if word.startswith("http://")}) == 6


def test_servers_of_one_instance_have_their_rank(tmp_path: Path) -> None:
    files = emitted("scout-1m-pp")
    (first,) = run_script(files, "vllm/serve.sh", tmp_path, RANK="0", HEAD="10.0.0.1")
    (second,) = run_script(files, "vllm/serve.sh", tmp_path, RANK="1", HEAD="10.0.0.1")
    for rank, call in (("0", first), ("1", second)):
        words = call["argv"]
        assert words[words.index("--node-rank") + 1] == rank
        assert words[words.index("--master-addr") + 1] == "10.0.0.1"
    assert "--headless" in second["argv"]
    assert "--headless" not in first["argv"]


def test_a_callers_key_reaches_an_engine_that_reads_no_variable(tmp_path: Path) -> None:
    for key in ("", "a b"):
        (call,) = run_script(
            emitted("sglang-fp8-hicache"), "sglang/serve.sh", tmp_path, VERSION="0.5.23", PLAN_API_KEY=key
        )
        words = call["argv"]
        assert ("--api-key" in words) == bool(key)
        assert not key or words[words.index("--api-key") + 1] == key


def test_another_version_of_the_engine_is_not_started(tmp_path: Path) -> None:
    files = {path: text.replace("0.33.0", "0.34.0") for path, text in emitted("llama70b-fp8").items()}
    with pytest.raises(subprocess.CalledProcessError):
        run_script(files, "vllm/serve.sh", tmp_path)


# --------------------------------------------------------------------------- hostile names

HOSTILE = st.text(
    alphabet=st.characters(
        min_codepoint=32,
        max_codepoint=0x2FFF,
        exclude_characters="/\x7f",
        exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp", "Cf", "Co"],
    ),
    min_size=1,
    max_size=24,
).filter(
    lambda name: (
        name.isprintable()
        and name not in (".", "..")
        and len(name.encode()) < 200
        and not any(place in name for place in PLACES)  # those are refused
    )
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=HOSTILE
    | st.sampled_from(
        [
            "$(touch pwned)",
            "`touch pwned`",
            "'; touch pwned; '",
            '"; touch pwned #',
            "a: b\n".strip(),
            "]() <b>",
            "${HOME}",
            "$(HOME)",
            "--help",
            "```",
            "{",
            "{}",
        ]
    )
)
def test_a_hostile_path_stays_one_argument(name: str, tmp_path: Path) -> None:
    directory = tmp_path / "models" / name
    directory.mkdir(parents=True, exist_ok=True)
    config = shipped_catalog().get(Model, "llama-3.1-8b").config
    (directory / "config.json").write_text(json.dumps(config))
    content = flat_plan("llama8b-int8")
    content["request"]["model"] = str(directory)
    targets = ["vllm", "compose", "kubernetes"]
    files = emit(plan_of(content), targets, shipped_catalog(), checkpoint=str(directory))
    (call,) = run_script(files, "vllm/serve.sh", tmp_path / "run")
    assert call["argv"][2] == str(directory)
    assert call["argv"][4] == (name.lstrip("-") or "model")
    assert not list((tmp_path / "run").rglob("pwned"))
    manifest = documents(files["kubernetes/kubernetes.yaml"], "Deployment")[0]
    check_manifest(manifest)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["args"][0].replace("$$", "$") == str(directory)
    service = read_yaml(files["compose/compose.yaml"])["services"]["serve-0"]
    assert service["command"][0].replace("$$", "$") == str(directory)
    assert read_yaml(files["vllm/serve.yaml"])["model"] == str(directory)
    heading = files["README.md"].splitlines()[0]
    assert heading.startswith("# `")
    assert "<b>" not in heading.split("`")[-1]


STARTS = {
    "sglang-fp8-hicache": ("sglang/serve.sh", "--model-path"),
    "lmdeploy-int4-awq": ("lmdeploy/serve.sh", None),
    "llamacpp-q8": ("llama.cpp/serve.sh", "--model"),
    "qwen32b-awq-yarn": ("vllm/serve.sh", None),
    "trtllm-host-cache": ("tensorrt-llm/serve.sh", None),
}
"""Plans of every engine that serves; the script that starts it, and the flag before the checkpoint."""


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.sampled_from(sorted(STARTS)), name=HOSTILE | st.sampled_from(["$(touch pwned)", "'; touch pwned; '", "`x`"])
)
def test_a_hostile_checkpoint_stays_one_argument_of_every_engine(plan: str, name: str, tmp_path: Path) -> None:
    content = flat_plan(plan)
    if content["decision"]["weights"] == "bf16" and plan != "llamacpp-q8":
        content["decision"]["weights"] = {"sglang-fp8-hicache": "awq4"}.get(plan, "fp8")
        content["request"]["gpus"] = "8xH100"
        content["decision"]["compression"] = {}
    checkpoint = f"/srv/{name}"
    engine = content["decision"]["engine"]
    script, flag = STARTS[plan]
    files = emit(plan_of(content), [engine, "kubernetes"], shipped_catalog(), checkpoint=checkpoint)
    version = shipped_catalog().get(Engine, engine).version
    (call,) = run_script(files, script, tmp_path / "run", VERSION=version)
    words = call["argv"]
    assert checkpoint in words
    assert flag is None or words[words.index(flag) + 1] == checkpoint
    assert not list((tmp_path / "run").rglob("pwned"))
    for manifest in documents(files["kubernetes/kubernetes.yaml"]):
        check_manifest(manifest)
        if manifest["kind"] == "Deployment" and "router" not in manifest["metadata"]["name"]:
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            assert checkpoint in [word.replace("$$", "$") for word in [*container["command"], *container["args"]]]


@pytest.mark.parametrize("name", ["-x", "a\nb", "", "a{models}b", "{directory}", "\u202ename"])
def test_a_checkpoint_that_is_no_word_is_refused(name: str) -> None:
    document = Document.model_validate_json((GOLDEN / "plans" / "qwen32b-awq-yarn.json").read_text())
    with pytest.raises(InputError, match="--checkpoint"):
        emit(document, "vllm", shipped_catalog(), checkpoint=name)
