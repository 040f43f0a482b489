"""The commands that check quality are ones that the engines take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog.load import open_catalog
from planner.emit.checks import uncompressed_words
from planner.emit.emit import ENGINES
from planner.emit.flags import problems_of_flags
from planner.emit.read_deployment import read_deployment
from tests.plans import plan_of

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
CATALOG = open_catalog()


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.json")), ids=lambda path: path.stem)
def test_the_uncompressed_engine_starts_from_its_command(path: Path) -> None:
    deployment = read_deployment(plan_of(json.loads(path.read_text())), CATALOG)
    launch = ENGINES[deployment.engine.id](deployment, deployment.engine.version)[-1]
    words = uncompressed_words(deployment, launch)
    single = len(deployment.pools) == 1 and launch.nodes == 1
    assert (words is None) == (not single or deployment.engine.id not in ("vllm", "sglang"))
    if words is None:
        return
    assert words.count(deployment.model_source) == 1
    given = [(word, after) for word, after in zip(words, [*words[1:], "--"], strict=True) if word.startswith("--")]
    flags = tuple((name, True if after.startswith("--") else after) for name, after in given)
    assert problems_of_flags(flags, launch.engine, launch.version) == []
    assert dict(flags)["--kv-cache-dtype"] == "bfloat16"
    assert not {"--quantization", "--kv-cache-memory-bytes", "--max-total-tokens"} & set(dict(flags))
    assert not any("{" in str(value) and "}" in str(value) and ":" not in str(value) for value in words)
