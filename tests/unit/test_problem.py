import pytest

from catalog.load import open_catalog
from planner.problem import resolve
from planner.request import Request


def _engines(**asked: object) -> set[str]:
    return {engine.id for engine in resolve(Request(ctx=100_000, gpus="8xA100", **asked), open_catalog([])).engines}  # type: ignore[arg-type]


def test_engines_that_nobody_measured_are_not_chosen_unless_named() -> None:
    assert _engines() == {"vllm", "sglang", "tensorrt-llm"}
    assert _engines(engine="llama.cpp") == {"llama.cpp"}
    problem = resolve(Request(ctx=100_000, gpus="8xA100"), open_catalog([]))
    assert any("llama.cpp, lmdeploy" in assumption for assumption in problem.assumptions)


@pytest.mark.parametrize("engine", ["llama.cpp", "lmdeploy"])
def test_at_theoretical_peak_all_engines_are_equal(engine: str) -> None:
    assert engine in _engines(efficiency="peak")
