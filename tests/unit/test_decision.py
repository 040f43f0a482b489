"""Groups on servers: no server holds more than it has, and a replica isn't torn apart where it needn't be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planner.decision import Decision, place
from planner.service import Batch, Parallel, Pool, Pools, Service

SIZES = st.sampled_from([1, 2, 4, 8])


@given(st.lists(st.tuples(SIZES, st.integers(1, 5)), min_size=1, max_size=4), st.integers(1, 40))
def test_powers_of_two_always_find_room(kinds: list[tuple[int, int]], spare: int) -> None:
    needed = sum(size * replicas for size, replicas in kinds)
    gpus = -(-needed // 8) * 8 + spare
    taken: dict[int, int] = {}
    for (size, replicas), where in zip(kinds, place(kinds, gpus, 8), strict=True):
        assert where is not None
        assert len(where) == replicas
        for server in where:
            taken[server] = taken.get(server, 0) + size
    assert all(used <= min(8, gpus - 8 * server) for server, used in taken.items())


def test_a_replica_of_several_servers_takes_them_whole() -> None:
    assert place([(16, 1), (4, 2)], 24, 8) == [[0], [2, 2]]
    assert place([(16, 2)], 24, 8) == [None]
    assert place([(5, 3)], 16, 8) == [None], "five GPUs are free in the end, of two servers"


def test_services_survive_being_told_as_groups() -> None:
    pair = Service(
        engine="vllm",
        serving="disaggregated",
        pools=Pools(
            prefill=Pool(parallel=Parallel(tp=2), batch=Batch(prefill_chunk_tokens=8192, prefill_throttled=True)),
            decode=Pool(parallel=Parallel(tp=1, replicas=2), batch=Batch(decode_sequences=7)),
        ),
        parallel=Parallel(tp=1, replicas=2),
        batch=Batch(decode_sequences=7),
        users_per_replica=3,
    )
    alone = Service(engine="sglang", parallel=Parallel(tp=4), users_per_replica=1)
    made = Decision.of([pair, alone], "a100", 8, 8)
    assert made.services == (pair, alone)
    assert [(group.id, group.role, group.feeds) for group in made.groups] == [
        ("a", "prefill", ("b",)),
        ("b", "decode", ()),
        ("c", "serve", ()),
    ]
    assert set(made.router.weights) == {"a", "c"}
