"""A decision in the parts that are chosen one by one: what two decisions differ in, and one with a part of the other.

Tensor and pipeline sizes, pools and batch belong together where a deployment has two pools: they are one
part then.
"""

from __future__ import annotations

from planner.service import DIMENSIONS, Batch, Choice, Parallel, Pool, Service

PARTS = ("weights", *DIMENSIONS, "engine", "parallel", "decode_batch", "prefill_chunk", "serving", "offload")
"""Every part, in the order in which differences are told."""

WHOLE = "services"
"""The part that is the whole decision, where several services stand side by side."""

Services = tuple[Service, ...]
"""Of one decision."""

_OF_POOLS = ("parallel", "decode_batch", "prefill_chunk", "serving")


def differing(one: Services, other: Services) -> tuple[str, ...]:
    """Parts in which two decisions differ, in the order of `PARTS`; `WHOLE` where one has several services."""
    if len(one) > 1 or len(other) > 1:
        return (WHOLE,) if one != other else ()
    (one_service,), (other_service,) = one, other
    pooled = one_service.pools is not None or other_service.pools is not None
    found = []
    for part in PARTS:
        if pooled and part in _OF_POOLS:
            if part == "serving" and _deployment(one_service) != _deployment(other_service):
                found.append(part)
        elif _value(one_service, part) != _value(other_service, part):
            found.append(part)
    return tuple(found)


def with_part(services: Services, other: Services, part: str) -> Services:
    """A decision's services with one part as the other has it."""
    if part == WHOLE:
        return other
    return (_with_part(services[0], other[0], part),)


def _with_part(service: Service, other: Service, part: str) -> Service:
    if part in DIMENSIONS:
        choice = getattr(other.compression, part)
        return service.model_copy(update={"compression": service.compression.model_copy(update={part: choice})})
    if part == "decode_batch":
        return _with_batch(service, other, "decode_sequences", "resident_sessions")
    if part == "prefill_chunk":
        return _with_batch(service, other, "prefill_chunk_tokens", "prefill_throttled")
    if part == "serving":
        names = ("parallel", "batch", "serving", "pools")
        return service.model_copy(update={name: getattr(other, name) for name in names})
    return service.model_copy(update={part: getattr(other, part)})


def part_text(decision: Service, part: str) -> str:
    """A part of a decision in a few words.

    >>> part_text(Service(engine="vllm", parallel=Parallel(tp=8)), "parallel")
    'tp 8, 1 replica'
    """
    batch = decision.pools.decode.batch if decision.pools else decision.batch
    if part in DIMENSIONS:
        return choice_text(getattr(decision.compression, part))
    if part == "parallel":
        return parallel_text(decision.parallel) if decision.pools is None else _pools_text(decision)
    if part == "decode_batch":
        return _decode_text(batch)
    if part == "prefill_chunk":
        return _chunk_text(batch)
    if part == "serving":
        return decision.serving if decision.pools is None else f"disaggregated: {_pools_text(decision)}"
    if part == "offload":
        tier = f" to {decision.offload.tier}" if decision.offload.tier else ""
        return f"{decision.offload.policy}{tier}"
    return str(getattr(decision, part))


def whole_text(services: Services) -> str:
    """Several services in one line."""
    return " beside ".join(
        f"{service.engine}, {service.weights} weights, {serving_text(service)}" for service in services
    )


def serving_text(decision: Service) -> str:
    """The whole deployment where one of two decisions has pools and the other may not."""
    if decision.pools is not None:
        return part_text(decision, "serving")
    return (
        f"aggregated: {parallel_text(decision.parallel)}, {_decode_text(decision.batch)}, {_chunk_text(decision.batch)}"
    )


def choice_text(choice: Choice) -> str:
    """The catalog's point, or ``none``."""
    return "none" if choice.technique == "none" else choice.point or choice.technique


def parallel_text(parallel: Parallel) -> str:
    """How a model is split, without what is 1."""
    sizes = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    sizes = [size for size in sizes if not size.endswith(" 1")] or ["tp 1"]
    return f"{' x '.join(sizes)}, {parallel.replicas} replica{'s' if parallel.replicas != 1 else ''}"


def _decode_text(batch: Batch) -> str:
    alone = ", one session at a time" if batch.resident_sessions == 1 else ""
    return f"{batch.decode_sequences} decoding{alone}"


def _chunk_text(batch: Batch) -> str:
    size = batch.prefill_chunk_tokens
    yields = ", yielding" if batch.prefill_throttled else ""
    return f"chunks of {size} tokens{yields}" if size else f"prompts in one piece{yields}"


def _pools_text(decision: Service) -> str:
    if decision.pools is None:
        return parallel_text(decision.parallel)
    prefill, decode = decision.pools.prefill, decision.pools.decode
    return f"prefill {_pool_text(prefill)}; decode {_pool_text(decode)}, {_decode_text(decode.batch)}"


def _pool_text(pool: Pool) -> str:
    return parallel_text(pool.parallel)


def _deployment(decision: Service) -> tuple[object, ...]:
    return (decision.parallel, decision.batch, decision.serving, decision.pools)


def _value(decision: Service, part: str) -> object:
    if part in DIMENSIONS:
        return getattr(decision.compression, part)
    if part == "decode_batch":
        return (decision.batch.decode_sequences, decision.batch.resident_sessions)
    if part == "prefill_chunk":
        return (decision.batch.prefill_chunk_tokens, decision.batch.prefill_throttled)
    return getattr(decision, part)


def _with_batch(decision: Service, other: Service, *names: str) -> Service:
    batch = decision.batch.model_copy(update={name: getattr(other.batch, name) for name in names})
    return decision.model_copy(update={"batch": batch})
