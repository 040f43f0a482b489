"""`plan calibrate` through the command line, on a GPU that isn't there (tests/calibrating.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from planner.calibrate import backend
from planner.calibrate.sweeps import Point
from tests.calibrating import A100, FakeBackend
from tests.conftest import Output

Plan = Callable[..., Output]
Use = Callable[[FakeBackend], FakeBackend]
ROOT = Path(__file__).parents[2]
REQUEST = ("--ctx", "120K", "--gpus", "1xA100", "--model", "llama-3.1-8b", "--engine", "vllm", "--format", "json")
STATE = "calibration.jsonl"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Let the command measure on a given device."""

    def replaced(fake: FakeBackend) -> FakeBackend:
        monkeypatch.setattr(backend, "open_backend", lambda wanted: fake)
        return fake

    return replaced


def attention_slower(at: Point) -> float:
    return {"prefill_attention": 1.5, "all_reduce": 3.0}.get(at.operation, 1.0)


def test_plans_use_what_was_measured_and_say_so(plan: Plan, use: Use, tmp_path: Path) -> None:
    overlay = tmp_path / "mine"
    as_json = ("--catalog", overlay, "--format", "json")
    overlay.mkdir()
    (overlay / "README.txt").write_text("mine", encoding="utf-8")
    before = plan("evaluate", *REQUEST).json
    fake = use(FakeBackend(slower=attention_slower))
    done = plan("calibrate", "-o", overlay, "--quick", "--format", "json")
    assert done.code == 0, done.stderr
    assert fake.closed
    assert done.json["hardware"] == "a100-sxm-80gb"
    errors = {row["operation"]: row["error"]["mape"] for row in done.json["operations"]}
    assert set(errors) == {"prefill_attention", "decode_attention", "gemm", "elementwise", "copies", "all_reduce"}
    assert max(error for name, error in errors.items() if name != "all_reduce") < 0.03
    chunks = [p for p in fake.measured if p.operation == "prefill_attention" and p["prefix"] >= 1_000_000]
    assert {16, 64, 128, 512} <= {p["s"] for p in chunks}
    assert "gemm: 63 points" in done.stderr

    assert plan("catalog", "validate", overlay).code == 0
    after = plan("--catalog", overlay, "evaluate", *REQUEST).json
    assert after["metrics"]["prefill_s"] > 1.1 * before["metrics"]["prefill_s"]
    assert after["metrics"]["decode_s"] == pytest.approx(before["metrics"]["decode_s"], rel=0.05)
    # 23 GB/s, where the catalog takes 20.
    assert after["metrics"]["switch_s"] == pytest.approx(before["metrics"]["switch_s"] * 20 / 23, rel=0.03)
    told, built_in = (" ".join(document["provenance"]["assumptions"]) for document in (after, before))
    assert "prefill attention, decode attention" in told
    assert "measured on this machine (gpu7) on " in told
    assert "chunks over a longer prefix" in built_in
    assert "extrapolated" not in told
    # Nothing is extrapolated any more, so that the interval is narrower.
    (low, high), (was_low, was_high) = (document["intervals"]["prefill_s"] for document in (after, before))
    assert high / low < 0.9 * was_high / was_low
    sources = {source["entry"]: source["provenance"] for source in after["provenance"]["sources"]}
    assert sources["a100-sxm-80gb-vllm-prefill-attention"] == "measured"
    # Products are those of every engine; attention is vLLM's, and small all-reduces stay its own kernel's.
    entries = {path.stem for path in (overlay / "measurements").iterdir()}
    assert {"a100-sxm-80gb-vllm-gemm", "a100-sxm-80gb-sglang-gemm", "a100-sxm-80gb-tensorrt-llm-gemm"} <= entries
    assert "a100-sxm-80gb-sglang-decode-attention" not in entries
    times = json.loads(plan("catalog", "show", "measurements", "a100-sxm-80gb-vllm-all-reduce", *as_json).stdout)
    rows = dict(zip(times["table"]["bytes"], times["table"]["s_8"], strict=True))
    assert rows[1 << 14] < 1.2 * 6.5e-6, "the built-in kernel, not three times that"
    assert rows[1 << 26] > 2.5 * 5.9e-4
    assert (overlay / "README.txt").read_text(encoding="utf-8") == "mine"
    hardware = json.loads(plan("catalog", "show", "hardware", "A100", "--catalog", overlay, "--format", "json").stdout)
    assert any("measured on this machine (gpu7)" in str(source) for source in hardware["sources"])


