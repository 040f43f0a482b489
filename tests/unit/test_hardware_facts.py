"""Facts about GPUs, servers and prices that physics, arithmetic and their own sources must bear out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from catalog.load import Catalog, built_in_directory
from catalog.schema import Entry, Hardware, Node, Price

FACTS = Catalog([built_in_directory()])
GPUS = FACTS.all(Hardware)
NODES = FACTS.all(Node)
PRICES = FACTS.all(Price)


def _ids(entry: Entry) -> str:
    return entry.id


def _numbers(model: BaseModel, prefix: str = "") -> Iterator[str]:
    """Names of the numbers in an entry, as sources name them: ``flops.bf16``."""
    for name in type(model).model_fields:
        value: Any = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name


@pytest.mark.parametrize("entry", [*GPUS, *NODES], ids=_ids)
def test_every_number_has_a_source(entry: Hardware | Node) -> None:
    covered = {field for source in entry.sources for field in source.fields}
    everything = any(not source.fields for source in entry.sources)
    missing = [
        number
        for number in _numbers(entry)
        if not everything and not any(number == field or number.startswith(f"{field}.") for field in covered)
    ]
    assert not missing


@pytest.mark.parametrize("entry", [*GPUS, *NODES, *PRICES], ids=_ids)
def test_sources_name_fields_that_exist(entry: Entry) -> None:
    for source in entry.sources:
        for field in source.fields:
            value: Any = entry
            for part in field.split("."):
                assert value is None or part in type(value).model_fields, f"{field} in {source.ref}"
                value = getattr(value, part) if value is not None else None


# --------------------------------------------------------------------------- GPUs

DENSE_BF16_TFLOPS = {
    "b300-sxm": (2250, 288),
    "b200-sxm": (2250, 180),
    "h200-sxm-141gb": (989, 141),
    "h100-sxm-80gb": (989, 80),
    "h100-nvl-94gb": (835, 94),
    "h100-pcie-80gb": (756, 80),
    "mi300x": (1307, 192),
    "a100-sxm-80gb": (312, 80),
    "a100-pcie-80gb": (312, 80),
    "a100-sxm-40gb": (312, 40),
    "l40s": (362, 48),
}
"""Vendors' dense bf16 [TFLOP/s] and memory [GB], from docs/methodology.md of ewyluda/gpu-price-index (2026-10)."""

RATE_OF_INT8 = {"rtx-4090": 4.0, "b300-sxm": 153.5 / 2250}
"""int8 over bf16 where it isn't 2: GeForce halves bf16 with fp32 accumulation; Blackwell Ultra cut int8."""


@pytest.mark.parametrize("gpu", GPUS, ids=_ids)
def test_precisions_double_as_bits_halve(gpu: Hardware) -> None:
    flops = gpu.flops
    assert flops.fp16 == flops.bf16
    assert flops.tf32 is None or flops.tf32 == pytest.approx(flops.bf16 / 2, rel=0.02)
    assert flops.fp8 is None or flops.fp8 == pytest.approx(flops.bf16 * 2, rel=0.02)
    assert flops.fp4 is None or flops.fp8 is None or flops.fp4 >= flops.fp8 * 1.99
    assert flops.fp32 is not None
    assert flops.fp32 <= flops.bf16
    assert flops.int8 == pytest.approx(flops.bf16 * RATE_OF_INT8.get(gpu.id, 2.0), rel=0.02)


@pytest.mark.parametrize("gpu", GPUS, ids=_ids)
def test_precisions_exist_from_their_generation_on(gpu: Hardware) -> None:
    if gpu.vendor == "amd":
        fp8, fp4 = True, gpu.compute_capability == "gfx950"
    else:
        capability = float(gpu.compute_capability)
        fp8, fp4 = capability >= 8.9, capability >= 10.0
    assert (gpu.flops.fp8 is not None, gpu.flops.fp4 is not None) == (fp8, fp4)


@pytest.mark.parametrize(("name", "dense"), DENSE_BF16_TFLOPS.items())
def test_peaks_are_dense_and_memory_is_as_sold(name: str, dense: tuple[float, float]) -> None:
    gpu = FACTS.get(Hardware, name)
    assert gpu.flops.bf16 == pytest.approx(dense[0] * 1e12, rel=0.002)
    assert dense[1] * 1e9 * 0.99 <= gpu.hbm <= dense[1] * 2**30


@pytest.mark.parametrize("gpu", GPUS, ids=_ids)
def test_balance_is_that_of_a_gpu(gpu: Hardware) -> None:
    assert 0.020 < gpu.hbm / gpu.hbm_bandwidth < 0.085, "seconds to read all of HBM"
    assert 30 < gpu.flops.bf16 / gpu.hbm_bandwidth < 450, "FLOP per byte"
    assert 0.2e12 < gpu.flops.bf16 / gpu.tdp < 2.3e12, "FLOP/s per watt; twice that would be a sparse figure"


