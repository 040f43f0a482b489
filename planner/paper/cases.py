"""Every number of the paper's analysis that can be checked, computed by the cost model.

`CASES` maps an id to what it means, its unit and its computation. Printed values are compared with
these, and ``tests/golden/paper.json`` pins them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from catalog.load import Catalog
from catalog.schema import Hardware
from planner.paper.facts import conventions, printed_values
from planner.paper.session import busy_s, interleaved_users
from planner.paper.view import (
    GIB,
    View,
    always_memory_bound_tokens,
    critical_tokens,
    crossover_tokens,
    decode_s,
    kept,
    kv_bytes,
    metrics,
    on,
    paper_view,
    rates_of,
    stage_of,
)

FITTED_WIDTH = 399_360
"""FLOPs of attention per token and context token that reproduce both printed prefill times (a fit, no evidence)."""
_ROUNDED_LINK = 20e9
"""The paper's PCIe bandwidth if its GB were 1e9 bytes [bytes/s]."""


@dataclass(frozen=True)
class Study:
    """The paper's example under its own conventions and under other readings of them."""

    catalog: Catalog

    @cached_property
    def base(self) -> View:
        """Yi-34B on the paper's A100."""
        return paper_view(self.catalog)

    @cached_property
    def datasheet(self) -> View:
        """With the HBM bandwidth of the data sheet."""
        gpu = self.catalog.get(Hardware, conventions().hardware)
        return paper_view(self.catalog, hbm_bandwidth=gpu.hbm_bandwidth)

    @cached_property
    def decimal(self) -> View:
        """With a link whose GB are 1e9 bytes."""
        return paper_view(self.catalog, pcie=_ROUNDED_LINK)

    def attention(self, coefficient: float) -> View:
        """With another coefficient of attention."""
        return paper_view(self.catalog, attention_coefficient=coefficient)

    @cached_property
    def fitted(self) -> View:
        """With the coefficient that reproduces the printed prefill times."""
        one = sum(term.prefill_flops for term in stage_of(self.attention(1.0)).terms) / 2.0
        return self.attention(FITTED_WIDTH / one)

    def model(self, name: str) -> View:
        """Another model on the paper's A100."""
        return paper_view(self.catalog, name)

    def gpu(self, name: str) -> View:
        """The paper's model on another GPU of the catalog."""
        return on(self.catalog, self.catalog.get(Hardware, name))

    def per_token(self, name: str) -> float:
        """KV cache of a model per token [bytes]."""
        return kv_bytes(self.model(name), 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One checkable number."""

    label: str
    unit: str
    compute: Callable[[Study], float]


def printed(name: str) -> float:
    """A number as the paper prints it."""
    return next(row.value for row in printed_values() if row.id == name and row.value is not None)


def printed_busy_s(context: str, rounds: int, *, swapped: bool) -> float:
    """GPU time of a session from the printed latencies [s]."""
    switch = printed("switch-50k") if swapped else 0.0
    return busy_s(printed(f"prefill-{context}"), printed(f"decode-{context}"), switch, rounds)


def _kv(tokens: int, unit: float = GIB) -> Callable[[Study], float]:
    return lambda study: kv_bytes(study.base, tokens) / unit


def _users(tokens: int, gpus: int) -> Callable[[Study], float]:
    return lambda study: metrics(study.base, tokens, gpus).users


def _prefill(tokens: int, coefficient: float) -> Callable[[Study], float]:
    return lambda study: metrics(study.attention(coefficient), tokens).prefill_s


def _share(name: str) -> Callable[[Study], float]:
    def halved(study: Study) -> float:
        two, one = (metrics(study.base, 50_000, gpus) for gpus in (2, 1))
        return float(getattr(two, name) / getattr(one, name))

    return halved


def _ratio(**shares: float) -> Callable[[Study], float]:
    return lambda study: kv_bytes(study.base, 10**6) / kv_bytes(study.base, 10**6, kept(**shares))


def _hand_decode_s(study: Study) -> float:
    return decode_s(study.base, printed("kv-50k") * 1e9)


def _flop(time_s: float, study: Study) -> float:
    return time_s * rates_of(study.base).linear_flops_per_s / 1e15


def _mla_saving(study: Study) -> float:
    latent = kv_bytes(study.model("deepseek-v2"), 1000, kept(hidden=6 / 16))
    return 1.0 - latent / kv_bytes(study.model("deepseek-67b"), 1000)


KV_CASES = {
    "KV-TOK": Case("KV per token", "B", lambda study: kv_bytes(study.base, 1)),
    "KV-4K": Case("KV, 4K tokens", "GiB", _kv(4_000)),
    "KV-4K-dec": Case("KV, 4K tokens", "GB", _kv(4_000, 1e9)),
    "KV-50K": Case("KV, 50K tokens", "GiB", _kv(50_000)),
    "KV-100K": Case("KV, 100K tokens", "GiB", _kv(100_000)),
    "KV-100K-dec": Case("KV, 100K tokens", "GB", _kv(100_000, 1e9)),
    "KV-1M": Case("KV, 1M tokens", "GiB", _kv(10**6)),
    "KV-RATIO": Case("KV of 1M over 4K tokens", "x", lambda s: kv_bytes(s.base, 10**6) / kv_bytes(s.base, 4_000)),
    "W-Yi": Case("weights", "GiB", lambda study: stage_of(study.base).weight_bytes / GIB),
    "W-Yi-dec": Case("weights", "GB", lambda study: stage_of(study.base).weight_bytes / 1e9),
    "MHA-GQA": Case(
        "KV, MHA over GQA", "x", lambda study: study.per_token("yi-34b-mha") / study.per_token("yi-34b-200k")
    ),
    "CMD-R+": Case("Command R+, KV, 100K", "GiB", lambda s: kv_bytes(s.model("command-r-plus"), 100_000) / GIB),
    "CMD-R": Case("Command R v01, KV, 100K", "GiB", lambda s: kv_bytes(s.model("command-r-v01"), 100_000) / GIB),
    "MIX": Case("Mixtral-8x7B, KV per token", "B", lambda study: study.per_token("mixtral-8x7b")),
    "LL2-7B": Case("Llama-2-7B, KV per token", "B", lambda study: study.per_token("llama-2-7b")),
    "LL3-70B": Case("Llama-3-70B, KV per token", "B", lambda study: study.per_token("llama-3-70b")),
    "MLA": Case("DeepSeek-V2, KV per token", "B", lambda study: study.per_token("deepseek-v2")),
    "MLA-933": Case("6-bit MLA against DeepSeek-67B", "saved", _mla_saving),
}
TIME_CASES = {
    "CC-1-4K": Case("users on 1 GPU, 4K", "users", _users(4_000, 1)),
    "CC-1-50K": Case("users on 1 GPU, 50K", "users", _users(50_000, 1)),
    "CC-2-4K": Case("users on 2 GPUs, 4K", "users", _users(4_000, 2)),
    "CC-2-100K": Case("users on 2 GPUs, 100K", "users", _users(100_000, 2)),
    "CC-8-100K": Case("users on 8 GPUs, 100K", "users", _users(100_000, 8)),
    "AI-A100": Case("critical batch, A100", "tokens", lambda study: critical_tokens(study.base)),
    "AI-H100": Case("critical batch, H100", "tokens", lambda study: critical_tokens(study.gpu("H100"))),
    "PF-4K-w": Case("prefill, 4K, weights only", "s", _prefill(4_000, 0.0)),
    "PF-4K-1": Case("prefill, 4K, attention 1", "s", _prefill(4_000, 1.0)),
    "PF-50K-1": Case("prefill, 50K, attention 1", "s", _prefill(50_000, 1.0)),
    "PF-4K-cal": Case("prefill, 4K, attention fitted", "s", lambda study: metrics(study.fitted, 4_000).prefill_s),
    "PF-50K-cal": Case("prefill, 50K, attention fitted", "s", lambda study: metrics(study.fitted, 50_000).prefill_s),
    "PF-50K-2": Case("prefill, 50K, exact causal", "s", _prefill(50_000, 2.0)),
    "PF-50K-4": Case("prefill, 50K, not causal", "s", _prefill(50_000, 4.0)),
    "PF-1M-1": Case("prefill, 1M, attention 1", "s", _prefill(10**6, 1.0)),
    "PF-FLOP-50K": Case("work behind the printed 14.1 s", "PFLOP", lambda s: _flop(printed("prefill-50k"), s)),
    "PF-FLOP-4K": Case("work behind the printed 0.89 s", "PFLOP", lambda s: _flop(printed("prefill-4k"), s)),
    "PF-FLOP-50K-formula": Case(
        "prefill, 50K, attention 1", "PFLOP", lambda s: _flop(metrics(s.attention(1.0), 50_000).prefill_s, s)
    ),
    "DC-4K-2039": Case("decode, 4K, 2.039 TB/s", "s", lambda study: metrics(study.datasheet, 4_000).decode_s),
    "DC-50K-2039": Case("decode, 50K, 2.039 TB/s", "s", lambda study: metrics(study.datasheet, 50_000).decode_s),
    "DC-4K-2000": Case("decode, 4K, 2 TB/s", "s", lambda study: metrics(study.base, 4_000).decode_s),
    "DC-50K-2000": Case("decode, 50K, 2 TB/s", "s", lambda study: metrics(study.base, 50_000).decode_s),
    "DC-0-2000": Case("decode, no KV, 2 TB/s", "s", lambda study: decode_s(study.base, 0)),
    "DC-hand": Case("decode, 11e9 bytes of KV, 2 TB/s", "s", _hand_decode_s),
    "CS-50K": Case("switch, 50K, KV in GiB", "s", lambda study: metrics(study.base, 50_000).switch_s),
    "CS-50K-dec": Case("switch, 50K, bytes", "s", lambda study: metrics(study.decimal, 50_000).switch_s),
    "CS-4K-dec": Case("switch, 4K, bytes", "s", lambda study: metrics(study.decimal, 4_000).switch_s),
    "TP2-PF": Case("prefill, 2 GPUs over 1", "x", _share("prefill_s")),
    "TP2-DC": Case("decode, 2 GPUs over 1", "x", _share("decode_s")),
    "TP2-CC": Case("users on 2 GPUs, 50K", "users", _users(50_000, 2)),
    "TP2-CC-growth": Case("users, 2 GPUs over 1", "x", _share("users")),
}
SESSION_CASES = {
    "CP-layer": Case("KV of 1M in one layer of 60", "GiB", lambda s: kv_bytes(s.base, 10**6, kept(layer=1 / 60)) / GIB),
    "CP-head": Case("KV over 20 of 1024 heads", "x", _ratio(head=20 / 1024)),
    "CP-parity": Case("KV of 4K over 1M tokens", "x", lambda s: kv_bytes(s.base, 4_000) / kv_bytes(s.base, 10**6)),
    "CB-layer-token": Case("1 of 60 layers, half of the tokens", "x", _ratio(layer=1 / 60, token=1 / 2)),
    "CB-head-token": Case("10 of 1024 heads, half of the tokens", "x", _ratio(head=10 / 1024, token=1 / 2)),
    "CB-all": Case("layers, heads and tokens together", "x", _ratio(layer=1 / 60, head=10 / 1024, token=1 / 2)),
    "SS-50K-1": Case("GPU time per session, 50K, 1 round", "s", lambda _: printed_busy_s("50k", 1, swapped=True)),
    "SS-50K-5": Case("GPU time per session, 50K, 5 rounds", "s", lambda _: printed_busy_s("50k", 5, swapped=True)),
    "SS-4K-5": Case("GPU time per session, 4K, 5 rounds", "s", lambda _: printed_busy_s("4k", 5, swapped=False)),
    "SS-INT": Case(
        "users interleaved in a reading pause, 50K",
        "users",
        lambda _: interleaved_users(printed("decode-50k"), printed("switch-50k"), conventions().reading_time),
    ),
    "XO-1": Case("prefill outlasts decode, attention 1", "tokens", lambda s: crossover_tokens(s.attention(1.0))),
    "XO-2": Case("prefill outlasts decode, exact causal", "tokens", lambda s: crossover_tokens(s.attention(2.0))),
    "XO-0": Case(
        "prefill outlasts decode, weights only",
        "tokens",
        lambda s: critical_tokens(s.base) * s.base.output_tokens,
    ),
    "DEC-NEVER": Case(
        "decode is memory-bound at any batch beyond", "tokens", lambda s: always_memory_bound_tokens(s.base)
    ),
}
CASES: dict[str, Case] = {**KV_CASES, **TIME_CASES, **SESSION_CASES}
"""All of them, by id."""
