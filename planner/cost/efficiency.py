"""How far real hardware and engines stay behind the peak.

`PEAK` is the view of the source paper: every factor is 1, all of HBM and of the GPUs' time may be
used, nothing but weights and KV takes memory, and every length is the context. A measured view has
the same fields with fitted values.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Factors between the roofline and what is predicted.

    Every factor is a share of the peak in (0, 1]: a prediction is never faster than the roofline.
    """

    name: str
    linear_flops: float = 1.0
    """Share of peak FLOP/s that the linear layers reach."""
    attention_flops: float = 1.0
    """Share of peak FLOP/s that attention reaches."""
    hbm_bandwidth: float = 1.0
    """Share of peak HBM bandwidth."""
    hbm_utilisation: float = 1.0
    """Share of HBM that may be filled."""
    workspace_bytes: float = 0.0
    """Activations of a step on each GPU; with chunked prefill they don't grow with the context [bytes]."""
    overhead_bytes: float = 0.0
    """What the engine and its libraries take beside them [bytes]."""
    gpu_utilisation: float = 1.0
    """Planned share of the GPUs' time (rho)."""
    overlap: bool = True
    """True: compute and memory traffic of a step overlap perfectly. False: linear layers and attention
    run one after the other, each bounded by the slower of its compute and its bytes."""
    growth: bool = False
    """True: the session grows by each question and answer. False: every length is the context."""
    technique_time: bool = False
    """True: techniques take the time that was measured of them (`catalog.schema.TimeOverhead`), beside
    the bytes and FLOPs that they save. False: only bytes and FLOPs count, as in the paper."""
    copies: float = 1.0
    """Rate of copies between HBM and the offload tiers over the link's effective rate; never beyond its nominal one."""
    shared_uplinks: bool = False
    """True: GPUs behind one PCIe uplink share it. False: one link per GPU, as in the paper."""
    decode_reserves: bool = False
    """True: a decode replica keeps room for a prompt from when it waits for its prefill in another pool. False: from
    when its cache arrives."""

    def __post_init__(self) -> None:
        for field in ("linear_flops", "attention_flops", "hbm_bandwidth", "hbm_utilisation", "gpu_utilisation"):
            value = getattr(self, field)
            if not 0.0 < value <= 1.0:
                raise ValueError(f"{field} must be in (0, 1]; got {value}")


PEAK = Efficiency("peak")
"""Theoretical peak: reproduces arXiv 2405.08944."""