def test_an_interrupted_run_goes_on_where_it_was(plan: Plan, use: Use, tmp_path: Path) -> None:
    arguments = ("calibrate", "-o", tmp_path / "o", "--quick", "--only", "decode-attention,copies")

    def interrupt(at: Point) -> None:
        if len(first.measured) == 7:
            raise KeyboardInterrupt

    first = use(FakeBackend(hook=interrupt))
    stopped = plan(*arguments)
    assert stopped.code == 130
    assert "run the same command again" in stopped.stderr
    assert not (tmp_path / "o" / "measurements").exists()
    second = use(FakeBackend())
    resumed = plan(*arguments)
    assert resumed.code == 0
    assert "28 points to measure, about 1 min; 7 are there already" in resumed.stderr
    keys = [at.key for at in first.measured + second.measured]
    assert len(keys) == len(set(keys)) == 23 + 12
    third = use(FakeBackend())
    again = plan(*arguments, "--resume", "--format", "json")
    assert (again.code, third.measured, again.json["points_measured_now"]) == (0, [], 0)


KILLED = """
import os, signal, sys
from pathlib import Path
import cli
from planner.calibrate import backend
from tests.calibrating import FakeBackend

def die(at):
    if len(fake.measured) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

fake = FakeBackend(hook=die)
backend.open_backend = lambda wanted: fake
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_run_loses_at_most_the_point_it_was_at(plan: Plan, use: Use, tmp_path: Path) -> None:
    arguments = ("calibrate", "-o", str(tmp_path / "o"), "--quick", "--only", "decode-attention")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    state = tmp_path / "o" / STATE
    assert len(state.read_text(encoding="utf-8").splitlines()) == 1 + 5
    with state.open("a", encoding="utf-8") as stream:
        stream.write('{"operation": "decode_att')  # A line that a crash tore.
    fake = use(FakeBackend())
    assert plan(*arguments).code == 0
    assert len(fake.measured) == 23 - 5
    lines = [json.loads(line) for line in state.read_text(encoding="utf-8").splitlines()]
    sizes = [json.dumps(line["sizes"], sort_keys=True) for line in lines if "sizes" in line]
    assert len(sizes) == len(set(sizes)) == 23


def test_a_busy_device_is_refused_with_advice(plan: Plan, use: Use, tmp_path: Path) -> None:
    arguments = ("calibrate", "-o", tmp_path / "o", "--quick", "--only", "copies")
    busy = "GPU busy: python (process 7) on it; stop them or choose another GPU with CUDA_VISIBLE_DEVICES"
    fake = use(FakeBackend())
    fake.troubles = [[busy]]
    refused = plan(*arguments)
    assert refused.code == 2
    assert "choose another GPU" in refused.stderr
    assert "--force" in refused.stderr
    assert not (tmp_path / "o").exists()
    assert not fake.measured
    fake.troubles = [[busy], [busy]]
    forced = plan(*arguments, "--force")
    assert forced.code == 0
    assert "12 of 12 points: GPU busy" in " ".join(forced.stdout.split())


def test_a_gpu_that_stays_throttled_stops_the_run_and_keeps_its_points(
    plan: Plan, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.calibrate.run.CHECK_EVERY_S", 0.0)
    monkeypatch.setattr("planner.calibrate.run.PAUSE_S", 0.0)
    hot = "GPU throttled: the driver slows its clocks, since the GPU is hot; improve cooling and let it cool down"
    fake = use(FakeBackend())
    fake.troubles = [[], [], [], [hot], [hot], []] + [[hot]] * 20
    arguments = ("calibrate", "-o", tmp_path / "o", "--quick", "--only", "copies")
    stopped = plan(*arguments)
    assert stopped.code == 2
    assert "waiting" in stopped.stderr
    assert "let it cool down" in stopped.stderr
    assert "stopped after 2 points, which are kept" in stopped.stderr
    fake.troubles = []
    assert plan(*arguments).code == 0
    assert len(fake.measured) == 12


@pytest.mark.parametrize(
    ("fake", "told"),
    [
        (FakeBackend(spread=0.2), "unstable"),
        (FakeBackend(slower=lambda at: 0.1), "impossible"),
        (FakeBackend(slower=lambda at: 8.0), "another GPU"),
    ],
)
def test_nonsense_is_not_written(plan: Plan, use: Use, tmp_path: Path, fake: FakeBackend, told: str) -> None:
    use(fake)
    refused = plan("calibrate", "-o", tmp_path / "o", "--quick", "--only", "gemm")
    assert refused.code == 2
    assert told in refused.stderr
    assert not (tmp_path / "o" / "measurements").exists()


def test_files_and_states_of_others_are_kept(plan: Plan, use: Use, tmp_path: Path) -> None:
    directory = tmp_path / "o"
    entry = directory / "hardware" / "a100-sxm-80gb.yaml"
    entry.parent.mkdir(parents=True)
    entry.write_text("mine", encoding="utf-8")
    arguments = ("calibrate", "-o", directory, "--quick", "--only", "copies")
    fake = use(FakeBackend())
    refused = plan(*arguments)
    assert refused.code == 2
    assert str(entry) in refused.stderr
    assert not fake.measured
    assert entry.read_text(encoding="utf-8") == "mine"
    assert plan(*arguments, "--force").code == 0
    assert "effective: 23" in entry.read_text(encoding="utf-8")
    assert plan(*arguments).code == 0, "what it wrote itself may be written anew"
    entry.write_text(entry.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert plan(*arguments).code == 2
    entry.unlink()

    use(FakeBackend(replace(A100, software="PyTorch 2.14.0, CUDA 13.1")))
    other = plan(*arguments)
    assert other.code == 2
    assert "software: PyTorch 2.13.0, CUDA 12.9 then, PyTorch 2.14.0, CUDA 13.1 now" in other.stderr
    assert plan(*arguments, "--restart").code == 0
    assert plan("calibrate", "-o", tmp_path / "none", "--resume").code == 2
    (directory / STATE).write_text("nonsense\n", encoding="utf-8")
    assert "--restart" in plan(*arguments).stderr


def test_a_gpu_that_the_catalog_lacks(plan: Plan, use: Use, tmp_path: Path) -> None:
    unknown = replace(A100, name="NVIDIA GeForce RTX 3090", count=1, capability="8.6")
    use(FakeBackend(unknown))
    directory = tmp_path / "o"
    arguments = ("calibrate", "-o", directory, "--quick", "--only", "memory,gemm,copies")
    asked = plan(*arguments)
    assert asked.code == 2
    assert "'NVIDIA GeForce RTX 3090'" in asked.stderr
    assert "--new" in asked.stderr
    assert plan(*arguments, "--gpu", "rtx-4091").code == 2
    told = plan("calibrate", "-o", tmp_path / "p", "--quick", "--only", "memory", "--new")
    assert "needs products and streams" in told.stderr
    assert plan(*arguments, "--new").code == 0
    assert plan("catalog", "validate", directory).code == 0
    request = ("--ctx", "32K", "--gpus", "1xrtx-3090", "--model", "llama-3.1-8b", "--engine", "vllm")
    priced = plan("--catalog", directory, "evaluate", *request, "--format", "json")
    assert priced.code == 0, priced.stderr


def test_a_missing_pytorch_is_told(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    told = plan("calibrate", "-o", tmp_path / "o")
    assert told.code == 2
    assert "pip install 'plan-llm[calibrate]'" in told.stderr
    assert "unknown; choose from" in plan("calibrate", "--only", "flops").stderr


def test_what_a_machine_has_none_of(plan: Plan, use: Use, tmp_path: Path) -> None:
    use(FakeBackend(replace(A100, count=1)))
    told = plan("calibrate", "-o", tmp_path / "o", "--quick", "--only", "copies,all-reduce")
    assert told.code == 2
    assert "needs several devices" in told.stderr
    assert (tmp_path / "o" / "hardware" / "a100-sxm-80gb.yaml").is_file(), "the rest is written"


def test_kernels_that_engines_do_not_call_are_not_taken_for_theirs(plan: Plan, use: Use, tmp_path: Path) -> None:
    fake = use(FakeBackend())
    fake.doubtful = {"decode_attention": ["older kernels: engines call FA3 on this GPU; install FlashAttention 3"]}
    arguments = ("calibrate", "-o", tmp_path / "o", "--quick", "--only", "decode-attention,copies")
    told = plan(*arguments)
    assert told.code == 2
    assert "install FlashAttention 3; or add --force" in told.stderr
    assert {at.operation for at in fake.measured} == {"copies"}
    forced = plan(*arguments, "--force", "--format", "json")
    assert forced.code == 0
    (attention,) = (one for one in forced.json["operations"] if one["operation"] == "decode_attention")
    assert attention["despite"] == [
        "23 of 23 points: older kernels: engines call FA3 on this GPU; install FlashAttention 3"
    ]
    fake.wrong = {"gemm": ["off by 3"]}
    wrong = plan("calibrate", "-o", tmp_path / "p", "--quick", "--only", "gemm,copies", "--force")
    assert (wrong.code, "gemm: off by 3" in wrong.stderr) == (2, True)
