"""``python -m scripts.engine_reference ENV``: answers to stdin; with ``--record``: the starts, recorded again.

``--check FILE`` compares recorded KV plans with what vLLM says now.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from catalog.load import open_catalog
from scripts.engine_reference.ask import ask
from scripts.engine_reference.cases import ENGINES, Case, covering_cases, refusal_of
from scripts.engine_reference.named import named_cases
from scripts.engine_reference.questions import differences, of_record, of_starts
from scripts.engine_reference.record import record, recorded_cases, write_record


def main() -> int:
    """Answer every line of stdin, record starts, or compare every line of a record with what vLLM says now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="virtual environment made from requirements.lock")
    parser.add_argument("--engine", default="vllm", help="who answers stdin: vllm, sglang or others")
    parser.add_argument("--place", type=Path, default=Path(".engine-reference"), help="for the stand-in and caches")
    parser.add_argument("--check", type=Path, help="recorded plans: tests/golden/vllm_kv_plans.jsonl")
    parser.add_argument("--record", action="store_true", help="write tests/golden/start_path; only changes are asked")
    choose = "with --record: choose these cases again, too: the planned and default ones, or all"
    parser.add_argument("--choose", choices=("named", "all"), help=choose)
    parser.add_argument("--only", action="append", choices=ENGINES, help="with --record: this engine; repeatable")
    given = parser.parse_args()
    given.place.mkdir(parents=True, exist_ok=True)
    if given.record:
        for engine in given.only or ENGINES:
            _record(engine, given.environment, given.place, choose=given.choose)
        return 0
    if given.check is None:
        questions = [json.loads(line) for line in sys.stdin if line.strip()]
        for said in ask(given.environment, given.engine, questions, given.place):
            print(json.dumps(said), flush=True)
        return 0
    return _check(given.environment, given.place, given.check)


def _record(engine: str, environment: Path, place: Path, *, choose: str | None) -> None:
    """Record an engine's starts: of the cases that are there already, or of those that the space has now."""
    catalog = open_catalog()
    cases: list[Case] = [replace(case, refused=refusal_of(case, catalog)) for case, _ in recorded_cases(engine)]
    covering = [case for case in cases if case.factors]
    if choose == "all" or not covering:
        covering = list(covering_cases(engine, catalog))
    named = [case for case in cases if not case.factors]
    if choose is not None or not cases:
        named = list(named_cases(engine, catalog))
    write_record(engine, record(engine, [*covering, *named], catalog, environment, place))


def _check(environment: Path, place: Path, record_file: Path) -> int:
    """Compare what a start answers with the record."""
    catalog = open_catalog()
    lines = record_file.read_text(encoding="utf-8").splitlines()
    records = of_starts(map(json.loads, lines))
    wrong = 0
    answers = ask(environment, "vllm", [of_record(record, catalog) for record in records], place)
    for row, said in zip(records, answers, strict=True):
        found = list(differences(row, said))
        wrong += bool(found)
        print(row["model"], row["extra"], "; ".join(found) or "as recorded", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
