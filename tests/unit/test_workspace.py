"""What a step takes of HBM, against the buffers that llama.cpp 11549 reported for models of random numbers."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.architecture import read_config
from catalog.load import Catalog, built_in_directory
from catalog.schema import Engine, StepMemory
from planner.cost.workspace import LEAST_TOKENS, MASK_SHARE, step_bytes, step_tokens
from planner.efficiency import efficiency_of, planned_step_tokens
from planner.problem import Problem, resolve
from planner.request import read_request

FACTS = Catalog([built_in_directory()])
ENGINE = FACTS.get(Engine, "llama.cpp")
SMALL = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 3072}
EIGHT_B = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336}
EXPERTS = {
    "model_type": "mixtral",
    "hidden_size": 1024,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 768,
    "num_local_experts": 16,
    "num_experts_per_tok": 8,
}


def step() -> StepMemory:
    assert ENGINE.memory is not None
    assert ENGINE.memory.step is not None
    return ENGINE.memory.step


def architecture(**widths: Any) -> Any:
    config = {"model_type": "llama", "num_hidden_layers": 3, "vocab_size": 4000, "head_dim": 128} | widths
    return read_config({**config, "max_position_embeddings": 1 << 22})


@pytest.mark.parametrize(
    ("widths", "session", "tokens", "mib"),
    [
        (EIGHT_B, 102_144, 2048, 895.1),
        (EIGHT_B, 1_002_240, 2048, 4411.1),
        (EIGHT_B, 32_000, 512, 155.3),
        (SMALL, 32_000, 512, 59.3),
        (SMALL, 4096, 2048, 128.1),
        (EXPERTS, 32_000, 1024, 154.5),
    ],
)
def test_a_step_takes_what_llama_cpp_reserves_and_little_more(
    widths: dict[str, Any], session: int, tokens: int, mib: float
) -> None:
    """On a processor, which reads caches as they are stored."""
    on_processor = step().model_copy(update={"unpacked_kv_bytes": 0.0})
    predicted = step_bytes(on_processor, architecture(**widths), tokens, session) / 2**20
    assert mib <= predicted * 1.001
    assert predicted <= 1.35 * mib


def test_the_mask_grows_with_the_session_and_the_step() -> None:
    model = architecture(**EIGHT_B)
    longer = step_bytes(step(), model, 2048, 1_000_000) - step_bytes(step(), model, 2048, 500_000)
    assert longer == 500_000 * (2 * 2048 + 2 * 2 * 8 * 128)


@pytest.mark.parametrize("hbm", [24e9, 80e9, 192e9])
@pytest.mark.parametrize("session", [1000, 100_000, 1_000_000, 100_000_000])
def test_a_step_is_small_enough_for_its_mask(hbm: float, session: int) -> None:
    tokens = step_tokens(step(), session, hbm)
    assert LEAST_TOKENS <= tokens <= 2048
    assert tokens == LEAST_TOKENS or 2 * tokens * session <= MASK_SHARE * hbm
    assert tokens == 2048 or 4 * tokens * session > MASK_SHARE * hbm


def problem(ctx: str, engine: str = "llama.cpp") -> Problem:
    request = {"model": "llama-3.1-8b-ultralong-1m", "gpus": "1xH200", "ctx": ctx, "engine": engine}
    return resolve(read_request(request, "test"), FACTS)


def test_the_workspace_of_a_plan_holds_the_step_of_its_longest_session() -> None:
    short, long = (efficiency_of(problem(ctx), "llama.cpp").workspace_bytes for ctx in ("32K", "1M"))
    assert long - short > 2 * 2048 * 960_000
    assert planned_step_tokens(problem("1M"), ENGINE) == 2048
    vllm = FACTS.get(Engine, "vllm")
    assert planned_step_tokens(problem("1M", "vllm"), vllm) is None
    assert len({efficiency_of(problem(ctx, "vllm"), "vllm").workspace_bytes for ctx in ("32K", "1M")}) == 1
