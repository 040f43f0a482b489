"""Compare what aiperf measured with what the plan predicts.

    python3 check_speed.py [RESULTS]

Reads ``plan.json`` beside this file, and below RESULTS (``results``) the requests of the two runs: ``alone``, one
user at a time, and ``users``, all planned users at once. Ends with 1 if requests failed, or if later questions didn't
find their document in the cache.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

CACHED_AT_LEAST = 0.9
"""Share of a later question's prompt that comes from the cache where the plan keeps caches."""


def main(arguments: list[str]) -> int:
    """Print the comparison; return the exit code."""
    plan = json.loads((Path(__file__).parent / "plan.json").read_text(encoding="utf-8"))
    results = Path(arguments[0] if arguments else "results")
    try:
        alone, users = (read_requests(results / run / "profile_export.jsonl") for run in ("alone", "users"))
    except OSError as error:
        print(f"{error.filename}: can't be read; run the two aiperf commands of README.md first", file=sys.stderr)
        return 2
    measured = {"alone": measure(alone), "users": measure(users)}
    for line in table(plan, measured):
        print(line)
    problems = judge(plan, measured)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def read_requests(path: Path) -> list[dict[str, Any]]:
    """Return the requests of a run, in the order in which they were sent."""
    lines = path.read_text(encoding="utf-8").splitlines()
    requests = [json.loads(line) for line in lines if line.strip()]
    kept = [r for r in requests if r["metadata"].get("benchmark_phase", "profiling") == "profiling"]
    return sorted(kept, key=lambda r: int(r["metadata"]["request_start_ns"]))


