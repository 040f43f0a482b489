"""The real HAProxy with the emitted configuration, before engines of different size: sessions stay, places are kept.

Slow (a minute), and it needs HAProxy with Lua, installed or named by PLAN_HAPROXY (docs/deploy.md says how to get one).
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import yaml

from planner.emit.weighing import CONFIG, PLACES, Instances, config, places_file
from tests.acceptance.stub_engine import StubEngine
from tests.acceptance.test_emit_kinds import LARGE, SMALL, Plan, emitted, planned
from tests.acceptance.test_emit_router import ask, free_port, wait_for
from tests.manifests import documents

FOUND = shutil.which(os.environ.get("PLAN_HAPROXY", "haproxy"))
HAPROXY = None if FOUND is None else Path(FOUND).resolve()
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


def test_the_emitted_script_runs_it(plan: Plan, tmp_path: Path) -> None:
    """`router.sh` as it was written, but for the ports, which the stand-ins have chosen."""
    files = emitted(plan, tmp_path, planned(plan, tmp_path, LARGE, SMALL), "vllm,compose")
    out = files / "vllm"
    engines = [StubEngine(None, seconds=0.02) for _ in range(3)]
    port = free_port()
    text = (out / CONFIG).read_text()
    places = [int(line.split()[-1]) for line in text.splitlines() if line.startswith("    server ")]
    for number, engine in zip((8000, 8001, 8002), engines, strict=True):
        text = text.replace(f'}}:{number}"', f'}}:{engine.address.rpartition(":")[2]}"')
    text = text.replace(":30000", f":{port}").replace(":29000", f":{free_port()}")
    (out / CONFIG).write_text(text)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "haproxy").symlink_to(HAPROXY or "")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "SERVERS": "127.0.0.1"}
    with serving(["bash", str(out / "router.sh")], port, environment) as address:
        check = compose_check(files, port)
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
        for session in range(sum(places)):
            for _ in range(2):
                assert ask(address, HEADER, f"s{session}") == 200
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    found = [len(engine.sessions) for engine in engines]
    for engine in engines:
        engine.close()
    assert found == places


def compose_check(files: Path, port: int) -> list[str]:
    """Return the health check of compose's router, at another port."""
    router = yaml.safe_load((files / "compose/compose.yaml").read_text())["services"]["router"]
    kind, *words = router["healthcheck"]["test"]
    assert kind == "CMD"
    return [word.replace("30000", str(port)) for word in words]


def test_in_kubernetes_instances_are_found_by_dns(plan: Plan, tmp_path: Path) -> None:
    """The configuration of the manifest, with a DNS server in the place of the cluster's; pods come and go."""
    out = emitted(plan, tmp_path, planned(plan, tmp_path, LARGE, SMALL), "kubernetes")
    found = documents((out / "kubernetes/kubernetes.yaml").read_text(), "ConfigMap")
    data = next(m["data"] for m in found if CONFIG in m["data"])
    port, engines_port = free_port(), free_port()
    engines = {host: StubEngine(None, 0.02, host, engines_port) for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4")}
    slug = "plan-llama-3-1-8b"
    pods = {
        f"{slug}-serve-a.here.svc.cluster.local": ["127.0.0.2"],
        f"{slug}-serve-b.here.svc.cluster.local": ["127.0.0.3", "127.0.0.4"],
    }
    with named(pods) as dns_port:
        text = data[CONFIG].replace("parse-resolv-conf", f"nameserver dns 127.0.0.1:{dns_port}")
        text = text.replace(':8000"', f':{engines_port}"').replace(":30000", f":{port}")
        text = text.replace(":29000", f":{free_port()}").replace("hold valid 10s", "hold valid 1s")
        text = text.replace("hold obsolete 10s", "hold obsolete 0s")
        (tmp_path / CONFIG).write_text(text)
        (tmp_path / PLACES).write_text(data[PLACES])
        environment = {**os.environ, "NAMESPACE": "here", "CLUSTER_DOMAIN": "cluster.local"}
        with serving([str(HAPROXY), "-db", "-f", str(tmp_path / CONFIG)], port, environment) as address:
            time.sleep(3)  # until both names are resolved
            for session in range(200):
                assert ask(address, HEADER, f"s{session}") == 200
            counts = [len(engine.sessions) for engine in engines.values()]
            pods[f"{slug}-serve-b.here.svc.cluster.local"].remove("127.0.0.4")
            time.sleep(5)
            before = sum(len(requests) for requests in engines["127.0.0.4"].sessions.values())
            for session in range(200):
                assert ask(address, HEADER, f"s{session}") == 200
            after = sum(len(requests) for requests in engines["127.0.0.4"].sessions.values())
    for engine in engines.values():
        engine.close()
    assert sum(counts) == 200
    assert counts[0] > counts[1] > 0
    assert abs(counts[1] - counts[2]) <= 1
    assert before == after


@contextmanager
def named(addresses: Mapping[str, Sequence[str]]) -> Iterator[int]:
    """Answer DNS questions for IPv4 addresses, until the end of the block; yield the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                try:
                    question, client = listener.recvfrom(4096)
                except TimeoutError:
                    continue
                listener.sendto(dns_answer(question, addresses), client)

        server = threading.Thread(target=answer)
        server.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            server.join()


def dns_answer(question: bytes, addresses: Mapping[str, Sequence[str]]) -> bytes:
    """Return the answer to one question (RFC 1035, section 4): all addresses of the name, if they are asked for."""
    labels, end = [], 12
    while question[end]:
        labels.append(question[end + 1 : end + 1 + question[end]].decode())
        end += 1 + question[end]
    kind = int.from_bytes(question[end + 1 : end + 3], "big")
    found = addresses.get(".".join(labels), ()) if kind == 1 else ()
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address) for address in found)
    return question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0) + question[12 : end + 5] + records


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
    try:
        with serving([str(HAPROXY), "-db", "-f", str(directory / CONFIG)], port) as address:
            yield address, engines
    finally:
        for engine in engines:
            engine.close()


@contextmanager
def serving(words: Sequence[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a command until the end of the block; yield its address when it is ready."""
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/readiness", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
