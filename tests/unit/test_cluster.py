"""What ``--gpus`` may say, and what is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import Catalog, open_catalog
from catalog.schema import Hardware, Node
from planner.errors import InputError
from planner.request import resolve_cluster


@pytest.fixture(scope="module")
def facts() -> Catalog:
    return open_catalog()


@pytest.mark.parametrize(
    ("text", "node", "gpus", "per_node", "nodes", "assumed"),
    [
        ("8xA100", "dgx-a100-80gb", 8, 8, 1, True),
        ("A100", "dgx-a100-80gb", 1, 1, 1, True),
        ("4xa100", "dgx-a100-80gb", 4, 4, 1, True),
        ("12xA100", "dgx-a100-80gb", 12, 8, 2, True),
        ("16xA100", "dgx-a100-80gb", 16, 8, 2, True),
        ("2x8xH100", "dgx-h100", 16, 8, 2, True),
        ("2x4xH100", "dgx-h100", 8, 4, 2, True),
        (" 8 x H200 ", "dgx-h200", 8, 8, 1, True),
        ("1xL4", "g6.48xlarge", 1, 1, 1, True),
        ("8xA10G", "g5.48xlarge", 8, 8, 1, True),
        ("72xGB200", "gb200-nvl72", 72, 72, 1, True),
        ("gb200-nvl72", "gb200-nvl72", 72, 72, 1, False),
        ("2xGH200", "gh200", 2, 1, 2, True),
        ("p4d.24xlarge", "p4d.24xlarge", 8, 8, 1, False),
        ("2xp4d.24xlarge", "p4d.24xlarge", 16, 8, 2, False),
        ("2xND96amsr_A100_v4", "nd96amsr-a100-v4", 16, 8, 2, False),
        ("3xDGX-A100", "dgx-a100-80gb", 24, 8, 3, False),
    ],
)
def test_resolves(facts: Catalog, text: str, node: str, gpus: int, per_node: int, nodes: int, assumed: bool) -> None:
    cluster = resolve_cluster(text, facts)
    assert (cluster.node.id, cluster.gpus, cluster.gpus_per_node, cluster.nodes) == (node, gpus, per_node, nodes)
    assert cluster.assumed_node is assumed
    assert cluster.hardware.id == cluster.node.hardware


@pytest.mark.parametrize(
    ("name", "hardware"),
    [
        ("A100", "a100-sxm-80gb"),
        ("A100-80GB", "a100-sxm-80gb"),
        ("A100-40GB", "a100-sxm-40gb"),
        ("A100-PCIe-80GB", "a100-pcie-80gb"),
        ("H100", "h100-sxm-80gb"),
        ("H100-PCIe", "h100-pcie-80gb"),
        ("H200", "h200-sxm-141gb"),
        ("B200", "b200-sxm"),
        ("L40S", "l40s"),
        ("MI300X", "mi300x"),
    ],
)
def test_promised_names_in_any_case(facts: Catalog, name: str, hardware: str) -> None:
    for spelled in (name, name.lower(), name.upper()):
        assert resolve_cluster(f"8x{spelled}", facts).hardware.id == hardware


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8xA1000", "did you mean A100"),
        ("8xH10O", "did you mean H100"),
        ("dgx-a10", "did you mean dgx-a100"),
        ("0xA100", "counts must be whole numbers from 1"),
        ("-1xA100", "counts must be whole numbers from 1"),
        ("2x0xA100", "counts must be whole numbers from 1"),
        ("100000xA100", "counts must be whole numbers from 1 to 65536"),
        ("9" * 5000 + "xA100", "counts must be whole numbers from 1 to 65536"),
        ("65536x8xA100", "524288 GPUs in all"),
        ("65536xdgx-a100", "524288 GPUs in all"),
        ("8x", "names no GPU"),
        ("", "names no GPU"),
        ("  ", "names no GPU"),
        ("2x2x2xA100", "nodes x GPUs"),
        ("2x16xA100", "write 32xa100-sxm-80gb"),
        ("2x8xp4d.24xlarge", "write 2xp4d.24xlarge"),
        ("no/such/cluster.yaml", "can't be read: No such file"),
        ("\0.yaml", "embedded null"),
        ("\0", "unknown GPU or node"),
        ("x" * 5000, "unknown GPU or node"),
        ("/", "unknown GPU or node"),
    ],
)
def test_tells_what_is_wrong(facts: Catalog, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cluster(text, facts)
    assert told in str(caught.value)
    assert str(caught.value).startswith("--gpus")
    assert len(str(caught.value)) < 1000


def test_tells_all_problems_at_once(facts: Catalog) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cluster("0x2x2xA1000", facts)
    assert len(caught.value.problems) == 3


@given(st.text(max_size=40))
def test_any_text_resolves_or_is_refused(text: str) -> None:
    try:
        cluster = resolve_cluster(text, open_catalog())
    except InputError:
        return
    assert 1 <= cluster.gpus_per_node <= min(cluster.gpus, cluster.node.gpus)


@given(st.integers(1, 65_536), st.sampled_from(["A100", "L4", "GH200", "GB200", "A30"]))
def test_servers_hold_all_gpus_and_none_is_empty(gpus: int, name: str) -> None:
    cluster = resolve_cluster(f"{gpus}x{name}", open_catalog())
    assert (cluster.nodes - 1) * cluster.gpus_per_node < cluster.gpus <= cluster.nodes * cluster.gpus_per_node


def test_names_of_gpus_and_nodes_dont_collide(facts: Catalog) -> None:
    for node in facts.all(Node):
        for name in (node.id, *node.aliases):
            if facts.has(Hardware, name):
                assert (node.gpus, facts.get(Hardware, name).id) == (1, node.hardware), name


# --------------------------------------------------------------------------- cluster files


def _file(folder: Path, text: str, name: str = "cluster.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_file_names_a_node(facts: Catalog, tmp_path: Path) -> None:
    cluster = resolve_cluster(_file(tmp_path, "node: DGX-A100\nnodes: 2\n"), facts)
    assert (cluster.node.id, cluster.gpus, cluster.nodes, cluster.assumed_node) == ("dgx-a100-80gb", 16, 2, False)
    assert cluster.node == facts.get(Node, "dgx-a100-80gb")


def test_file_overrides_fields_of_a_node(facts: Catalog, tmp_path: Path) -> None:
    text = "node: dgx-a100\ngpus: 4\nhost_memory: 512 GiB\nnvme: null\nnic: {kind: Ethernet, bandwidth: 12.5 GB/s}\n"
    node = resolve_cluster(_file(tmp_path, text), facts).node
    assert (node.gpus, node.host_memory, node.nvme) == (4, 512 * 2**30, None)
    assert node.nic is not None
    assert node.nic.bandwidth == 12.5e9


def test_file_with_only_a_gpu_takes_its_default_node(facts: Catalog, tmp_path: Path) -> None:
    cluster = resolve_cluster(_file(tmp_path, "hardware: H100\nnodes: 3\n", "three.json"), facts)
    assert (cluster.node.id, cluster.gpus, cluster.assumed_node) == ("dgx-h100", 24, True)


def test_file_without_suffix(facts: Catalog, tmp_path: Path) -> None:
    assert resolve_cluster(_file(tmp_path, "node: dgx-h200", "cluster"), facts).node.id == "dgx-h200"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("node: dgx-a1000", "did you mean dgx-a100"),
        ("hardware: A1000", "did you mean A100"),
        ("nodes: 2", "node: missing"),
        ("node: dgx-a100\nnodes: 0", "nodes: must be a whole number from 1"),
        ("node: dgx-a100\nnodes: true", "nodes: must be a whole number from 1"),
        ("node: dgx-a100\nnodes: many", "nodes: must be a whole number from 1"),
        ("node: dgx-a100\nnodes: 65536", "524288 GPUs in all"),
        ("node: dgx-a100\nhardware: H100", "give either node or hardware"),
        ("node: dgx-a100\nhost_memory: 512", "write for example '80 GiB'"),
        ("node: dgx-a100\nhost_mem: 512 GiB", "did you mean host_memory?"),
        ("node: dgx-a100\ngpus: 0", "gpus:"),
        ("- node", "holds no cluster"),
        ("", "holds no cluster"),
        ("node: [", "line"),
        ("node: a\nnode: b", "given twice"),
        ("node: &x dgx-a100\nname: *x", "aliases"),
    ],
)
def test_tells_what_is_wrong_in_a_file(facts: Catalog, tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cluster(_file(tmp_path, text), facts)
    assert told in str(caught.value)
    assert "cluster.yaml" in str(caught.value)


def test_file_with_several_problems_tells_all(facts: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolve_cluster(_file(tmp_path, "node: dgx-a100\nnodes: 0\ngpus: 0\nhost_memory: 3\n"), facts)
    assert len(caught.value.problems) == 3


def test_directory_and_binary_file_are_refused(facts: Catalog, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("folder.yaml", "binary.yaml"):
        with pytest.raises(InputError, match=r"can't be read|UTF-8"):
            resolve_cluster(str(tmp_path / name), facts)


SITE = """
node: dgx-h100
nodes: 2
network:
  rdma: {resource: rdma/roce_gdr, count: 8}
  annotations: {k8s.v1.cni.cncf.io/networks: roce-p2}
  interface: eth0
  hcas: [mlx5_0, mlx5_1]
  gid_index: 3
  all2all: {vllm: deepep_low_latency}
  environment: {NCCL_IB_QPS_PER_CONNECTION: 4}
