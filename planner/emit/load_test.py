"""The load test of a deployment: the plan's sessions for aiperf, and the commands that hold them.

aiperf names each session in a header, lets its document grow by every question and answer, and waits between
rounds; what it sends is made on the machine that it runs on, from lengths alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from planner.emit import check_speed
from planner.emit.deployment import Deployment
from planner.emit.flags import problems_of_flags
from planner.emit.launch import Flags, Launch, flag_words
from planner.emit.router import client_port, router_of
from planner.errors import InputError

AIPERF = "aiperf==0.13.0"
SESSIONS = "sessions.jsonl"
SCRIPT = "check_speed.py"
RESULTS = "results"
SESSIONS_PER_USER = 2
"""One to come in, during which the users spread, and one while all are there."""
SESSIONS_ALONE = 2
_SPREAD = 0.5
"""Part of a session over which the users come in: not all at once, and all there also if sessions end sooner than
planned."""
_TEMPLATE_TOKENS = 64
"""What a chat template may put before the first message [tokens]."""
_MESSAGE_TOKENS = 16
"""What it may put around each message [tokens]."""
_SMALLEST_SHARED = 0.01
"""Share of the document below which a prefix that all sessions have in common isn't told apart."""


def load_test_files(deployment: Deployment) -> dict[str, str]:
    """Return the sessions, and the program that compares the results with the plan."""
    return {SESSIONS: sessions_file(deployment), SCRIPT: Path(check_speed.__file__).read_text(encoding="utf-8")}


def promised_users(deployment: Deployment) -> int:
    """Return how many users are there at once."""
    return max(1, math.ceil(deployment.metrics.users))


def sessions_file(deployment: Deployment) -> str:
    """Return the sessions in Mooncake's format: a line per question with the tokens that it adds."""
    request = deployment.request
    count = max(SESSIONS_ALONE, SESSIONS_PER_USER * promised_users(deployment))
    lines = []
    for session in range(count):
        for turn in range(request.rounds):
            tokens = max(1, request.question_tokens) + (0 if turn else _document_tokens(deployment))
            line = {"session_id": f"session-{session}", "input_length": tokens, "output_length": request.output_tokens}
            own = {"delay": round(1000 * deployment.workload.think_s)} if turn else _blocks(deployment, session, tokens)
            lines.append(json.dumps(line | own))
    return "".join(f"{line}\n" for line in lines)


def _document_tokens(deployment: Deployment) -> int:
    """Tokens of a document that leave the chat template its room in the longest session [tokens]."""
    request = deployment.request
    template = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * 2 * request.rounds
    return request.ctx - min(template, request.ctx // 2)


def shared_block_tokens(deployment: Deployment) -> int:
    """Return the tokens that all sessions have in common, 0 if they are too few to tell [tokens]."""
    shared = deployment.request.shared_prefix_tokens
    return shared if shared >= _SMALLEST_SHARED * deployment.request.ctx else 0


def _blocks(deployment: Deployment, session: int, tokens: int) -> dict[str, list[int]]:
    """Name the blocks of a first prompt, each as long as the common prefix: number 0 is it."""
    block = shared_block_tokens(deployment)
    if not block:
        return {}
    own = -(-tokens // block) - 1
    return {"hash_ids": [0, *range(1 + session * own, 1 + (session + 1) * own)]}


def load_test_commands(deployment: Deployment, launches: list[Launch]) -> dict[str, list[str]]:
    """Return aiperf's command lines: one user alone, and all planned users.

    Raises
    ------
    InputError
        If the pinned aiperf would refuse one of the flags.
    """
    users = promised_users(deployment)
    spread = math.ceil(session_s(deployment) * _SPREAD)
    alone: Flags = (("--concurrency", 1), ("--num-sessions", SESSIONS_ALONE), ("--random-seed", 1))
    # Another seed: what the first run asked is still in the cache.
    all_users: Flags = (
        ("--concurrency", users),
        ("--num-sessions", SESSIONS_PER_USER * users),
        ("--concurrency-ramp-duration", spread),
        ("--random-seed", 2),
    )
    commands = {}
    for run, own in (("alone", alone), ("users", all_users)):
        flags = (*_common_flags(deployment, launches), *own, ("--artifact-dir", f"{RESULTS}/{run}"))
        name, version = AIPERF.split("==")
        problems = problems_of_flags(flags, name, version)
        if problems:
            raise InputError(problems)
        commands[run] = ["aiperf", "profile", *flag_words(flags)]
    return commands


def _common_flags(deployment: Deployment, launches: list[Launch]) -> Flags:
    port = client_port(deployment, launches[-1].port)
    shared = shared_block_tokens(deployment)
    return (
        ("--model", launches[-1].api_name or deployment.served_name),
        ("--tokenizer", deployment.tokenizer),
        ("--url", f"http://localhost:{port}"),
        ("--endpoint-type", "chat"),
        ("--streaming", True),
        # A connection that idles while its user thinks may be closed just when it is used again.
        ("--connection-reuse-strategy", "never"),
        ("--session-header", router_of(deployment).session_header),
        ("--input-file", SESSIONS),
        ("--custom-dataset-type", "mooncake_trace"),
        ("--no-fixed-schedule", True),
        *((("--isl-block-size", shared),) if shared else ()),
        ("--dataset-sampling-strategy", "sequential"),
        ("--extra-inputs", "ignore_eos:true"),
        ("--use-server-token-count", True),
        ("--export-level", "records"),
    )


def session_s(deployment: Deployment) -> float:
    """Return how long a session lasts as predicted [s]."""
    latency, request = deployment.metrics.latency, deployment.request
    answer_s = request.output_tokens * (latency.tpot_s.mean or latency.tpot_s.full or 0.0)
    cold_s = latency.ttft_s.full or 0.0
    later_s = cold_s if latency.warm_ttft_s.full is None else latency.warm_ttft_s.full
    return cold_s + answer_s + (request.rounds - 1) * (deployment.workload.think_s + later_s + answer_s)


def load_test_s(deployment: Deployment) -> dict[str, float]:
    """Return how long the two runs take as predicted [s]."""
    return {
        "alone": SESSIONS_ALONE * session_s(deployment),
        "users": (SESSIONS_PER_USER + _SPREAD) * session_s(deployment),
    }
