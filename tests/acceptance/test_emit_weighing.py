"""The real HAProxy with the emitted configuration, before engines of different size: sessions stay, places are kept.

Slow (half a minute), and it needs HAProxy with Lua (``apt-get install haproxy``), or PLAN_HAPROXY, which names one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from planner.emit.weighing import CONFIG, PLACES, Instances, config, places_file
from tests.acceptance.stub_engine import StubEngine
from tests.acceptance.test_emit_router import ask, free_port, wait_for

HAPROXY = os.environ.get("PLAN_HAPROXY") or shutil.which("haproxy")
HEADER = "X-Session-ID"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(HAPROXY is None, reason="no HAProxy is installed (docs/deploy.md)")]


def test_new_sessions_are_spread_by_places_and_known_ones_stay(tmp_path: Path) -> None:
    with routed(tmp_path, [8, 8, 2]) as (address, engines):
        for session in range(36):
            for _ in range(1 + session % 3):
                assert ask(address, HEADER, f"s{session}") == 200
    assert [len(engine.sessions) for engine in engines] == [16, 16, 4]


def test_users_who_come_at_once_find_the_places_of_each(tmp_path: Path) -> None:
    with routed(tmp_path, [8, 1]) as (address, engines), ThreadPoolExecutor(27) as pool:
        answers = pool.map(lambda user: [ask(address, HEADER, f"u{user}") for _ in range(3)], range(27))
        assert {status for found in answers for status in found} == {200}
    assert [len(engine.sessions) for engine in engines] == [24, 3]


@pytest.mark.parametrize("tell", [True, False])
def test_nobody_comes_where_all_places_are_taken_if_ends_are_told(tmp_path: Path, tell: bool) -> None:
    """As many users as places, each with one session after another."""
    places = [8, 1]
    with routed(tmp_path, places) as (address, engines):
        too_many = crowded(address, engines, places, tell=tell)
    assert bool(too_many) is not tell


def test_a_session_goes_elsewhere_when_its_instance_is_gone(tmp_path: Path) -> None:
    with routed(tmp_path, [4, 1]) as (address, engines):
        assert ask(address, HEADER, "s") == 200
        engines[0].close()
        until = time.monotonic() + 30
        while time.monotonic() < until and ask(address, HEADER, "s") != 200:
            time.sleep(0.2)
        assert "s" in engines[1].sessions
        for session in range(4):
            ask(address, HEADER, f"t{session}")
    assert len(engines[1].sessions) == 5


def test_a_rank_keeps_its_sessions(tmp_path: Path) -> None:
    with routed(tmp_path, [2, 1], ranks=[4, 1]) as (address, engines):
        for session in range(18):
            for _ in range(2):
                ask(address, HEADER, f"s{session}")
    assert Counter(ranks[0] for ranks in engines[0].sessions.values()) == dict.fromkeys("0123", 4)
    assert all(len(set(ranks)) == 1 for ranks in engines[0].sessions.values())
    assert list(engines[1].sessions.values()) == [["", ""]] * 2


def test_a_request_without_a_session_goes_round_by_weight(tmp_path: Path) -> None:
    with routed(tmp_path, [3, 1]) as (address, engines):
        for _ in range(8):
            ask(address, "X-Other", "s")
    assert [len(engine.sessions.get("", ())) for engine in engines] == [6, 2]


def crowded(address: str, engines: Sequence[StubEngine], places: Sequence[int], *, tell: bool) -> int:
    """Count the sessions that began where all places were taken."""
    now: Counter[int] = Counter()
    lock = threading.Lock()
    found = 0

    def user(number: int) -> None:
        nonlocal found
        rng = Random(number)
        for session in range(12):
            name = f"u{number}-{session}"
            assert ask(address, HEADER, name) == 200
            where = next(index for index, engine in enumerate(engines) if name in engine.sessions)
            with lock:
                now[where] += 1
                found += now[where] > places[where]
            for _ in range(rng.randint(0, 8)):
                assert ask(address, HEADER, name) == 200
            with lock:
                now[where] -= 1
            if tell:
                finish = urllib.request.Request(f"{address}/finish_session?session_id={name}", b"")
                urllib.request.urlopen(finish, timeout=10).read()

    with ThreadPoolExecutor(sum(places)) as pool:
        list(pool.map(user, range(sum(places))))
    return found


@contextmanager
def routed(
    directory: Path, places: Sequence[int], ranks: Sequence[int] = (1, 1, 1)
) -> Iterator[tuple[str, list[StubEngine]]]:
    """Run HAProxy before an engine per number of places; yield its address and the engines."""
    engines = [StubEngine(None, seconds=0.02) for _ in places]
    kinds = [
        Instances(f"serve-{name}", (engine.address.removeprefix("http://"),), all_, ranks=of_rank)
        for name, engine, all_, of_rank in zip("abc", engines, places, ranks, strict=False)
    ]
    port = free_port()
    text = config(
        kinds,
        bind=f"127.0.0.1:{port}",
        metrics=f"127.0.0.1:{free_port()}",
        health="/health",
        idle_s=7200,
        request_s=7200,
        step_s=1.0,
        platform="shell",
    )
    (directory / CONFIG).write_text(text)
    (directory / PLACES).write_text(places_file())
    process = subprocess.Popen(
        [str(HAPROXY), "-db", "-f", str(directory / CONFIG)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/readiness", process)
        yield f"http://127.0.0.1:{port}", engines
    finally:
        process.terminate()
        process.wait(20)
        for engine in engines:
            engine.close()