def measure(requests: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return what a run measured, by the name that the plan gives it."""
    good = [r for r in requests if not r.get("error")]
    gaps = [gap for r in good for gap in value(r, "inter_chunk_latency") or []]
    return {
        "ttft_s": middle([value(r, "time_to_first_token") for r in good if turn(r) == 0]),
        "warm_ttft_s": middle([value(r, "time_to_first_token") for r in good if turn(r) > 0]),
        "itl_s": statistics.quantiles(gaps, n=100)[98] / 1000 if len(gaps) > 1 else None,
        "tpot_s": middle([value(r, "inter_token_latency") for r in good], statistics.fmean),
        "interactions_per_hour": answers_per_hour(good),
        "cached": cached_share([r for r in good if turn(r) > 0]),
        "failed": float(len(requests) - len(good)),
        "at_once": float(max((there for there, _ in open_sessions(requests)), default=0)),
    }


def value(request: dict[str, Any], name: str) -> Any:
    """Return a measurement of a request, None if it has none; times are in ms."""
    found = request["metrics"].get(name)
    return None if found is None else found["value"]


def turn(request: dict[str, Any]) -> int:
    """Return which question of its session a request asks, from 0."""
    return int(request["metadata"]["turn_index"])


def middle(times_ms: list[float | None], of: Any = statistics.median) -> float | None:
    """Return the median, or another mean, of times that are there [s]."""
    found = [time for time in times_ms if time is not None]
    return of(found) / 1000 if found else None


def answers_per_hour(requests: list[dict[str, Any]]) -> float | None:
    """Return the rate while all users were there: neither while they came, nor while the last ones left."""
    counts = open_sessions(requests)
    if not counts:
        return None
    most = max(there for there, _ in counts)
    full = [index for index, (there, _) in enumerate(counts) if there == most]
    start, end = counts[full[0]][1], counts[full[-1] + 1][1]
    answered = sum(start < r["metadata"]["request_end_ns"] <= end for r in requests)
    return answered / ((end - start) / 1e9) * 3600 if end > start else None


def open_sessions(requests: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return how many sessions were open from when on, at every change [ns]."""
    spans: dict[str, list[int]] = {}
    for request in requests:
        data = request["metadata"]
        spans.setdefault(data["x_correlation_id"], []).extend((data["request_start_ns"], data["request_end_ns"]))
    changes = sorted([(min(t), 1) for t in spans.values()] + [(max(t), -1) for t in spans.values()])
    there, counts = 0, []
    for time, change in changes:
        there += change
        counts.append((there, time))
    return counts


def cached_share(requests: list[dict[str, Any]]) -> float | None:
    """Return the share of prompt tokens that came from the cache, of 1; None if the engine doesn't say."""
    known = [r for r in requests if value(r, "usage_prompt_cache_read_tokens") is not None]
    prompts = sum(value(r, "usage_prompt_tokens") for r in known)
    return sum(value(r, "usage_prompt_cache_read_tokens") for r in known) / prompts if prompts else None


ROWS = (
    ("time to first token, whole document, median", "ttft_s", "s"),
    ("time to first token, later question, median", "warm_ttft_s", "s"),
    ("time between tokens, worst step (99 % of gaps)", "itl_s", "s"),
    ("time per output token, mean", "tpot_s", "s"),
    ("answers per hour", "interactions_per_hour", ""),
)
"""What is compared -> the plan's name of it, and its unit."""
Measured = dict[str, dict[str, float | None]]


def table(plan: dict[str, Any], measured: Measured) -> list[str]:
    """Return the comparison, two lines per time: of one user alone, and of all with every slot taken."""
    lines = [line("", "predicted", "80 % interval", "measured")]
    for name, key, unit in ROWS:
        for run, level in (("alone", "idle"), ("users", "full")):
            if unit or run == "users":
                ends = told(plan.get("intervals"), key, level) or ()
                between = " to ".join(shown(bound, unit) for bound in ends) or "-"
                who = f"{name}, {'one user alone' if run == 'alone' else 'all users'}"
                lines.append(
                    line(who, shown(told(plan["metrics"], key, level), unit), between, shown(measured[run][key], unit))
                )
    cached = [measured[run]["cached"] for run in ("alone", "users")]
    for run, share in zip(("one user alone", "all users"), cached, strict=True):
        text = "not told" if share is None else f"{share:.1%}"
        lines.append(line(f"later prompts from the cache, {run}", "", "", text))
    for run, who in (("alone", "one user alone"), ("users", "all users")):
        lines.append(line(f"requests that failed, {who}", "0", "", f"{measured[run]['failed']:.0f}"))
    return lines


def told(part: Any, key: str, level: str) -> Any:
    """Return what a plan's metrics or intervals say of a quantity, a time at a level of load; None if nothing."""
    found = part or {}
    return found.get("latency", {}).get(key, {}).get(level) if key.endswith("_s") else found.get(key)


def line(*cells: str) -> str:
    """Return cells in columns."""
    return " ".join([f"{cells[0]:64}", f"{cells[1]:>12}", f"{cells[2]:>24}", *(f"{cell:>12}" for cell in cells[3:])])


def shown(number: float | None, unit: str) -> str:
    """Return a number with its unit."""
    return "-" if number is None else f"{number:.4g} {unit}".strip()


def judge(plan: dict[str, Any], measured: Measured) -> list[str]:
    """Say what contradicts the plan, whatever the times are."""
    problems = []
    if any(run["failed"] for run in measured.values()):
        problems.append("Requests failed: the promised users must never be refused; see the engine's log.")
    there, planned = measured["users"]["at_once"] or 0, math.ceil(plan["metrics"]["users"])
    if there < planned:
        problems.append(
            f"Only {there:.0f} of {planned} users were there at once, as sessions ended sooner than planned: run it "
            "again with a shorter --concurrency-ramp-duration."
        )
    cached = measured["users"]["cached"]
    keeps = plan["decision"]["groups"][0]["offload"]["policy"] != "recompute"
    if keeps and cached is not None and cached < CACHED_AT_LEAST:
        problems.append(
            f"Later questions found {cached:.1%} of their prompt in the cache, and the plan counts on all but the new "
            "question: see whether sessions stay at one instance, and whether something else filled the cache."
        )
    return problems


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
