"""One kind of replica under every combination of compression: what fits, and how long its parts take.

All times of a session come from `Pool.prefill_s`, `Pool.chunk_s` and `Pool.step_s`: measured times where
the setting has them, and never less than the roofline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.candidates import Floats, Ints, Setting
from planner.cost.compression import CompressionTable
from planner.cost.compute import Compressed, Rates, chunk_s, decode_step_s, prefill_s, rates
from planner.cost.memory import largest_session_bytes, session_bytes, sessions_that_fit, shared_bytes
from planner.cost.replica import Replica, shard
from planner.cost.times import ReplicaTimes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pool:
    """A replica, with arrays over the combinations of compression or, after `take`, over candidates."""

    replica: Replica
    rate: Rates
    left: Compressed
    fit: Floats
    """Sessions that fit, at their full length."""
    stage_bytes: tuple[tuple[float, Floats, Floats], ...]
    """Per stage: weights, one session at its end, the shared prefix [bytes per GPU]."""
    end_bytes: Floats
    """One session at its end on the GPU that holds most of it, without the shared prefix [bytes]."""
    prompt_bytes: Floats
    """As `end_bytes`, after the first prompt [bytes]."""
    warm_bytes: Floats
    """As `end_bytes`, at the mean length between two rounds [bytes]."""
    later_prompt_bytes: Floats
    """As `end_bytes`, after a later question, at the mean of their lengths [bytes]."""
    whole_warm_bytes: Floats
    """As `warm_bytes`, with the shared prefix [bytes]."""
    last_warm_bytes: Floats
    """As `end_bytes`, before the last round [bytes]."""
    times: ReplicaTimes | None = None
    """Measured times; None: the roofline alone."""

    @staticmethod
    def of(setting: Setting, index: int, left: Compressed) -> Pool:
        """Split the model as shape ``index`` says, and measure its sessions under every combination."""
        shape = setting.shapes[index]
        weights = setting.weight_formats[shape.weights]
        replica = shard(setting.architecture, shape, weights)
        work, table = setting.workload, setting.compression
        prompt, shared = float(work.prompt_tokens), float(work.shared_prefix_tokens)
        flops = setting.hardware.flops
        linear = getattr(flops, weights.flops_precision) or flops.bf16

        ends = [session_bytes(stage, table, prompt, work.end_tokens, shared) for stage in replica.stages]
        known = {(float(work.end_tokens), shared): _largest(ends)}

        def largest(tokens: float, shared: float) -> Floats:
            key = (float(tokens), shared)
            if key not in known:  # Without growth several lengths are the same.
                known[key] = largest_session_bytes(replica, table, prompt, tokens, shared)
            return known[key]

        return Pool(
            replica=replica,
            rate=rates(flops.bf16, linear, setting.hardware.hbm_bandwidth, setting.efficiency),
            left=left,
            fit=fit_of(setting, index),
            stage_bytes=tuple(
                (
                    stage.weight_bytes,
                    end,
                    shared_bytes(stage, table, prompt, shared),
                )
                for stage, end in zip(replica.stages, ends, strict=True)
            ),
            end_bytes=largest(work.end_tokens, shared),
            prompt_bytes=largest(prompt, shared),
            warm_bytes=largest(work.warm_tokens, shared),
            later_prompt_bytes=largest(work.later_prompt_tokens, shared),
            whole_warm_bytes=largest(work.warm_tokens, 0.0),
            last_warm_bytes=largest(work.last_warm_tokens, shared),
            times=setting.timer.times(setting.architecture, shape, weights) if setting.timer else None,
        )

    def take(self, rows: Ints) -> Pool:
        """Return one row per candidate."""
        return replace(
            self,
            left=self.left.take(rows),
            fit=self.fit[rows],
            stage_bytes=tuple((weights, end[rows], prefix[rows]) for weights, end, prefix in self.stage_bytes),
            end_bytes=self.end_bytes[rows],
            prompt_bytes=self.prompt_bytes[rows],
            warm_bytes=self.warm_bytes[rows],
            later_prompt_bytes=self.later_prompt_bytes[rows],
            whole_warm_bytes=self.whole_warm_bytes[rows],
            last_warm_bytes=self.last_warm_bytes[rows],
        )

    @property
    def gpus(self) -> int:
        """GPUs of the replica."""
        return self.replica.shape.gpus

    def fullest(self, resident: Floats) -> tuple[Floats, Floats]:
        """Return weights and KV on the GPU that holds most of both ``(candidate,)`` [bytes]."""
        weights, kv = np.zeros_like(resident), np.zeros_like(resident)
        for stage_weights, end, prefix in self.stage_bytes:
            stage_kv = np.maximum(resident, 0.0) * end + prefix
            fuller = stage_weights + stage_kv > weights + kv
            weights, kv = np.where(fuller, stage_weights, weights), np.where(fuller, stage_kv, kv)
        return weights, kv

    def prefill_s(self, start: Floats | float, end: Floats | float, size: Floats) -> tuple[Floats, Floats]:
        """GPU time and latency of tokens ``start`` to ``end``: (chunks + pp - 1) times the slowest stage [s]."""
        shape = self.replica.shape
        busy = _largest([prefill_s(s, self.rate, start, end, size, self.left, shape.pcp) for s in self.replica.stages])
        latency = busy
        if shape.pp > 1:
            last = self._roofline_chunk_s(size, np.maximum(end - size, start)) / shape.pp
            latency = busy + (shape.pp - 1) * last
        if self.times is None:
            return busy, latency
        measured = self.times.prefill_s(start, end, size, self.left)
        return np.maximum(busy, measured[0]), np.maximum(latency, measured[1])

    def slots(self, tokens: Floats | float, size: Floats) -> Floats:
        """Decode steps that a prefill of so many tokens gives way to: (chunks + pp - 1) / pp whole ones."""
        pp = self.replica.shape.pp
        return (np.ceil(tokens / size) + pp - 1.0) / pp

    def chunk_s(self, size: Floats, position: Floats | float) -> Floats:
        """A chunk's time through the whole pipeline, at worst [s]."""
        roofline = self._roofline_chunk_s(size, position)
        return roofline if self.times is None else np.maximum(roofline, self.times.chunk_s(size, position, self.left))

    def _roofline_chunk_s(self, size: Floats, position: Floats | float) -> Floats:
        shape = self.replica.shape
        stages = [
            chunk_s(stage, self.rate, size, position, self.left, shape.pcp, worst=True) for stage in self.replica.stages
        ]
        return shape.pp * _largest(stages)

    def step_s(self, sequences: Floats, tokens: float) -> Floats:
        """A quiet decode step: pp microbatches through pp stages [s]."""
        pp = self.replica.shape.pp
        micro = np.ceil(sequences / pp)
        roofline = pp * _largest(
            [decode_step_s(stage, self.rate, micro, tokens, self.left) for stage in self.replica.stages]
        )
        if self.times is None:
            return roofline
        parts = self.times.step_parts(sequences, tokens, self.left)
        return np.maximum(roofline, _largest(list(parts)) * self.left.decode_time)


def fit_of(setting: Setting, index: int) -> Floats:
    """Sessions that fit a replica of shape ``index``, at their full length, under every combination."""
    shape, work = setting.shapes[index], setting.workload
    replica = shard(setting.architecture, shape, setting.weight_formats[shape.weights])
    prompt, shared = float(work.prompt_tokens), float(work.shared_prefix_tokens)
    return sessions_that_fit(replica, setting.compression, setting.model_bytes, prompt, work.end_tokens, shared)


def compressed(table: CompressionTable, prompt: float, tokens: float, technique_time: bool) -> Compressed:
    """What compression leaves of a cache of ``tokens`` tokens, ``prompt`` of them evictable."""
    none = np.ones(len(table))
    return Compressed(
        read_tokens=table.read_tokens(prompt, tokens),
        attended_tokens=table.attended_tokens(prompt, tokens),
        element_share=table.element_reads_share(),
        prefix_share=table.prefix_share(),
        prefill_linear=table.prefill_linear,
        prefill_attention=table.prefill_attention,
        decode_time=table.decode_time if technique_time else none,
        prefill_time=table.prefill_time if technique_time else none,
    )


def _largest(values: list[Floats]) -> Floats:
    return values[0] if len(values) == 1 else np.maximum.reduce(values)
