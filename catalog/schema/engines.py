"""Serving engines: what each runs, on which GPUs, and how it is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from catalog.schema.base import Bytes, Entry, Fact, Fraction, Id, Text


class KvFormat(Fact):
    """How an engine stores K and V: bits, scales, and which GPUs and attention kinds it takes."""

    option: str
    """The value of the engine's own setting, e.g. ``int8_per_token_head``."""
    technique_point: Id
    """The catalog point (dimension hidden) that this format realises."""
    k_bits: Annotated[float, Field(gt=0)]
    v_bits: Annotated[float, Field(gt=0)]
    scale_bytes_per_head: Fraction = 0.0
    """Scales and zero points, K and V together, per token and KV head."""
    group_elements: int | None = None
    """Block scaling: one scale byte per this many elements."""
    unquantised_edge_layers: int = 0
    """Layers kept in bf16 at each end of a dense model."""
    compute_capabilities: tuple[Text, ...]
    attention: tuple[str, ...]
    head_dims: tuple[int, ...] = ()
    """Head dimensions that the kernel takes; empty: every one."""
    attention_sinks: bool = True
    """Whether models with attention sinks (gpt-oss, MiMo) can use it."""
    backend: dict[str, str] = {}
    """Compute capability -> attention backend that the engine chooses."""
    note: str | None = None


class WeightFormat(Fact):
    """A weight precision that an engine loads, and on which GPUs."""

    technique_point: Id
    setting: str | None = None
    compute_capabilities: tuple[Text, ...]
    made_at_load: bool = False
    """Made from the model's own weights while they are loaded, without a checkpoint of its own."""
    experts: bool = True
    """Whether mixtures of experts can have it; False: dense layers only."""
    note: str | None = None


class CheckpointFormat(Fact):
    """Weights that a checkpoint's makers quantised, as an engine runs them on some GPUs."""

    quant_method: str
    """As ``quantization_config.quant_method`` of the checkpoint has it: ``fp8``, ``compressed-tensors``, ..."""
    algorithm: str | None = None
    """What of the method, where it has several: ``FP8``, ``NVFP4``, ``W8A8-INT8``, ``W4A16``. None: all of them."""
    point: Id | None = None
    """The catalog point of the weights that this is; None: no technique of the catalog has this precision."""
    compute_capabilities: tuple[Text, ...]
    weight_only: bool
    """True: only bytes shrink, products are made in bf16 after the weights are unpacked (Marlin)."""
    experts: bool = True
    """Whether mixtures of experts can have it; False: dense layers only."""
    note: str | None = None


class Parallelism(Fact):
    """Which ways of splitting a model an engine has."""

    tensor: bool = True
    pipeline: bool = False
    decode_context: bool = False
    prefill_context: bool = False
    expert: bool = False
    attention_data: bool = False
    note: str | None = None


class PoolTransfer(Fact):
    """Which prefill and decode servers can hand caches over; their tensor-parallel sizes divide one another."""

    prefill_pipeline: bool = False
    """Whether a prefill server may be a pipeline."""
    decode_pipeline: bool = False
    """Whether a decode server may be one, of as many stages as the prefill server."""
    decode_context: Literal["none", "latent", "any"] = "none"
    """Where a decode server may spread tokens over ranks: nowhere, with latent caches over all ranks, or anywhere."""


class Offload(Fact):
    """A tier below HBM into which an engine moves KV between rounds."""

    tier: Literal["ddr", "nvme"]
    setting: str
    inclusive: bool
    """True: the copy stays in the tier for the whole session, also while the cache is in HBM."""
    link_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the link's rate that the engine's copies reach; None: nobody measured it."""
    note: str | None = None


class StepMemory(Fact):
    """HBM that an engine reserves at start for one step over a session of the longest length."""

    most_tokens: Annotated[int, Field(ge=1)]
    """Most tokens of a step that are planned; a longer chunk is computed in several [tokens]."""
    mask_bytes: Fraction
    """Attention mask, per token of the step and token of the session [bytes]."""
    hidden_widths: Fraction
    """Activations per token of the step, in widths of the residual stream, beside those of one block [elements]."""
    element_bytes: Fraction
    """Of an activation [bytes]."""
    unpacked_kv_bytes: Fraction = 0.0
    """Of an element of one layer's cache of one session, unpacked for the step [bytes]; 0: read as it is stored."""


class EngineMemory(Fact):
    """HBM that an engine takes on each GPU beside weights and caches."""

    workspace: Bytes
    """Activations of dense models in chunked prefill, whatever the context."""
    workspace_experts: Bytes
    """The same of mixtures of experts."""
    overhead: Bytes
    """Libraries, communication buffers, captured graphs."""
    step: StepMemory | None = None
    """What a step takes beside `workspace`, where it grows with the session; None: it doesn't."""


class Engine(Entry):
    """One serving engine at one version."""

    version: Text
    compute_capabilities: tuple[Text, ...]
    kv_block_tokens: Annotated[int, Field(ge=1)]
    hbm_utilisation: Annotated[float, Field(gt=0, le=1)]
    """Share of HBM that the engine takes by default."""
    memory: EngineMemory | None = None
    """None: not measured; the planner takes vLLM's."""
    parallelism: Parallelism
    chunked_prefill: bool
    continuous_batching: bool = True
    """False: a library that runs one batch at a time, not a server; planned only when named."""
    long_prefill_throttle: str | None = None
    disaggregated: str | None = None
    transfer: PoolTransfer | None = None
    """Of the connector that is emitted; None: no limits are known."""
    decode_reserves: bool = False
    """Whether a decode server keeps room for a prompt before another server has prefilled it."""
    offload: tuple[Offload, ...] = ()
    attention: dict[str, tuple[Text, ...]]
    """Attention kind -> compute capabilities on which the engine runs it."""
    kv_formats: tuple[KvFormat, ...]
    weight_formats: tuple[WeightFormat, ...]
    checkpoint_formats: tuple[CheckpointFormat, ...] = ()
    """Ready quantised checkpoints by their method; one that isn't listed isn't known to load."""
