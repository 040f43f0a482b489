"""``python -m scripts.engine_reference ENV [--check FILE]``: answers to stdin, or a check of recorded KV plans."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scripts.engine_reference.ask import ask


def main() -> int:
    """Answer every line of stdin, or compare every line of a record with what vLLM says now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="virtual environment with the official vLLM wheel")
    parser.add_argument("--place", type=Path, default=Path(".engine-reference"), help="for the stand-in and caches")
    parser.add_argument("--check", type=Path, help="recorded plans: tests/golden/vllm_kv_plans.jsonl")
    given = parser.parse_args()
    given.place.mkdir(parents=True, exist_ok=True)
    log = given.place / "log"
    if given.check is None:
        questions = [json.loads(line) for line in sys.stdin if line.strip()]
        for said in ask(given.environment, questions, given.place, log):
            print(json.dumps(said), flush=True)
        return 0
    return _check(given.environment, given.place, given.check)


def _check(environment: Path, place: Path, record_file: Path) -> int:
    """Compare; rows that were planned after vLLM's start-up alignment are asked without it, and left out."""
    from catalog.load import open_catalog
    from scripts.engine_reference.questions import differences, of_record

    catalog = open_catalog()
    lines = record_file.read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if not record["aligned"]]
    wrong = 0
    answers = ask(environment, [of_record(record, catalog) for record in records], place, place / "log")
    for record, said in zip(records, answers, strict=True):
        found = list(differences(record, said))
        wrong += bool(found)
        print(record["model"], record["extra"], "; ".join(found) or "as recorded", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
