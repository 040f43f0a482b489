"""The operator's page: what runs, what to expect, and how to find out whether it is true."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from planner.emit.capacity import FREE_SHARE, Reservation, kv_tokens, reserve
from planner.emit.checks import quality_test_words, uncompressed_words
from planner.emit.deployment import Deployment
from planner.emit.kinds_page import KINDS_NOTE, PLACES_NOTE, kinds_table, said_of_kinds
from planner.emit.launch import Launch
from planner.emit.load_test import (
    AIPERF,
    RESULTS,
    SCRIPT,
    SESSIONS,
    load_test_commands,
    load_test_s,
    promised_users,
    shared_block_tokens,
)
from planner.emit.quoting import code, code_block, shell_lines
from planner.emit.router import PORT, client_port, idle_s, is_routed, ranks_routed, router_of
from planner.emit.starting import duration, network_check, start_lines

_GIB = 1 << 30


def readme(deployment: Deployment, launches: list[Launch], files: Collection[str]) -> str:
    """Return the page as Markdown."""
    parts = [
        f"# {code(deployment.served_name)} on {deployment.cluster.gpus} x {deployment.hardware.name}",
        _what_runs(deployment, launches),
        "## Start",
        "\n".join(start_lines(deployment, launches, set(files))),
        *_network(deployment, launches),
        "## What to expect",
        _expectations(deployment, launches),
        "## Keep it true",
        _keep_true(deployment, launches),
        *(("## Check speed", _speed_check(deployment, launches, files)) if launches[0].is_server else ()),
        "## Check quality",
        _quality_check(deployment, launches),
        "## Where it comes from",
        _provenance(deployment, launches),
    ]
    return "\n\n".join(parts) + "\n"


def _what_runs(deployment: Deployment, launches: list[Launch]) -> str:
    lines = []
    for launch in launches:
        pool = launch.pool
        split = f"tp {pool.tp}, pp {pool.pp}, dcp {pool.dcp}, pcp {pool.pcp}, ep {pool.ep}"
        lines.append(
            f"- {pool.name}: {pool.instances} x {launch.engine} {launch.version} on {pool.instance_gpus} GPUs each "
            f"({split}), sessions up to {deployment.max_model_len} tokens"
        )
    lines += [f"- {text}" for text in said_of_kinds(deployment, _compression)]
    lines += [f"- {text}" for text in said_of_kinds(deployment, _between_rounds)]
    for note in notes_of(deployment, launches):
        word, _, rest = note.partition(": ")
        lines.append(f"- **{word}**: {rest}" if word == "WARNING" else f"- note: {note}")
    return "\n".join(lines)


def _compression(kind: Deployment) -> str:
    used = [f"{t.dimension} {code(t.point.id)}" for t in kind.technologies]
    return f"weights: {code(kind.decision.weights)}; compression: {', '.join(used) or 'none'}"


def _between_rounds(kind: Deployment) -> str:
    offload = kind.decision.offload
    where = f" to {offload.tier} through {kind.offload_backend}" if offload.policy == "swap" else ""
    return f"between rounds: {offload.policy}{where}"


def notes_of(deployment: Deployment, launches: list[Launch]) -> list[str]:
    """What an operator should know beside the table: where the engine does something else than the plan counts on."""
    notes = list(deployment.notes)
    for launch in launches:
        notes += [note for note in launch.notes if note not in notes]
    return notes


def _network(deployment: Deployment, launches: list[Launch]) -> list[str]:
    found = network_check(deployment, launches)
    return [] if found is None else ["## Check the network", found]


def _expectations(deployment: Deployment, launches: list[Launch]) -> str:
    """What the plan predicts, with the interval where it has one, and what the engine itself reports at start."""
    metrics = deployment.metrics
    told = [(name, key) for name, key in _EXPECTED if "_idle_" not in key or metrics.named(key) is not None]
    rows = [(name, _shown(key, metrics.named(key)), _interval(deployment, key)) for name, key in told]
    memory: list[str] = []
    for launch in launches if deployment.mixed else launches[-1:]:
        kind, name = deployment.of(launch.pool), f"{launch.pool.name}: " if deployment.mixed else ""
        rows += [(name + text, value, how) for text, value, how in _reported(launch, kind)]
        memory += [name + text for text in _about_memory(kind, launch)]
    table = ["| quantity | predicted | 80 % interval |", "|---|---|---|"]
    table += [f"| {name} | {value} | {interval} |" for name, value, interval in rows]
    about = f"{_about_times(launches)} {_ABOUT_INTERVALS[deployment.document.intervals is not None]}"
    return "\n".join([*table, *kinds_table(deployment), "", about, *(f"\n{text}" for text in memory)])


_EXPECTED = (
    ("time to first token, whole document, one user alone", "ttft_idle_s"),
    ("time to first token, whole document, every slot taken", "ttft_full_s"),
    ("time to first token, later question, one user alone", "warm_ttft_idle_s"),
    ("time to first token, later question, every slot taken", "warm_ttft_full_s"),
    ("time per output token, one user alone", "tpot_idle_s"),
    ("time per output token, every slot taken, worst step", "itl_full_s"),
    ("sessions that fit in HBM, whole cluster", "concurrency"),
    ("users", "users"),
    ("answers per hour", "interactions_per_hour"),
    ("KV cache of one session", "kv_bytes_per_session"),
    ("quality loss, mean", "quality_loss_mean"),
    ("quality loss at the plan's confidence", "quality_loss_at_confidence"),
    ("loss beyond the trained window, mean", "window_loss_mean"),
)
"""What an operator should expect -> the metric that says it."""
_ABOUT_INTERVALS = {
    True: "`plan accuracy` says on which measurements the intervals rest.",
    False: "The plan has no intervals; `plan accuracy` says how far predictions have been off.",
}


def _about_times(launches: list[Launch]) -> str:
    """What a time counts that one user alone doesn't see, and what it leaves out."""
    before = (
        "one step of somebody's prefill" if any(one.pool.throttled for one in launches) else "somebody's whole document"
    )
    return (
        "Times exclude queueing. They do count what shares the engine: a whole document gives way to the sessions "
        f"that decode, and a later question finds {before} before it. One user alone should see no more than that, "
        "all users see more while they queue; answers per hour and times per output token are those of all users."
    )


