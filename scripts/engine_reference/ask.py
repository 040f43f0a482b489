"""Ask the engines' environment; used by ``python -m scripts.engine_reference`` and by the slow tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.engine_reference.stub import driver_stub

_ANSWER = "ANSWER "


def ask(environment: Path, engine: str, questions: Iterable[Mapping[str, Any]], place: Path) -> list[dict[str, Any]]:
    """Return an engine's answers in the order of the questions.

    One process answers all of them; it imports the engine once for each GPU.

    Parameters
    ----------
    environment
        A virtual environment made from ``requirements.lock``.
    engine
        Whose ``start_*.py`` answers: vllm, sglang or others.
    questions
        ``name``, ``gpu`` (capability, name, memory_bytes, count), ``config`` (the model's ``config.json``), ``words``
        (the command), ``environment``, and what the engine's module says.
    place
        Directory for the driver's stand-in, caches, and ``log-ENGINE``: what the engine says while it works.
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
        "HUMMING_DISABLE_PARALLEL_BUILD": "1",
        "OMP_NUM_THREADS": "1",
    }
    place.mkdir(parents=True, exist_ok=True)
    log = place / f"log-{engine}"
    asked = place / f"questions-{engine}.jsonl"
    asked.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    command = [environment / "bin" / "python", Path(__file__).with_name("answer.py"), engine]
    answers: dict[int, dict[str, Any]] = {}
    with (
        log.open("w", encoding="utf-8") as errors,
        asked.open(encoding="utf-8") as given,
        subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
        ) as process,
    ):
        for line in process.stdout or ():
            if line.startswith(_ANSWER):
                said = json.loads(line.removeprefix(_ANSWER))
                answers[said.pop("number")] = said
    if process.returncode:
        raise RuntimeError(f"the engines' environment left with {process.returncode}; see {log}")
    return [answers[number] for number in sorted(answers)]
