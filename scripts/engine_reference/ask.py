"""Ask vLLM's environment; used by ``python -m scripts.engine_reference`` and by the slow tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.engine_reference.stub import driver_stub

_ANSWER = "ANSWER "


def ask(environment: Path, questions: Iterable[Mapping[str, Any]], place: Path, log: Path) -> Iterator[dict[str, Any]]:
    """Yield vLLM's answers in the order of the questions, as they come.

    Parameters
    ----------
    environment
        A virtual environment with the official vLLM wheel.
    questions
        ``name``, ``gpu`` (capability, name, memory_bytes, count), ``config`` (the model's ``config.json``),
        ``arguments`` (what follows ``vllm serve MODEL``), ``environment``, and ``available_bytes`` for KV on every
        rank; None: only parse and check.
    place
        Directory for the driver's stand-in and vLLM's caches.
    log
        File for what vLLM says while it works.
    """
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LD_LIBRARY_PATH": str(driver_stub(environment, place / "stub")),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CACHE_ROOT": str(place / "vllm-cache"),
    }
    asked = place / "questions.jsonl"
    asked.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    command = [environment / "bin" / "python", Path(__file__).with_name("answer.py")]
    with (
        log.open("w", encoding="utf-8") as errors,
        asked.open(encoding="utf-8") as given,
        subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
        ) as process,
    ):
        for line in process.stdout or ():
            if line.startswith(_ANSWER):
                yield json.loads(line.removeprefix(_ANSWER))
    if process.returncode:
        raise RuntimeError(f"vLLM's environment left with {process.returncode}; see {log}")