def _held(deployment: Deployment, launch: Launch) -> Reservation | None:
    return reserve(deployment, launch.pool, launch.batched_tokens) if launch.batched_tokens else None


def _reported(launch: Launch, deployment: Deployment) -> list[tuple[str, str, str]]:
    """KV tokens and concurrency as the engine counts them when it starts: allocation is exact, not predicted."""
    held = _held(deployment, launch)
    if held is None or held.capacity is None:
        return []
    least, how = ("", "exact") if held.exact else ("at least ", "up to a block per session more")
    return [
        ("KV tokens that an instance reports at start", f"{least}{held.capacity.tokens}", how),
        ("concurrency that an instance reports at start", f"{least}{held.capacity.concurrency:.2f}", how),
    ]


def _about_memory(deployment: Deployment, launch: Launch) -> list[str]:
    """How much memory KV gets, and why what the engine reports isn't the table's number of sessions."""
    pool = launch.pool
    tokens, planned = kv_tokens(deployment, pool), deployment.kv_tokens(pool)
    if tokens is None or planned is None or pool.resident_sessions is None or launch.engine == "llama.cpp":
        return []
    why = (
        f"The rest is {FREE_SHARE:.0%} of what the plan leaves free: an engine drops what was used longest ago, which "
        "is often a session whose user still thinks, and not the one that has just ended; it needs room for both."
    )
    held = _held(deployment, launch)
    if held is None:
        return [f"KV cache of a rank: {planned} tokens for the planned sessions, {tokens} given. {why}"]
    sizes = f"{held.planned_bytes / _GIB:.2f} GiB for the planned sessions, {held.bytes_per_gpu / _GIB:.2f} GiB given"
    texts = [f"KV memory of a GPU: {sizes}. {why}"]
    if held.capacity is not None:
        ranks = f" of each of {pool.replicas} replicas" if pool.replicas > 1 else ""
        texts.append(
            f"Sessions that fit are the plan's: {pool.resident_sessions} in the HBM{ranks}. What an instance reports "
            f"({held.capacity.concurrency:.2f}) is its KV memory over one request of {deployment.window_tokens} tokens "
            "for one data-parallel rank: more where free memory was added, fewer where the engine pads a model's "
            "layers or takes longer requests than the plan's sessions."
        )
    return texts


def _interval(deployment: Deployment, key: str) -> str:
    intervals = deployment.document.intervals
    found = None if intervals is None else intervals.named(key)
    return "-" if found is None else f"{_shown(key, found[0])} to {_shown(key, found[1])}"


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "not applicable"
    if key.endswith("_s"):
        return f"{value:.4g} s"
    if "loss" in key:
        return f"{value:.2%}"
    if "bytes" in key:
        return f"{value / _GIB:.3f} GiB"
    return f"{value:.0f}" if key == "concurrency" else f"{value:.1f}"


