"""What an operator would otherwise add to manifests by hand: storage, rights, budgets, networks, ends."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner.emit import emit
from planner.errors import InputError
from tests.manifests import check_manifest, documents, read_yaml
from tests.plans import flat_plan, plan_of, shipped_catalog

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
NAMES = sorted(path.stem for path in PLANS.glob("*.json") if path.stem != "kvpress-snapkv")
SITE = """
node: {node}
nodes: {nodes}
network:
  rdma: {{resource: rdma/roce_gdr, count: 8}}
  annotations: {{k8s.v1.cni.cncf.io/networks: roce-p2}}
  interface: eth0
  hcas: [mlx5_0, mlx5_1]
  gid_index: 3
  environment: {{NCCL_IB_TC: 106}}
storage: {{class: fast, access: {access}, bandwidth: 5 GB/s, download: 1 GB/s}}
kubernetes:
  registry: registry.example.com/mirror
  pull_secrets: [regcred]
  node_selector: {{pool: llm}}
  tolerations: [{{key: dedicated, operator: Equal, value: llm, effect: NoSchedule}}]
  priority_class: high
"""


def content_of(name: str) -> dict[str, Any]:
    content: dict[str, Any] = flat_plan(name)
    return content


@cache
def manifest(name: str) -> str:
    return emit(plan_of(content_of(name)), "kubernetes", shipped_catalog())["kubernetes/kubernetes.yaml"]


def at_site(name: str, path: Path, target: str, access: str = "ReadWriteMany", **other: str) -> dict[str, str]:
    """Emit a plan for a cluster file that says everything, on the servers of the plan."""
    content = content_of(name)
    gpus = content["request"]["gpus"]
    nodes = int(gpus.split("x")[0]) if gpus.count("x") == 2 else 1
    node = "dgx-h100" if "H100" in gpus else "dgx-a100-80gb"
    path.write_text(SITE.format(node=node, nodes=nodes, access=access))
    content["request"]["gpus"] = str(path)
    return emit(plan_of(content), target, shipped_catalog(), **other)  # type: ignore[arg-type]


def pods(text: str) -> list[dict[str, Any]]:
    """Return the templates of a manifest's pods, routers' too."""
    found = []
    for document in documents(text, "Deployment", "LeaderWorkerSet"):
        group = document["spec"].get("leaderWorkerTemplate")
        found += [group["leaderTemplate"], group["workerTemplate"]] if group else [document["spec"]["template"]]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_reserves_is_probed_and_may_do_little(name: str) -> None:
    plan = content_of(name)
    for template in pods(manifest(name)):
        spec = template["spec"]
        (container,) = spec["containers"]
        assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert ":" in container["image"]
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"]["drop"] == ["ALL"]
        is_worker = template["metadata"]["labels"]["app.kubernetes.io/component"].endswith("-worker")
        assert is_worker or {"readinessProbe", "livenessProbe", "lifecycle", "ports"} <= container.keys()
        # The longest request of the plan is answered before the pod is killed.
        metrics = plan["metrics"]
        longest = metrics["ttft_cold_s"] + plan["request"]["output_tokens"] * metrics["tpot_s"]
        assert spec["terminationGracePeriodSeconds"] >= longest + 15
        if "vllm" in container["image"] and "router" not in container["image"]:
            words = " ".join([*container["command"], *container["args"]]).split()
            assert int(words[words.index("--shutdown-timeout") + 1]) >= longest


@pytest.mark.parametrize("name", NAMES)
def test_an_update_and_a_drain_take_one_instance_at_a_time(name: str) -> None:
    text = manifest(name)
    for workload in documents(text, "Deployment", "LeaderWorkerSet"):
        spec = workload["spec"]
        if "router" in workload["metadata"]["name"]:
            continue
        rolling = spec.get("strategy", {}).get("rollingUpdate") or spec["rolloutStrategy"]["rollingUpdateConfiguration"]
        assert rolling == {"maxUnavailable": 1, "maxSurge": 0}
        budgets = [
            b for b in documents(text, "PodDisruptionBudget") if b["metadata"]["name"] == workload["metadata"]["name"]
        ]
        assert len(budgets) == (spec["replicas"] > 1)
        for budget in budgets:
            assert budget["spec"]["minAvailable"] == spec["replicas"] - 1
            assert budget["spec"]["selector"] == spec["selector"]


@pytest.mark.parametrize("name", NAMES)
def test_models_are_on_a_claim_that_holds_them(name: str) -> None:
    text = manifest(name)
    (claim,) = documents(text, "PersistentVolumeClaim")
    engines = [t for t in pods(text) if any(v["name"] == "models" for v in t["spec"]["volumes"])]
    for template in engines:
        (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "models"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    copies = sum(
        w["spec"]["replicas"] * w["spec"].get("leaderWorkerTemplate", {"size": 1})["size"]
        for w in documents(text, "Deployment", "LeaderWorkerSet")
        if "router" not in w["metadata"]["name"]
    )
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce" if copies == 1 else "ReadWriteMany"]
    assert claim["spec"]["resources"]["requests"]["storage"].endswith("Gi")


ACROSS = ["scout-1m-pp", "deepseek-v3-two-servers", "llama8b-split", "sglang-split"]


@pytest.mark.parametrize(
    ("name", "target"),
    [(name, "kubernetes") for name in ACROSS]
    + [(name, "kserve") for name in ("deepseek-v3-two-servers", "llama8b-split")],
)
def test_gpu_traffic_gets_the_network_that_the_cluster_file_names(name: str, target: str, tmp_path: Path) -> None:
    files = at_site(name, tmp_path / "cluster.yaml", target)
    (text,) = (text for path, text in files.items() if path.startswith(f"{target}/"))
    assert "WARNING" not in text + files["README.md"]
    for document in documents(text):
        check_manifest(document)
    if target == "kserve":
        (service,) = documents(text, "LLMInferenceService")
        parts = [service["spec"], service["spec"].get("prefill", {})]
        templates = [
            {"metadata": {"annotations": part["annotations"]}, "spec": part[which]}
            for part in parts
            for which in ("template", "worker")
            if which in part
        ]
    else:
        templates = [t for t in pods(text) if t["metadata"]["labels"]["app.kubernetes.io/component"] != "router"]
    assert templates
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"]["rdma/roce_gdr"] == "8"
        assert "IPC_LOCK" in container["securityContext"]["capabilities"]["add"]
        assert template["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "roce-p2"
        environment = {e["name"]: e.get("value") for e in container["env"]}
        assert environment["NCCL_IB_HCA"] == "mlx5_0,mlx5_1"
        assert environment["UCX_NET_DEVICES"] == "mlx5_0:1,mlx5_1:1"
        assert environment["NCCL_IB_GID_INDEX"] == environment["UCX_IB_GID_INDEX"] == "3"
        assert environment["NCCL_SOCKET_IFNAME"] == environment["GLOO_SOCKET_IFNAME"] == "eth0"
        assert environment["NCCL_IB_TC"] == "106"
        assert container["image"].startswith("registry.example.com/mirror/")
        spec = template["spec"]
        assert spec["imagePullSecrets"] == [{"name": "regcred"}]
        assert spec["nodeSelector"]["pool"] == "llm"
        assert {"key": "dedicated", "operator": "Equal", "value": "llm", "effect": "NoSchedule"} in spec["tolerations"]
        assert spec["priorityClassName"] == "high"


def test_experts_on_several_servers_talk_as_the_cluster_file_says(tmp_path: Path) -> None:
    content = content_of("deepseek-v3-two-servers")
    missing = emit(plan_of(content), "kubernetes", shipped_catalog())
    assert "network.all2all in the cluster file names another" in missing["README.md"]
    path = tmp_path / "cluster.yaml"
    text = "node: dgx-h100\nnodes: 2\nnetwork: {{all2all: {{vllm: {}}}}}\n"
    path.write_text(text.format("deepep_low_latency"))
    content["request"]["gpus"] = str(path)
    files = emit(plan_of(content), "kubernetes", shipped_catalog())
    assert "network.all2all" not in files["README.md"]
    for template in pods(files["kubernetes/kubernetes.yaml"]):
        (container,) = template["spec"]["containers"]
        if "router" not in container["name"]:
            assert "--all2all-backend deepep_low_latency" in container["args"][0]
    path.write_text(text.format("deepep_fast"))
    with pytest.raises(InputError, match="--all2all-backend can't be 'deepep_fast'"):
        emit(plan_of(content), "kubernetes", shipped_catalog())


@pytest.mark.parametrize("name", ["scout-1m-pp", "llama8b-split"])
def test_a_network_that_nobody_named_is_missed_loudly(name: str) -> None:
    files = emit(plan_of(content_of(name)), "kubernetes", shipped_catalog())
    for text in (files["kubernetes/kubernetes.yaml"].split("---")[0], files["README.md"]):
        assert "WARNING" in text
        assert "NCCL_DEBUG=INFO" in text
    assert any(note.startswith("WARNING") for note in json.loads(files["provenance.json"])["notes"])
    assert "WARNING" not in manifest("llama8b-int8")


def test_pods_share_a_servers_network_only_where_their_ports_can(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("node: dgx-a100-80gb\nnodes: 2\nnetwork: {host_network: true}\n")
    content = content_of("scout-1m-pp")
    content["request"]["gpus"] = str(path)
    text = emit(plan_of(content), "kubernetes", shipped_catalog())["kubernetes/kubernetes.yaml"]
    assert all(t["spec"]["hostNetwork"] and t["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet" for t in pods(text))
    path.write_text("node: dgx-a100-80gb\nnetwork: {host_network: true}\n")
    content = content_of("llama8b-split")
    content["request"]["gpus"] = str(path)
    with pytest.raises(InputError, match="host_network"):
        emit(plan_of(content), "kubernetes", shipped_catalog())
    alone = content_of("llama8b-int8")
    alone["request"]["gpus"] = str(path)
    text = emit(plan_of(alone), "kubernetes", shipped_catalog())["kubernetes/kubernetes.yaml"]
    assert not any("hostNetwork" in t["spec"] for t in pods(text))


def test_a_script_over_servers_puts_traffic_on_the_named_devices(tmp_path: Path) -> None:
    script = at_site("scout-1m-pp", tmp_path / "cluster.yaml", "vllm")["vllm/serve.sh"]
    assert "export NCCL_IB_HCA=mlx5_0,mlx5_1\n" in script
    assert "export NCCL_SOCKET_IFNAME=eth0\n" in script
    alone = at_site("llama8b-int8", tmp_path / "cluster.yaml", "vllm")["vllm/serve.sh"]
    assert "NCCL_IB_HCA" not in alone


def test_storage_that_one_pod_may_mount_gives_each_pod_its_own(tmp_path: Path) -> None:
    files = at_site("llama8b-int8", tmp_path / "cluster.yaml", "kubernetes", access="ReadWriteOnce")
    text = files["kubernetes/kubernetes.yaml"]
    assert not documents(text, "PersistentVolumeClaim")
    volume = next(v for v in pods(text)[0]["spec"]["volumes"] if v["name"] == "models")
    spec = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (spec["accessModes"], spec["storageClassName"]) == (["ReadWriteOnce"], "fast")
    assert "ReadWriteOnce" in files["README.md"]


def test_a_start_may_take_what_the_storage_needs(tmp_path: Path) -> None:
    def patience(text: str) -> int:
        probe = pods(text)[0]["spec"]["containers"][0]["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    slow = manifest("llama70b-fp8")
    fast = at_site("llama70b-fp8", tmp_path / "cluster.yaml", "kubernetes")
    # 141 GB of bf16 at 0.2 GB/s twice (download, read), and 15 minutes, times two.
    assert patience(slow) == pytest.approx(2 * (2 * 141.1e9 / 0.2e9 + 900), rel=0.02)
    assert patience(fast["kubernetes/kubernetes.yaml"]) == pytest.approx(2 * (141.1 / 1 + 141.1 / 5 + 900), rel=0.05)
    assert (
        "assumed: storage.bandwidth"
        in emit(plan_of(content_of("llama70b-fp8")), "kubernetes", shipped_catalog())["README.md"]
    )
    assert "assumed: storage" not in fast["README.md"]


@pytest.mark.parametrize(
    ("name", "image"),
    [("llama8b-int8", "vllm/vllm-router:v0.1.17"), ("sglang-split", "lmsysorg/sgl-model-gateway:v0.3.2")],
)
def test_the_router_is_its_projects_release_and_nobody(name: str, image: str) -> None:
    text = manifest(name)
    assert "pip install" not in text
    (router,) = [t for t in pods(text) if t["metadata"]["labels"]["app.kubernetes.io/component"] == "router"]
    (container,) = router["spec"]["containers"]
    assert container["image"] == image
    assert router["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {p["name"] for p in container["ports"]} == {"http", "metrics"}
    words = container["args"]
    assert words[words.index("--prometheus-host") + 1] == "0.0.0.0"
    compose = emit(plan_of(content_of(name)), "compose", shipped_catalog())["compose/compose.yaml"]
    assert read_yaml(compose)["services"]["router"]["image"] == image


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("llama8b-int8", "VLLM_API_KEY"),
        ("llamacpp-q8", "LLAMA_API_KEY"),
        ("sglang-fp8-hicache", "PLAN_API_KEY"),
        ("lmdeploy-int4-awq", "PLAN_API_KEY"),
    ],
)
def test_an_api_key_comes_from_a_secret_that_may_be_missing(name: str, variable: str) -> None:
    (container,) = pods(manifest(name))[0]["spec"]["containers"]
    (key,) = [e for e in container["env"] if e["name"] == variable]
    assert key["valueFrom"]["secretKeyRef"] == {"name": "plan-api-key", "key": "key", "optional": True}
    if variable == "PLAN_API_KEY":
        assert container["command"][:2] == ["sh", "-c"]
        assert f"${{{variable}:+" in container["command"][2]
    compose = emit(plan_of(content_of(name)), "compose", shipped_catalog())["compose/compose.yaml"]
    service = read_yaml(compose)["services"]["serve-0"]
    assert service["environment"][variable] is None


def test_a_router_that_sends_its_own_key_to_pools_gets_it() -> None:
    document = plan_of(content_of("llama8b-split"))
    files = emit(document, "vllm,kubernetes,compose", shipped_catalog())
    text = files["kubernetes/kubernetes.yaml"]
    (router,) = [t for t in pods(text) if t["metadata"]["labels"]["app.kubernetes.io/component"] == "router"]
    (key,) = [e for e in router["spec"]["containers"][0]["env"] if e["name"] == "OPENAI_API_KEY"]
    assert key["valueFrom"]["secretKeyRef"] == {"name": "plan-api-key", "key": "key", "optional": True}
    services = read_yaml(files["compose/compose.yaml"])["services"]
    assert services["router"]["environment"]["OPENAI_API_KEY"] == "${VLLM_API_KEY:-}"
    assert 'export OPENAI_API_KEY="${VLLM_API_KEY:-}"\n' in files["vllm/router.sh"]
    assert "asks clients for none" in files["README.md"]
    assert "OPENAI_API_KEY" not in manifest("llama8b-int8") + manifest("sglang-split")


def test_an_engine_that_drops_its_work_is_stopped_when_it_has_none() -> None:
    for name, drains in (("llamacpp-q8", False), ("llama8b-int8", True)):
        plan = content_of(name)
        longest = plan["metrics"]["ttft_cold_s"] + plan["request"]["output_tokens"] * plan["metrics"]["tpot_s"]
        spec = pods(manifest(name))[0]["spec"]
        waits = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert (waits >= longest) is not drains
        assert spec["terminationGracePeriodSeconds"] > waits


def test_a_health_check_that_generates_bears_with_prefills_in_one_piece() -> None:
    content = content_of("sglang-fp8-hicache")
    content["metrics"]["ttft_cold_s"] = 300.0
    for chunk, told in ((2048, False), (None, True)):
        content["decision"]["batch"]["prefill_chunk_tokens"] = chunk
        files = emit(plan_of(content), "kubernetes", shipped_catalog())
        (container,) = pods(files["kubernetes/kubernetes.yaml"])[0]["spec"]["containers"]
        names = [variable["name"] for variable in container["env"]]
        assert ("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION" in names) is told
        assert (container["livenessProbe"]["failureThreshold"] * 10 >= 600) is told


def test_metrics_are_on_and_named() -> None:
    services = documents(manifest("llama8b-split"), "Service")
    ports = {s["metadata"]["name"].rsplit("-", 1)[-1]: [p["name"] for p in s["spec"]["ports"]] for s in services}
    assert ports == {"prefill": ["http"], "decode": ["http"], "8b": ["http", "metrics"]}
    for name in ("llama8b-int8", "sglang-fp8-hicache", "llamacpp-q8", "lmdeploy-int4-awq"):
        annotations = pods(manifest(name))[0]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
    (container,) = pods(manifest("sglang-fp8-hicache"))[0]["spec"]["containers"]
    assert "--enable-metrics" in container["args"]
    assert container["startupProbe"]["httpGet"]["path"] == "/health_generate"


def test_compose_limits_memory_and_lets_engines_lock_it() -> None:
    files = emit(plan_of(content_of("llama8b-int8")), "compose", shipped_catalog())
    services = read_yaml(files["compose/compose.yaml"])["services"]
    engines = [service for name, service in services.items() if name != "router"]
    limits = [int(service["deploy"]["resources"]["limits"]["memory"]) for service in engines]
    assert sum(limits) <= 2048 * 2**30
    assert all(service["ulimits"] == {"memlock": -1} and service["restart"] == "unless-stopped" for service in engines)