storage: {class: fast, access: ReadWriteMany, bandwidth: 4 GB/s}
kubernetes:
  registry: registry.example.com/mirror
  pull_secrets: [regcred]
  tolerations: [{key: dedicated, operator: Equal, value: llm, effect: NoSchedule}]
"""


def test_a_cluster_file_says_how_its_place_is_set_up(facts: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SITE)
    cluster = resolve_cluster(str(path), facts)
    site = cluster.site
    assert (cluster.gpus, cluster.node.id) == (16, "dgx-h100")
    assert site.network.rdma is not None
    assert (site.network.rdma.resource, site.network.rdma.count) == ("rdma/roce_gdr", 8)
    assert site.network.hcas == ("mlx5_0", "mlx5_1")
    assert site.network.environment == {"NCCL_IB_QPS_PER_CONNECTION": "4"}
    assert (site.storage.storage_class, site.storage.bandwidth) == ("fast", 4e9)
    assert site.kubernetes.tolerations[0].value == "llm"
    assert resolve_cluster("2x8xH100", facts).site.network.rdma is None


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("network: {rdma: {resource: 'a b'}}", "network.rdma.resource"),
        ("network: {interfaces: eth0}", "did you mean interface"),
        ("network: {hcas: ['mlx5_0; rm -rf /']}", "network.hcas.0"),
        ("network: {all2all: {llama.cpp: x}}", "network.all2all.llama.cpp"),
        ("network: yes", "network:"),
        ("storage: {bandwidth: 4}", "no unit"),
        ("storage: {access: Many}", "ReadWriteMany"),
        ("kubernetes: {registry: 'https://x y'}", "kubernetes.registry"),
        ("kubernetes: {tolerations: [{key: a, operator: Equal}]}", "Equal needs a value"),
    ],
)
def test_what_a_site_cannot_be_is_told(facts: Catalog, tmp_path: Path, block: str, told: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"node: dgx-h100\n{block}\n")
    with pytest.raises(InputError, match=told):
        resolve_cluster(str(path), facts)