def _keep_true(deployment: Deployment, launches: list[Launch]) -> str:
    lines = [f"- {text}" for text in said_of_kinds(deployment, _about_idle)]
    if is_routed(deployment):
        lines += _about_router(deployment)
    overload = [line for launch in launches for line in _about_overload(deployment, launch)]
    return "\n".join([*lines, *(dict.fromkeys(overload) if deployment.mixed else overload[-1:])])


def _about_idle(kind: Deployment) -> str:
    """What becomes of a session's cache while its user thinks."""
    users = int(kind.metrics.users)
    offload = kind.decision.offload
    if offload.policy == "swap":
        tier = "host memory" if offload.tier == "ddr" else "the local disk"
        bytes_ = kind.metrics.ddr_bytes + kind.metrics.nvme_bytes
        return (
            f"Idle sessions wait in {tier}, {bytes_ / _GIB:.0f} GiB of it in all. Nothing reserves a session's part: "
            f"with many more than {users} users at once the oldest are dropped, and their next question pays for the "
            "whole document again."
        )
    if offload.policy == "recompute":
        return "Caches are dropped between rounds: every question pays for its whole document, as planned."
    return (
        "Idle sessions stay in HBM only as an LRU prefix cache; nothing reserves their memory. More than "
        f"{users} users at once push each other's documents out, and every later question then pays for the whole "
        "document again."
    )


def _about_router(deployment: Deployment) -> list[str]:
    router = router_of(deployment)
    name = code(f"{router.session_header}: <session>")
    where = "one instance" if ranks_routed(deployment) == 1 else "one rank of one instance, which has its own cache"
    to = "the least loaded" if not deployment.mixed else "where the smallest share of places is taken"
    lines = [
        f"- Send {name} with every request: the router keeps a session at {where}, and gives a new one to {to}. "
        "A request without it goes anywhere, and pays for its whole document.",
        f"- The router forgets a session that sends nothing for {idle_s(deployment)} s, and all of them when it "
        "restarts: they then go on anywhere, with their whole document to prefill.",
    ]
    if router.end_of_session:
        url = f"http://localhost:{client_port(deployment, PORT)}{router.end_of_session}"
        over = code(f"curl -X POST '{url}'")
        lines.append(f"- Tell it when a session is over, so that its place counts as free: {over}")
    if deployment.mixed:
        lines.append(PLACES_NOTE)
    return lines


def _about_overload(deployment: Deployment, launch: Launch) -> list[str]:
    """What happens beyond the promised users."""
    if not launch.is_server:
        return []
    users = math.ceil(deployment.metrics.users)
    if launch.admitted is not None:
        of_all = ", those of the whole service, however unevenly they are spread" if is_routed(deployment) else ""
        return [
            f"- An instance refuses (503) what exceeds {launch.admitted} requests of its own{of_all}: the {users} "
            "planned users never see it. Below that, what exceeds the sequences that run waits; let clients retry "
            "later."
        ]
    slots = f"{launch.value('--parallel')} slots" if launch.engine == "llama.cpp" else "sequences that run"
    one = "" if is_routed(deployment) else " No router stands before it; put one there if clients should be refused."
    return [
        f"- {launch.engine} refuses nothing: requests beyond the {slots} wait, first come first served, without a "
        f"limit. Keep to the {users} planned users.{one}"
    ]


def _speed_check(deployment: Deployment, launches: list[Launch], files: Collection[str]) -> str:
    commands = load_test_commands(deployment, launches)
    took = {run: duration(seconds) for run, seconds in load_test_s(deployment).items()}
    users = promised_users(deployment)
    header = code(router_of(deployment).session_header)
    shared = shared_block_tokens(deployment)
    common = f" The first {shared} tokens are the same in all." if shared else ""
    return "\n\n".join(
        [
            f"{code(SESSIONS)} holds the plan's sessions: a document of {deployment.request.ctx} tokens (less what a "
            f"chat template adds), {deployment.request.rounds} questions of {deployment.request.question_tokens} "
            f"tokens, each after the answer to the one before and {deployment.workload.think_s:g} s of thinking; "
            f"the document grows by every question and answer.{common} aiperf names each session in {header}, and "
            f"makes the texts where it runs: {code(f'pip install {AIPERF}')} there, in an environment of its own.",
            *_reach(deployment, launches, files),
            f"One user alone, about {took['alone']}: times to first token should be at most the table's.",
            code_block(shell_lines(commands["alone"][:2], commands["alone"][2:]), "sh"),
            f"All {users} planned users, about {took['users']}, without a request refused: answers per hour and times "
            "per output token should be the table's. Times to first token may be longer here: queueing isn't planned.",
            *_reserve(deployment),
            code_block(shell_lines(commands["users"][:2], commands["users"][2:]), "sh"),
            f"Then {code(f'python3 {SCRIPT} {RESULTS}')} prints what was measured beside what was predicted, and says "
            "if requests failed, or if later questions didn't find their documents in the cache. Every request stays "
            f"in {code(f'{RESULTS}/*/profile_export.jsonl')}. After a change of the deployment restart it first, or "
            "change the seeds: what was asked before is still in its cache.",
        ]
    )


