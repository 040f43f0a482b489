"""A service that was read, as candidates of the cost model: with every cap full, and with one user alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.cost.compression import CompressionTable, compression_table
from planner.cost.price import DDR, NVME, Candidates, Pools, Setting
from planner.cost.replica import Shape, WeightFormat
from planner.cost.session import NONE, RECOMPUTE, SWAP
from planner.efficiency import efficiency_of, timer_of
from planner.price.read_service import ReadService, shape_of
from planner.price.reserve import Reserve
from planner.problem import Problem
from planner.service import Batch

POLICIES = {"none": NONE, "swap": SWAP, "recompute": RECOMPUTE}
TIERS = {"ddr": DDR, "nvme": NVME}


def setting_of(
    problem: Problem,
    shapes: tuple[Shape, ...],
    weight_formats: dict[str, WeightFormat],
    compression: CompressionTable,
    engine: str,
) -> Setting:
    """What all candidates of one pricing have in common."""
    return Setting(
        architecture=problem.architecture,
        hardware=problem.cluster.hardware,
        node=problem.cluster.node,
        gpus_per_node=problem.cluster.gpus_per_node,
        cluster_gpus=problem.cluster.gpus,
        workload=problem.workload,
        efficiency=efficiency_of(problem, engine),
        shapes=shapes,
        weight_formats=weight_formats,
        compression=compression,
        usd_per_gpu_hour=problem.usd_per_gpu_hour,
        timer=timer_of(problem, engine),
    )


def opened(
    problem: Problem, read: ReadService, assumptions: list[str], *, as_written: bool
) -> tuple[Setting, Pools, Batch]:
    """What all prices of a service have in common, and of its batch what fits."""
    service = read.service
    main = service.pools.decode if service.pools else service
    shapes = [shape_of(main.parallel, read.weights.id)]
    if service.pools:
        shapes.append(shape_of(service.pools.prefill.parallel, read.weights.id))
    formats = {read.weights.id: read.weights.format}
    setting = setting_of(problem, tuple(shapes), formats, compression_table([read.options]), service.engine)
    pools = Pools(setting)
    if as_written:
        return setting, pools, main.batch
    where = "pools.decode.batch" if service.pools else "batch"
    return setting, pools, _that_fits(main.batch, int(pools[0].fit[0]), where, assumptions)


def _that_fits(batch: Batch, sessions: int, where: str, assumptions: list[str]) -> Batch:
    """A batch whose caps are no larger than what fits of them; as it is where not one session fits.

    Beside decoding sessions, one is in prefill or arriving. A single one may decode alone.
    """
    decoding, resident = batch.decode_sequences, batch.resident_sessions
    if sessions < 1:
        return batch
    if resident is not None and resident > sessions:
        assumptions.append(f"{where}.resident_sessions {resident}: a cap; {sessions} sessions fit a replica")
        resident = sessions
    room = resident or sessions
    most = max(1, room - 1)
    if decoding > most:
        why = (
            f"as {room} sessions fit a replica, one of them in prefill" if room > 1 else "as one session fits a replica"
        )
        assumptions.append(f"{where}.decode_sequences {decoding}: a cap; priced with {most} at a time, {why}")
        decoding = most
    return batch.model_copy(update={"decode_sequences": decoding, "resident_sessions": resident})


def candidates_of(read: ReadService, batch: Batch, reserve: Reserve) -> Candidates:
    """Return two candidates: a service as it is (`planner.price.figures.FULL`), and one session at a time (`IDLE`).

    What the replicas in reserve serve doesn't count.
    """
    service = read.service
    pools = service.pools
    main = pools.decode if pools else service

    def both(full: int, idle: int | None = None) -> NDArray[np.int64]:
        return np.array([full, full if idle is None else idle], dtype=np.int64)

    return Candidates(
        shape=both(0),
        compression=both(0),
        replicas=both(main.parallel.replicas - reserve.main),
        decode_sequences=both(batch.decode_sequences, 1),
        resident_limit=both(batch.resident_sessions or 0, 1),
        prefill_chunk=both(main.batch.prefill_chunk_tokens or 0),
        throttled=np.array([(pools.prefill if pools else main).batch.prefill_throttled] * 2),
        policy=both(POLICIES[service.offload.policy]),
        tier=both(TIERS[service.offload.tier or "ddr"]),
        prefill_shape=both(1 if pools else -1),
        prefill_replicas=both(pools.prefill.parallel.replicas - reserve.prefill if pools else 0),
        prefill_pool_chunk=both((pools.prefill.batch.prefill_chunk_tokens or 0) if pools else 0),
        reserve_gpus=both(reserve.gpus),
    )


def kv_bytes_per_session(problem: Problem, table: CompressionTable) -> float:
    """Logical bytes of one session's cache at the document's length, constant states included [bytes]."""
    ctx = problem.request.ctx
    kept = float(table.stored_tokens(ctx, ctx)[0])
    narrow = float(table.element_share()[0])
    total = 0.0
    for layer in problem.architecture.layers:
        total += layer.state_bytes
        for term in layer.cache:
            size = term.stored_elements * term.element_bytes / term.stride_tokens
            if term.window_tokens is not None:
                total += size * min(ctx, term.window_tokens) * (narrow if term.compressible else 1.0)
            else:
                total += size * (kept if term.compressible else ctx)
    return total
