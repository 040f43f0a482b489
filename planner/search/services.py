"""From a solution to the services of the decision that a plan shows."""

from __future__ import annotations

from planner.candidates.points import Search
from planner.search.solution import Kind, Solution
from planner.service import DIMENSIONS, Batch, Choice, Compression, OffloadChoice, Parallel, Pool, Pools, Service
from planner.space import Option, Split


def services_of(solution: Solution) -> tuple[Service, ...]:
    """Write a solution as the services of its decision, complete in every field, the largest promise first."""
    return tuple(service_of(solution.search, kind) for kind in solution.kinds)


def service_of(search: Search, kind: Kind) -> Service:
    """Write one kind of a solution as a service, complete in every field; replicas in reserve are among its own."""
    points = kind.points
    unit, pool = search.units[int(points.unit[0])], int(points.pool_unit[0])
    alone = bool(points.alone[0])
    policy = search.space.policies[int(points.policy[0])]
    engine = next(engine for engine in search.space.engines if engine.id == kind.engine)
    throttled = engine.long_prefill_throttle is not None
    yields = not alone or search.space.pins.wanted("prefill_throttled", "serve") is True
    sequences = 1 if alone else int(points.micro[0]) * unit.split.pp
    parallel = _parallel(unit.split, int(points.replicas[0] + search.lost[points.unit[0]]))
    batch = Batch(
        decode_sequences=sequences,
        resident_sessions=1 if alone else search.space.pins.resident("serve" if pool < 0 else "decode") or None,
        prefill_chunk_tokens=int(points.chunk[0]),
        prefill_throttled=throttled and yields and pool < 0,
    )
    pools = None
    if pool >= 0:
        prefill = Pool(
            parallel=_parallel(search.units[pool].split, int(points.pool_replicas[0] + search.lost[pool])),
            batch=Batch(prefill_chunk_tokens=search.space.pool_chunk, prefill_throttled=throttled),
        )
        pools = Pools(prefill=prefill, decode=Pool(parallel=parallel, batch=batch))
    return Service(
        engine=kind.engine,
        weights=search.space.weights[unit.weights].id,
        compression=Compression(
            **{name: _choice(option) for name, option in zip(DIMENSIONS, kind.options, strict=True)}
        ),
        parallel=parallel,
        batch=batch,
        serving="disaggregated" if pools else "aggregated",
        pools=pools,
        offload=OffloadChoice(policy=policy.policy, tier=policy.tier),
    )


def _choice(option: Option) -> Choice:
    if option.technique is None or option.point is None:
        return Choice()
    return Choice(technique=option.technique.id, strength=option.point.strength, point=option.point.id)


def _parallel(split: Split, replicas: int) -> Parallel:
    return Parallel(tp=split.tp, pp=split.pp, dcp=split.dcp, pcp=split.pcp, ep=split.ep, replicas=replicas)
