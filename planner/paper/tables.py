"""The tables of the paper's analysis, as values.

Where the paper has a similar table whose cells weren't recovered, the table is rebuilt from its
formulas; `Table.origin` says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from catalog.schema import Hardware
from catalog.units import format_tokens
from planner.cost.session import NONE, SWAP
from planner.paper.cases import Study
from planner.paper.facts import compared_models, conventions
from planner.paper.session import interleaved_users, rounds_per_hour
from planner.paper.view import GIB, View, critical_tokens, kept, kv_bytes, metrics, priced, shape_provenance, stage_of

Cell = str | float | int | None
CONTEXTS = (4_000, 50_000, 100_000)
GPUS = ("a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb", "mi300x", "rtx-4090")
_NO_FIT = "don't fit"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the key in JSON, with its unit last, and the heading for people."""

    key: str
    title: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of computed values."""

    id: str
    title: str
    origin: Literal["paper", "rebuilt"]
    """paper: the paper's own example. rebuilt: our rows under the paper's formulas."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def _columns(**titles: str) -> tuple[Column, ...]:
    return tuple(Column(key, title) for key, title in titles.items())


_FOUR = {
    "users": "users",
    "prefill_s": "prefill [s]",
    "decode_s": "decode [s]",
    "switch_s": "switch [s]",
}


def _four(view: View, tokens: int, gpus: int = 1) -> tuple[Cell, ...]:
    found = metrics(view, tokens, gpus)
    return (_whole(view, found.users, gpus), found.prefill_s, found.decode_s, found.switch_s)


def _whole(view: View, users: float, gpus: int = 1) -> Cell:
    return _NO_FIT if view.hardware.hbm < stage_of(view, gpus).weight_bytes else int(users)


def running_example(study: Study) -> Table:
    """The paper's example at its three context lengths, and at 1M."""
    exact = study.attention(2.0)
    rows = []
    for tokens in (*CONTEXTS, 200_000, 1_000_000):
        found = metrics(study.base, tokens)
        rows.append(
            (
                format_tokens(tokens),
                kv_bytes(study.base, tokens) / GIB,
                found.users,
                *_four(study.base, tokens),
                metrics(exact, tokens).prefill_s,
            )
        )
    return Table(
        "running_example",
        "Running example: Yi-34B on one A100",
        "paper",
        _columns(ctx="ctx", kv_gib="KV [GiB]", caches="caches that fit", **_FOUR, prefill_exact_s="exact causal [s]"),
        tuple(rows),
        ("Prefill counts half of the FLOPs of exact causal attention, as the printed times imply.",),
    )


def tensor_parallelism(study: Study) -> Table:
    """One replica over 1, 2, 4 and 8 GPUs."""
    rows = []
    for gpus in (1, 2, 4, 8):
        at_4k, at_100k = (_whole(study.base, metrics(study.base, n, gpus).users, gpus) for n in (4_000, 100_000))
        rows.append((gpus, at_4k, *_four(study.base, 50_000, gpus), at_100k))
    return Table(
        "tensor_parallelism",
        "Tensor parallelism: Yi-34B at 50K on A100s",
        "rebuilt",
        _columns(gpus="GPUs", users_4k="users at 4K", **_FOUR, users_100k="users at 100K"),
        tuple(rows),
        ("Users grow more than linearly: weights are stored once. Communication is free here, as in the paper.",),
    )


def attention_kinds(study: Study) -> Table:
    """The example with one KV head per query head, in groups, and with one in all."""
    rows = []
    for kind, name in {"MHA": "yi-34b-mha", "GQA": "yi-34b-200k", "MQA": "yi-34b-mqa"}.items():
        view = study.model(name)
        eight = metrics(view, 50_000, 8)
        rows.append(
            (
                kind,
                kv_bytes(view, 50_000) / GIB,
                *_four(view, 50_000),
                eight.concurrency,
            )
        )
    return Table(
        "attention_kinds",
        "MHA to GQA to MQA: Yi-34B at 50K on one A100",
        "rebuilt",
        _columns(kind="attention", kv_gib="KV [GiB]", **_FOUR, users_8="users on 8"),
        tuple(rows),
        ("On 8 GPUs each holds a whole KV head at least: the one head of MQA is stored 8 times.",),
    )


def hardware(study: Study) -> Table:
    """The example on other GPUs, at the rates of the catalog."""
    named: list[tuple[str, View]] = [("A100 as in the paper", study.base)]
    named += [(study.catalog.get(Hardware, gpu).name, study.gpu(gpu)) for gpu in GPUS]
    rows = []
    for name, view in named:
        gpu = view.hardware
        users = metrics(view, 4_000).users
        rows.append(
            (
                name,
                gpu.flops.bf16 / 1e12,
                gpu.hbm_bandwidth / 1e12,
                gpu.hbm / GIB,
                gpu.pcie.effective / 1e9,
                critical_tokens(view),
                _whole(view, users),
                *_four(view, 50_000),
            )
        )
    return Table(
        "hardware",
        "GPUs: Yi-34B at 50K",
        "rebuilt",
        _columns(
            gpu="GPU",
            tflop_per_s="TFLOP/s",
            tb_per_s="TB/s",
            hbm_gib="HBM [GiB]",
            pcie_gb_per_s="PCIe [GB/s]",
            critical_tokens="critical batch",
            users_4k="users at 4K",
            **_FOUR,
        ),
        tuple(rows),
        (
            "Prefill follows FLOP/s, decode HBM bandwidth, switch PCIe; users only grow with HBM (A100 to H100: none).",
            "don't fit: the weights are larger than the HBM.",
            "Rates, with their sources: plan catalog show hardware ID. Which GPUs the paper compares wasn't recovered.",
        ),
    )


