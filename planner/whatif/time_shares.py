"""Where the GPU time of an interaction goes, read off a plan."""

from __future__ import annotations

from planner.plan import Document
from planner.whatif.parity_document import TimeShares

OTHER = {
    "serial": "HBM size: one session at a time",
    "hbm": "HBM size: sessions that wait between rounds",
    "memory": "HBM size: it doesn't fit",
    "ddr": "the offload tier's size",
    "pcie": "PCIe",
    "link": "the link between the pools",
}
"""Bound of a plan -> what takes the time that neither prefill nor decoding takes; others only leave it free."""


def time_shares(plan: Document) -> TimeShares | None:
    """Split a plan's GPU time per session into prefill, decoding and the rest; None without a plan of one service.

    A session takes ``3600 GPUs / sessions per hour`` GPU-seconds. Decoding takes ``R a step / b`` of each
    decode replica. Where the GPU's time is the bound, prefill is what decoding leaves of the planned
    utilisation; else it is the document's own prefill on an idle replica, without later questions.
    """
    metrics = plan.metrics
    if metrics is None or plan.decision is None or metrics.sessions_per_hour <= 0:
        return None
    if len(plan.decision.services) > 1:
        return None  # Each splits its time in its own way.
    decision = plan.decision.service
    request = plan.request
    tokens = float(request["rounds"] * request["output_tokens"])
    pools = decision.pools
    main = pools.decode if pools else None
    parallel, batch = (main.parallel, main.batch) if main else (decision.parallel, decision.batch)
    prefill_parallel = pools.prefill.parallel if pools else parallel
    total = 3600.0 * metrics.gpus_used / metrics.sessions_per_hour
    bound = plan.provenance.bounded_by or ""
    gpus = _gpus(parallel.tp, parallel.pp, parallel.pcp)
    sequences = 1 if bound == "serial" else batch.decode_sequences
    decode = min(1.0, gpus * tokens * metrics.step_s / sequences / total)
    if bound == "gpu" and pools is None:
        utilisation = 1.0 if request["efficiency"] == "peak" else float(request["utilisation"])
        prefill = max(0.0, utilisation - decode)
    else:
        prefill_gpus = _gpus(prefill_parallel.tp, prefill_parallel.pp, prefill_parallel.pcp)
        prefill = min(1.0 - decode, prefill_gpus * metrics.prefill_s / total)
    other = max(0.0, 1.0 - prefill - decode)
    words = {"prefill compute": prefill, "decoding: HBM bandwidth": decode}
    if bound in OTHER:
        words[OTHER[bound]] = other
    return TimeShares(prefill=prefill, decode=decode, other=other, stopped_by=max(words, key=lambda name: words[name]))


def _gpus(tp: int | None, pp: int, pcp: int) -> int:
    return (tp or 1) * pp * pcp
