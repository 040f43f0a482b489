"""The parts of a calibration: which GPU it is, what the driver says, which sizes, which times are nonsense."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from catalog.load import open_catalog
from catalog.schema import Hardware
from planner.calibrate import health
from planner.calibrate.device import Sample, identify
from planner.calibrate.fits import Fitted, best_rates, fit_all
from planner.calibrate.health import Processors, gpu_complaints, other_processes, parse_gpus
from planner.calibrate.overlay import hardware, links
from planner.calibrate.rules import refusal
from planner.calibrate.state import Done, discard_state, open_state
from planner.calibrate.sweeps import OPERATIONS, Point, Rates, point, sweep, work
from planner.errors import InputError
from planner.measured import operations as op
from planner.measured.machine import machine
from tests.calibrating import A100, true_s

GIB = 2.0**30
PEAK = op.Peak(312e12, 2.039e12, 108)
FAST = Rates(2.5e14, 1.7e12)


@pytest.mark.parametrize(
    ("name", "gib", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-sxm-40gb"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-pcie-40gb"),
        ("NVIDIA A100 80GB PCIe", 79.2, "a100-pcie-80gb"),
        ("NVIDIA A800-SXM4-80GB", 79.2, "a800-sxm-80gb"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-sxm-80gb"),
        ("NVIDIA H100 PCIe", 79.1, "h100-pcie-80gb"),
        ("NVIDIA H100 NVL", 93.1, "h100-nvl-94gb"),
        ("NVIDIA H200", 139.8, "h200-sxm-141gb"),
        ("NVIDIA H200 NVL", 139.8, "h200-nvl-141gb"),
        ("NVIDIA L4", 22.0, "l4"),
        ("NVIDIA L40S", 44.5, "l40s"),
        ("NVIDIA A10G", 22.0, "a10g"),
        ("NVIDIA GeForce RTX 4090", 23.5, "rtx-4090"),
        ("NVIDIA RTX 6000 Ada Generation", 47.4, "rtx-6000-ada"),
        ("AMD Instinct MI300X", 191.5, "mi300x"),
        ("NVIDIA L40", 44.5, None),
        ("NVIDIA GeForce RTX 3090", 23.7, None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 39.5, None),
    ],
)
def test_gpus_by_what_their_driver_calls_them(name: str, gib: float, expected: str | None) -> None:
    found = identify(replace(A100, name=name, memory_bytes=gib * GIB), open_catalog())
    assert (found.id if found else None) == expected


IDLE = "0, GPU-aa, 0, 4, 210, 1410, 31, 0x0000000000000001, Disabled"


@pytest.mark.parametrize(
    ("row", "running", "told"),
    [
        (IDLE, False, None),
        (IDLE.replace(" 0, 4,", " 97, 4,"), False, "97 % used"),
        (IDLE.replace(" 0, 4,", " 97, 4,"), True, None),
        (IDLE.replace(" 4, 210", " 71234, 210"), False, "71234 MiB"),
        (IDLE.replace("0001,", "0004,"), True, None),
        (IDLE.replace("0001,", "0040,"), True, "hot (210 of 1410 MHz); improve cooling"),
        (IDLE.replace("0001,", "0002,"), False, "nvidia-smi -rac"),
        (IDLE.replace("Disabled", "Enabled"), False, "MIG"),
        ("0, GPU-aa, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]", False, None),
    ],
)
def test_what_nvidia_smi_says(row: str, running: bool, told: str | None) -> None:
    (gpu,) = parse_gpus(row + "\n")
    found = gpu_complaints(gpu, [], running=running)
    assert (told is None and not found) or (told is not None and told in found[0])


@pytest.mark.parametrize("old", [False, True])
def test_nvidia_smi_is_asked_in_the_words_of_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    unknown = "clocks_event_reasons" if old else "clocks_throttle_reasons"
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f"""#!/bin/sh
case "$1" in
  *{unknown}*) exit 2;;
  --query-gpu=*) echo "{IDLE.replace("0001,", "0040,")}";;
  *) echo "GPU-aa, 12, python";;