def models(study: Study) -> Table:
    """Other models on eight A100s."""
    rows = []
    for model in compared_models().values():
        view = study.model(model.id)
        eight = [_whole(view, metrics(view, tokens, 8).users, 8) for tokens in CONTEXTS]
        needed = next((n for n in (1, 2, 4, 8) if metrics(view, 50_000, n).users >= 1), None)
        one = metrics(view, 50_000)
        rows.append(
            (
                model.name,
                kv_bytes(view, 1),
                kv_bytes(view, 100_000) / GIB,
                stage_of(view).weight_bytes / 1e9,
                needed,
                *eight,
                one.prefill_s,
                one.decode_s,
                shape_provenance(study.catalog, model),
            )
        )
    return Table(
        "models",
        "Models on A100s",
        "rebuilt",
        _columns(
            model="model",
            kv_bytes_each="KV [B/token]",
            kv_100k_gib="KV 100K [GiB]",
            weights_gb="weights [GB]",
            gpus_50k="GPUs for one at 50K",
            users_4k="users on 8, 4K",
            users_50k="50K",
            users_100k="100K",
            prefill_s="prefill 50K [s]",
            decode_s="decode 50K [s]",
            provenance="shape",
        ),
        tuple(rows),
        (
            "Latencies divide the work by one A100, whether or not the model fits on it. Mixtures decode one sequence, "
            "which reads the active experts only. KV heads and MLA latents are copied where GPUs outnumber them.",
            "The paper's own list of models wasn't recovered.",
        ),
    )


def session_throughput(study: Study) -> Table:
    """Rounds per hour of one replica that serves one session at a time."""
    rows = [_sessions(study, tokens, gpus) for tokens, gpus in ((4_000, 1), (50_000, 1), (100_000, 1), (100_000, 2))]
    return Table(
        "session_throughput",
        "Session throughput: Yi-34B on A100s, a minute of reading",
        "rebuilt",
        _columns(
            ctx="ctx",
            gpus="GPUs",
            prefill_s="prefill [s]",
            decode_s="decode [s]",
            switch_s="switch [s]",
            rounds_per_hour_r1="rounds/h, R=1",
            rounds_per_hour_r5="rounds/h, R=5",
            interleaved_users="users in turns",
            cost_model_rounds_per_hour="cost model, R=5",
        ),
        tuple(rows),
        (
            "The paper defines throughput in words; the closed form is ours: R / (prefill + R (decode + switch)). "
            "Caches are switched every round where fewer fit than there are users in turns, one cache in and one out.",
            "The cost model keeps a cache where it is for the first answer, so it counts R-1 switches.",
        ),
    )


def _sessions(study: Study, tokens: int, gpus: int) -> tuple[Cell, ...]:
    reading_s = conventions().reading_time
    found = metrics(study.base, tokens, gpus)
    in_turns = interleaved_users(found.decode_s, 0.0, reading_s)
    crowded = found.concurrency < in_turns
    parts = (found.prefill_s, found.decode_s, found.switch_s if crowded else 0.0)
    if not found.concurrency:
        return (format_tokens(tokens), gpus, *parts, *("cache doesn't fit",) * 4)
    policy = SWAP if crowded else NONE
    steady = priced(replace(study.base, rounds=5, think_s=reading_s, policy=policy), tokens, gpus)
    return (
        format_tokens(tokens),
        gpus,
        *parts,
        rounds_per_hour(*parts, rounds=1),
        rounds_per_hour(*parts, rounds=5),
        interleaved_users(parts[1], parts[2], reading_s),
        float(steady.interactions_per_hour[0]),
    )


def parity(study: Study) -> Table:
    """What would make a cache of 1M tokens as cheap as one of 4K."""
    shares: dict[str, dict[str, float]] = {
        "none": {},
        "half of the tokens": {"token": 1 / 2},
        "4-bit KV": {"hidden": 1 / 4},
        "20 of 1024 heads": {"head": 20 / 1024},
        "1 of 60 layers": {"layer": 1 / 60},
        "1 of 60 layers, half of the tokens": {"layer": 1 / 60, "token": 1 / 2},
        "1 of 60 layers, 4-bit KV": {"layer": 1 / 60, "hidden": 1 / 4},
        "1 of 60 layers, half of the tokens, 4-bit KV": {"layer": 1 / 60, "token": 1 / 2, "hidden": 1 / 4},
    }
    short, million = 4_000, 1_000_000
    goal = kv_bytes(study.base, short)
    rows: list[tuple[Cell, ...]] = []
    for name, share in shares.items():
        table = kept(**share)
        size, found = kv_bytes(study.base, million, table), metrics(study.base, million, 1, table)
        reached = "yes" if size <= goal else f"{size / goal:.3g}x too large"
        rows.append((name, kv_bytes(study.base, million) / size, size / GIB, found.users, found.decode_s, reached))
    gaps = [
        metrics(study.attention(a), million).prefill_s / metrics(study.attention(a), short).prefill_s
        for a in (1.0, 2.0)
    ]
    return Table(
        "parity",
        "1M as cheap as 4K: Yi-34B on one A100",
        "rebuilt",
        _columns(
            kept="what is kept",
            reduction="reduction",
            kv_1m_gib="KV 1M [GiB]",
            caches_1m="caches that fit",
            decode_1m_s="decode 1M [s]",
            parity="KV no larger than at 4K",
        ),
        tuple(rows),
        (
            f"Needed: {kv_bytes(study.base, million) / goal:.0f}x less KV than uncompressed at 1M.",
            f"KV alone can't do it: prefill of 1M takes {gaps[0]:.0f} times that of 4K ({gaps[1]:.0f} with exact "
            "causal attention), and cuts by head, token or hidden dimension leave it untouched.",
        ),
    )
