"""``python -m scripts.vllm_reference ENV [--place DIR] < questions.jsonl``: one answer per line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scripts.vllm_reference.ask import ask


def main() -> int:
    """Read questions from stdin and print answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="virtual environment with the official vLLM wheel")
    parser.add_argument("--place", type=Path, default=Path(".vllm-reference"), help="for the stand-in and caches")
    given = parser.parse_args()
    given.place.mkdir(parents=True, exist_ok=True)
    questions = [json.loads(line) for line in sys.stdin if line.strip()]
    for said in ask(given.environment, questions, given.place, given.place / "log"):
        print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
