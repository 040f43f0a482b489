"""What can't be written isn't planned, and of several targets the possible ones are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner import targets
from planner.emit.emit import ARRANGE, ENGINES
from tests.conftest import Output

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
MODEL = ("--model", "llama-3.1-8b")
SMALL = ("--ctx", "30K", "--no-gains", "--format", "json")


def test_every_target_has_a_record() -> None:
    assert set(targets.ENGINES) == set(ENGINES)
    assert set(targets.PLATFORMS) == set(ARRANGE)


@pytest.mark.parametrize(
    ("target", "gpus", "more"),
    [
        ("tensorrt-llm", "4xH100", ("--max-latency", "40ms")),
        ("ray", "4xH100", ("--max-latency", "40ms")),
        ("llama.cpp,compose", "2x2xA100", ()),
        ("sglang,kserve", "2x4xH100", ("--max-latency", "40ms")),
        # Published techniques that no flag expresses; windowed layers that LMCache's connector would keep whole.
        ("sglang,kubernetes", "2xA100", ("--techniques", "published")),
        ("vllm,lmcache", "2xA100", ("--model", "gemma-3-12b")),
    ],
)
def test_what_is_planned_for_a_target_is_written(
    plan: Callable[..., Output], tmp_path: Path, target: str, gpus: str, more: tuple[str, ...]
) -> None:
    model = () if "--model" in more else MODEL
    made = plan(*SMALL, *model, "--gpus", gpus, *more, "--target", target, "--emit", str(tmp_path / "d"))
    assert made.code == 0, made.stderr
    assert "NOT WRITTEN" not in made.stderr
    document = json.loads(made.stdout)
    assert any(f"--target {target}: " in text for text in document["provenance"]["assumptions"])
    for name in target.replace(",lmcache", "").split(","):
        assert any((tmp_path / "d").glob(f"{name}/*"))
    if target in ("tensorrt-llm", "ray"):
        assert {group["role"] for group in document["decision"]["groups"]} == {"serve"}
        assert "planned without separate pools" in " ".join(document["provenance"]["assumptions"])


def test_pools_are_planned_where_the_target_takes_them(plan: Callable[..., Output]) -> None:
    """The request for which TensorRT-LLM and Ray get one pool is best served by two."""
    made = plan(*SMALL, *MODEL, "--gpus", "4xH100", "--max-latency", "40ms", "--target", "vllm,kubernetes")
    assert [group["role"] for group in json.loads(made.stdout)["decision"]["groups"]] == ["prefill", "decode"]


def test_possible_targets_are_written_and_the_others_told(plan: Callable[..., Output], tmp_path: Path) -> None:
    source = str(PLANS / "deepseek-v3-two-servers.json")
    made = plan("emit", source, "--target", "kubernetes,compose", "-o", str(tmp_path / "d"))
    assert made.code == 0
    assert "NOT WRITTEN: --target compose: the plan uses 16 GPUs" in made.stderr
    assert (tmp_path / "d" / "kubernetes" / "kubernetes.yaml").exists()
    assert not (tmp_path / "d" / "compose").exists()
    told = json.loads((tmp_path / "d" / "provenance.json").read_text())["not_written"]
    assert len(told) == 1
    none = plan("emit", source, "--target", "compose", "-o", str(tmp_path / "e"))
    assert none.code == 2
    assert "compose runs on one server" in none.stderr
    assert not (tmp_path / "e").exists()


def test_two_engines_are_one_too_many(plan: Callable[..., Output]) -> None:
    made = plan(*SMALL, *MODEL, "--gpus", "4xH100", "--engine", "sglang", "--target", "vllm")
    assert (made.code, "two engines; name one" in made.stderr) == (2, True)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        (("--engine", "lmdeploy", "--target", "ray"), "plan with --engine vllm\n"),
        (("--target", "sglang,ray"), "name another --target\n"),
    ],
)
def test_no_engine_is_advised_that_the_target_refuses(
    plan: Callable[..., Output], asked: tuple[str, ...], advice: str
) -> None:
    made = plan(*SMALL, "--gpus", "1xH100", *asked)
    assert (made.code, made.stdout) == (2, "")
    assert made.stderr.endswith(advice)


def test_a_published_kv_format_is_planned_only_where_the_target_keeps_it(
    plan: Callable[..., Output], tmp_path: Path
) -> None:
    """Published techniques are open to every GPU, and TensorRT-LLM's files hold NVFP4 caches on Blackwell only."""
    asked = ("--model", "yi-34b-200k", "--ctx", "4K", "--gpus", "2xH100", "--max-quality-loss", "10%", "--no-gains")
    made = plan(*asked, "--techniques", "published", "--target", "tensorrt-llm", "--emit", tmp_path / "d")
    assert made.code == 0, made.stderr