esac
""",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert health.gpu_processes() == ["12"]
    busy, hot = health.nvidia_complaints("aa", running=True, ours=set()) or ["", ""]
    assert "python (process 12)" in busy
    assert "improve cooling" in hot
    assert len(health.nvidia_complaints("aa", running=True, ours={"12"}) or []) == 1
    assert health.nvidia_complaints("bb", running=True, ours=set()) is None


def test_processes_of_others() -> None:
    text = f"GPU-aa, 1, python\nGPU-bb, 2, python\nGPU-aa, {health.os.getpid()}, plan\nGPU-aa, 9, plan\n"
    assert other_processes(text, "GPU-aa", {"9"}) == ["python (process 1)"]


def test_processors_that_others_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "proc" / "stat"
    stat.parent.mkdir()
    stat.write_text("cpu 0 0 0 0 0 0 0 0 0 0\n", encoding="ascii")

    def work_meanwhile(seconds: float) -> None:
        stat.write_text("cpu 1000000 0 0 0 0 0 0 0 0 0\n", encoding="ascii")

    monkeypatch.setattr(health.time, "sleep", lambda seconds: health.time.monotonic())
    quiet = Processors(tmp_path)
    monkeypatch.setattr(health.time, "monotonic", iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).__next__)
    assert not quiet.complaints(running=False)
    monkeypatch.setattr(health.time, "sleep", work_meanwhile)
    assert "processors busy" in quiet.complaints(running=False)[0]


def test_long_prefixes_are_measured_as_far_as_memory_goes() -> None:
    def longest(gib: float) -> int:
        return max(at["prefix"] for at in swept(gib))

    def swept(gib: float) -> list[Point]:
        return sweep("prefill_attention", quick=False, gpus=1, rates=FAST, free_bytes=gib * GIB, longest_s=5.0)

    assert longest(78.0) == 1_000_000
    assert 100_000 < longest(1.0) < 1_000_000
    chunks = {at["s"] for at in swept(78.0) if at["prefix"] == 1_000_000}
    assert {16, 32, 64, 128, 256, 512} <= chunks


@pytest.mark.parametrize("operation", OPERATIONS)
def test_quick_is_less(operation: str) -> None:
    counts = [
        len(sweep(operation, quick=quick, gpus=8, rates=FAST, free_bytes=78 * GIB, longest_s=5.0))
        for quick in (True, False)
    ]
    assert 12 <= counts[0] < counts[1]


def test_what_is_nonsense() -> None:
    at = point("gemm", m=8192, n=8192, k=8192)
    fastest = work(at).flops / PEAK.flops_per_s
    assert refusal(at, Sample((fastest * 1.2,) * 5), PEAK, 4e7) is None
    assert "FLOP/s" in str(refusal(at, Sample((fastest / 1.2,) * 5), PEAK, 4e7))
    assert "unstable" in str(refusal(at, Sample((1.0, 1.0, 1.5, 2.0, 2.0)), PEAK, 4e7))
    assert "timer" in str(refusal(at, Sample((0.0,) * 5), None, 4e7))
    cached = point("memory", kernel="copy", bytes=2 << 20)
    assert refusal(cached, Sample((2e-7,) * 5), PEAK, 4e7) is None
    assert "bandwidth" in str(refusal(point("memory", kernel="copy", bytes=2 << 30), Sample((1e-4,) * 5), PEAK, 4e7))


def test_one_run_at_a_time_holds_a_state(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    done = Done(point("gemm", m=1, n=2, k=3), 1e-3, 0.01, None, ("GPU busy: x",), "2026-11-25")
    with open_state(path, A100, "a100-sxm-80gb", FAST) as state:
        state.record(done)
        with pytest.raises(InputError, match="another calibration"):
            open_state(path, A100, "a100-sxm-80gb", None)
        with pytest.raises(InputError, match="another calibration"):
            discard_state(path)
    with open_state(path, A100, "a100-sxm-80gb", None) as again:
        assert list(again.done.values()) == [done]
        assert again.rates == FAST
    discard_state(path)
    discard_state(path)
    assert not path.exists()


def test_short_chunks_that_fill_a_tile_and_walk_all_keys(tmp_path: Path) -> None:
    """A kernel whose tiles take 128 queries however few there are, on a GPU with 108 multiprocessors."""
    pytest.importorskip("scipy")
    truth = op.PrefillAttentionFit(9e-6, 0.6, 0.8, 2.5, 20.0, 0.9, 1e-9, tile_rows=128.0)
    with open_state(tmp_path / "state.jsonl", A100, "a100-sxm-80gb", FAST) as state:
        for at in sweep("prefill_attention", quick=True, gpus=1, rates=FAST, free_bytes=78 * GIB, longest_s=0.5):
            time = op.prefill_attention_s(truth, PEAK, at["b"], at["s"], at["prefix"], at["hq"], at["hk"])
            state.record(Done(at, float(time), 0.0, None, (), "2026-11-25"))
        (fitted,), problems = fit_all(state, ["prefill_attention"], PEAK)
    assert not problems
    assert fitted.error["mape"] < 0.02
    assert fitted.parameters["tile_rows"] == pytest.approx(128, rel=0.02)
    assert fitted.parameters["chain"] == pytest.approx(0.9, rel=0.1)


def test_products_of_a_processor_are_not_padded_to_64_rows(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    peak = op.Peak(1e11, 1e10, 4)
    truth = op.GemmFit(5e-6, 0.8, 0.7, 2.0, 0.9, 0.85, 10.0, 2e-6, least_rows=4.0)
    slow = Rates(5e10, 5e9)
    with open_state(tmp_path / "state.jsonl", replace(A100, kind="cpu"), "cpu", slow) as state:
        for at in sweep("gemm", quick=True, gpus=1, rates=slow, free_bytes=16 * GIB, longest_s=0.5):
            time = float(op.gemm_s(truth, peak, at["m"], at["n"], at["k"]))
            state.record(Done(at, time, 0.0, None, (), "2026-11-25"))
        (fitted,), problems = fit_all(state, ["gemm"], peak)
    assert not problems
    assert fitted.error["mape"] < 0.04
    assert fitted.parameters["least_rows"] < 16


def test_peaks_of_a_device_without_a_data_sheet_are_its_fastest_points(tmp_path: Path) -> None:
    points = {
        point("gemm", m=64, n=1024, k=1024): 1e-3,
        point("memory", kernel="copy", bytes=1 << 28): 0.01,
        point("memory", kernel="copy", bytes=1 << 20): 1e-6,
        point("decode_attention", b=64, kv=1024, hq=8, hk=8): 0.01,
    }
    with open_state(tmp_path / "state.jsonl", replace(A100, cache_bytes=1e6), "mine", FAST) as state:
        for at, time in points.items():
            state.record(Done(at, time, 0.0, None, (), "2026-11-25"))
            if at.operation == "gemm":
                with pytest.raises(InputError, match="products and streams"):
                    best_rates(state)
        flops, moved = best_rates(state)
    assert flops == pytest.approx(2 * 64 * 1024 * 1024 / 1e-3)
    assert moved == pytest.approx((1 << 28) / 0.01, rel=0.05), "not what came from the cache"


def test_a_slow_device_has_at_least_one_multiprocessor() -> None:
    catalog = open_catalog()
    slow = catalog.get(Hardware, "l4").model_copy(update={"id": "slow", "flops": catalog.get(Hardware, "l4").flops})
    slow = slow.model_copy(update={"flops": slow.flops.model_copy(update={"bf16": 1e11})})
    assert machine(catalog, slow, "vllm").peak.multiprocessors == 1


def test_pretended_times_are_those_of_the_catalog() -> None:
    assert true_s(point("gemm", m=8192, n=8192, k=8192)) > 2 * 8192**3 / 312e12


def test_links_are_measured_by_copies_and_long_messages() -> None:
    def reduced(largest: int) -> Fitted:
        table = {
            "bytes": [4096.0, float(largest)],
            "s_2": [1e-5, largest / 200e9],
            "s_8": [1e-5, 1.75 * largest / 200e9],
        }
        return Fitted("all_reduce", {}, table, {"mape": 0.05}, {}, 4, 0, ())

    copies = Fitted("copies", {"h2d_bytes_per_s": 24e9, "d2h_bytes_per_s": 23e9}, {}, {"mape": 0.01}, {}, 8, 0, ())
    found = links([copies, reduced(1 << 29)])
    assert found["pcie"] == {"effective": 23e9}
    assert found["gpu_link"]["effective"] == pytest.approx(200e9)
    assert "gpu_link" not in links([reduced(1 << 26)])
    entry, problems = hardware(
        open_catalog(), open_catalog().get(Hardware, "l4"), [copies, reduced(1 << 29)], A100, date(2026, 11, 25)
    )
    assert entry is not None
    assert not problems
    assert entry.fields["pcie"]["effective"] == "23 GB/s"
    assert entry.fields["gpu_link"] is None
    fast = replace(copies, parameters={"h2d_bytes_per_s": 60e9, "d2h_bytes_per_s": 60e9})
    entry, problems = hardware(open_catalog(), open_catalog().get(Hardware, "l4"), [fast], A100, date(2026, 11, 25))
    assert entry is None
    assert "is this another GPU" in problems[0]