def _reserve(deployment: Deployment) -> list[str]:
    """What the test of all users shows of a service with replicas in reserve."""
    pools = [pool for pool in deployment.pools if pool.spare_replicas]
    if not pools:
        return []
    counts = " and ".join(f"{pool.spare_instances} of {pool.instances} {pool.name}" for pool in pools)
    return [
        f"In reserve are {counts} instances: the table is what the service gives while they are down, which is what "
        "the plan promises. Stop as many before this run to see it; while all are up, answers per hour are more and "
        "times are shorter."
    ]


def _reach(deployment: Deployment, launches: list[Launch], files: Collection[str]) -> list[str]:
    """How the load test reaches a service that this machine doesn't run."""
    texts = ["Where clients need a key, give it with `--api-key`."]
    if "kubernetes/kubernetes.yaml" in files:
        port = client_port(deployment, launches[-1].port)
        forward = code(f"kubectl port-forward service/{deployment.slug} {port}:80")
        texts.append(f"Against Kubernetes run aiperf in a pod beside the service, or {forward} first.")
    return [" ".join(texts)]


def _quality_check(deployment: Deployment, launches: list[Launch]) -> str:
    words = quality_test_words(deployment, launches[-1])
    bare = uncompressed_words(deployment, launches[-1])
    of_kinds = KINDS_NOTE if deployment.mixed else ""
    parts = [
        f"RULER at {deployment.request.ctx} tokens, once on this deployment and once without compression. The "
        "relative difference should be within the predicted loss." + of_kinds,
        code_block(shell_lines(words[:1], words[1:]), "sh"),
    ]
    if bare is None:
        parts.append(
            f"For the second, start {deployment.engine.id} by hand with {code(deployment.model_source)}, without "
            "quantised weights or KV, pools or offloading, one session at a time."
        )
    else:
        parts.append("The same model without compression, one session at a time, on GPUs that hold it:")
        parts.append(code_block(shell_lines(bare[:3], bare[3:]), "sh"))
    return "\n\n".join(parts)


def _provenance(deployment: Deployment, launches: list[Launch]) -> str:
    provenance = deployment.document.provenance
    lines = [
        f"- {code('plan.json')} is the exact plan; {code('provenance.json')} says what produced it.",
        f"- catalog {code(provenance.catalog_hash)}, efficiency {code(provenance.efficiency)}, bounded by "
        f"{code(str(provenance.bounded_by))}",
    ]
    lines += [f"- assumed: {code(text)}" for text in provenance.assumptions]
    lines += [f"- {code(image)}" for image in dict.fromkeys(launch.image for launch in launches)]
    return "\n".join(lines)


def provenance_file(
    deployment: Deployment, launches: list[Launch], snapshots: Mapping[str, Mapping[str, str]], refused: Iterable[str]
) -> str:
    """Return what produced the plan, against what its flags were checked, and what wasn't written, as JSON."""
    content = {
        "plan": deployment.document.provenance.model_dump(mode="json"),
        "warnings": list(deployment.document.warnings),
        "engine": _engine(launches[0]),
        "flags_checked_against": dict(snapshots[launches[0].pool.name]),
        "model": deployment.model_source,
        "loaded": launches[0].model,
        **({"kinds": {one.pool.name: _kind(one, snapshots) for one in launches}} if deployment.mixed else {}),
        "notes": notes_of(deployment, launches),
        "not_written": list(refused),
    }
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def _kind(launch: Launch, snapshots: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    checked = dict(snapshots[launch.pool.name])
    return {"engine": _engine(launch), "flags_checked_against": checked, "loaded": launch.model}


def _engine(launch: Launch) -> dict[str, str]:
    return {"name": launch.engine, "version": launch.version, "image": launch.image}