@pytest.mark.parametrize("gpu", GPUS, ids=_ids)
def test_links_keep_to_their_standards(gpu: Hardware) -> None:
    for link in (gpu.pcie, gpu.gpu_link):
        if link is None:
            continue
        assert 0.35 * link.nominal < link.effective <= link.nominal
        if link.effective_both is not None:
            assert link.effective <= link.effective_both <= 2 * link.effective
    lanes = {"PCIe 4.0 x16": 31.5e9, "PCIe 5.0 x16": 63e9}
    assert gpu.pcie.nominal == pytest.approx(lanes.get(gpu.pcie.kind, gpu.pcie.nominal), rel=0.01)
    assert gpu.pcie.effective < gpu.hbm_bandwidth / 10
    if gpu.gpu_link is not None:
        assert gpu.pcie.effective < gpu.gpu_link.effective < gpu.hbm_bandwidth


def test_larger_memory_of_one_chip_changes_nothing_else() -> None:
    small, large = FACTS.get(Hardware, "A100-40GB"), FACTS.get(Hardware, "A100")
    assert small.flops == large.flops
    assert large.hbm == 2 * small.hbm
    assert large.hbm_bandwidth > small.hbm_bandwidth
    assert FACTS.get(Hardware, "H200").flops == FACTS.get(Hardware, "H100").flops
    assert FACTS.get(Hardware, "MI325X").flops == FACTS.get(Hardware, "MI300X").flops


# --------------------------------------------------------------------------- nodes


@pytest.mark.parametrize("gpu", GPUS, ids=_ids)
def test_every_gpu_has_exactly_one_default_node(gpu: Hardware) -> None:
    claiming = [node for node in NODES if gpu.id in node.default_for]
    assert [node.hardware for node in claiming] == [gpu.id]
    assert FACTS.default_node(gpu) == claiming[0]


@pytest.mark.parametrize("node", NODES, ids=_ids)
def test_nodes_are_built_of_what_exists(node: Node) -> None:
    gpu = FACTS.get(Hardware, node.hardware)
    assert node.gpus <= 72
    assert node.gpus % min(node.gpus, node.gpus_per_pcie_uplink) == 0
    assert (node.gpu_topology == "none") == (node.gpus == 1)
    bridged = node.gpu_topology.startswith(("nv", "xgmi"))
    assert not bridged or gpu.gpu_link is not None
    assert (node.gpu_topology == "xgmi-mesh") == (gpu.vendor == "amd")
    if gpu.form_factor in ("SXM4", "SXM5", "SXM6"):
        assert node.gpu_topology == "nvswitch"


@pytest.mark.parametrize("node", NODES, ids=_ids)
def test_amounts_of_a_node_are_of_the_right_order(node: Node) -> None:
    gpu = FACTS.get(Hardware, node.hardware)
    assert 30e9 < node.host_memory / node.gpus < 600e9
    if node.nvme is not None:
        terabytes = node.nvme.capacity / 1e12
        assert 0.3 < terabytes / node.gpus < 10
        assert 0.25e9 * terabytes <= node.nvme.write <= node.nvme.read <= 7.2e9 * terabytes
        assert node.nvme.read / node.gpus < gpu.pcie.nominal
    if node.nic is not None:
        assert 0.1e9 < node.nic.bandwidth / node.gpus <= 100e9


# --------------------------------------------------------------------------- prices

SEVERAL_OFFERS = ["A100", "A100-40GB", "H100", "H200", "B200", "L40S", "MI300X", "L4", "A10G", "RTX4090"]


@pytest.mark.parametrize("name", SEVERAL_OFFERS)
def test_common_gpus_have_several_offers(name: str) -> None:
    offers = FACTS.offers(FACTS.get(Hardware, name))
    assert len([offer for offer in offers if offer.kind == "on-demand"]) >= 2
    assert offers == sorted(offers, key=lambda offer: (offer.usd_per_gpu_hour, offer.id))


@pytest.mark.parametrize("offer", PRICES, ids=_ids)
def test_offers_are_dated_and_plausible(offer: Price) -> None:
    gpu = FACTS.get(Hardware, offer.hardware)
    assert dt.date(2025, 1, 1) <= offer.observed <= offer.checked
    assert 0.3 <= offer.usd_per_gpu_hour <= 20
    assert 0.9e-15 < offer.usd_per_gpu_hour / gpu.flops.bf16 < 40e-15, "dollars per hour and FLOP/s"
    if offer.node is not None:
        node = FACTS.get(Node, offer.node)
        assert node.hardware == offer.hardware
        assert offer.gpus <= node.gpus


def test_recalled_prices_say_so() -> None:
    recalled = [offer.id for offer in PRICES if any(source.provenance == "recalled" for source in offer.sources)]
    assert recalled == ["oci-mi355x.8"]


def test_catalog_compares_like_the_market() -> None:
    ordered = ["RTX4090", "L40S", "A100", "H100", "H200", "B200", "B300"]
    cheapest = [FACTS.offers(FACTS.get(Hardware, name))[0].usd_per_gpu_hour for name in ordered]
    assert cheapest == sorted(cheapest)
