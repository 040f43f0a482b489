"""A real llama.cpp starts with the flags of every recorded case, on a model of random numbers made here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.engine_reference.record import recorded_cases
from tests.acceptance.test_emit_llama_cpp import SERVER, make_model

SLOT_TOKENS, SLOTS, BATCH = 512, 2, 128
ELEMENT_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}

pytestmark = pytest.mark.slow


def commands() -> list[dict[str, Any]]:
    """Return the flags of every recorded start, scaled to the small model; each different one once."""
    found: dict[str, dict[str, Any]] = {}
    for _, starts in recorded_cases("llama.cpp"):
        for start in starts:
            words = start["words"][1:]
            pairs = zip(words, [*words[1:], "--"], strict=True)
            flags: dict[str, Any] = {
                word.removeprefix("--"): True if after.startswith("--") else after
                for word, after in pairs
                if word.startswith("--")
            }
            assert int(flags["ctx-size"]) % int(flags["parallel"]) == 0
            flags |= {"parallel": SLOTS, "ctx-size": SLOTS * SLOT_TOKENS, "batch-size": BATCH, "ubatch-size": BATCH}
            flags |= {"cache-ram": min(int(flags["cache-ram"]), 64), "alias": "tiny"}
            for name in ("rope-scaling", "rope-scale", "yarn-orig-ctx"):
                flags.pop(name, None)  # the small model's window is long enough
            found[json.dumps(flags, sort_keys=True)] = flags
    return list(found.values())


@pytest.mark.parametrize("flags", commands(), ids=lambda flags: f"{flags['cache-type-k']}-{flags['split-mode']}")
def test_llama_cpp_starts(flags: dict[str, Any], tmp_path: Path) -> None:
    given = {**flags, "model": str(make_model(tmp_path))}
    run = subprocess.run(
        [sys.executable, str(SERVER), json.dumps(given), "100"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=True,
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    assert (seen["slots"], seen["context"]) == (SLOTS, SLOT_TOKENS)
    assert all(usage["completion_tokens"] >= 1 for usage in seen["answers"])
    kinds = re.findall(r"K \((\w+)\).*V \((\w+)\)", run.stderr)
    assert (flags["cache-type-k"], flags["cache-type-v"]) in kinds
