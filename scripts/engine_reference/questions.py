"""Questions for vLLM: the recorded KV plans, and the launches that the planner emits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from catalog.load import Catalog
from catalog.schema import Hardware, Model
from planner.emit.deployment import Deployment
from planner.emit.launch import Launch, flag_words

_NAMES = {"8.0": "NVIDIA A100-SXM4-80GB", "8.9": "NVIDIA L40S", "9.0": "NVIDIA H100 80GB HBM3", "10.0": "NVIDIA B200"}
"""What a driver calls a GPU of a capability; vLLM's defaults look at the name."""
_SHARED_MEMORY_BYTES = {"8.0": 163 << 10, "8.9": 99 << 10, "9.0": 227 << 10, "10.0": 227 << 10}
_LISTENING = ("--host", "--port")
_INTEGER = {"type": "int", "symmetric": True}


def gpu(capability: str, memory_bytes: int = 80 << 30, count: int = 8, name: str | None = None) -> dict[str, Any]:
    """Return a GPU as `scripts/engine_reference/gpu.py` pretends it."""
    return {
        "capability": [int(part) for part in capability.split(".")],
        "name": name or _NAMES[capability],
        "memory_bytes": memory_bytes,
        "count": count,
        "shared_memory_bytes": _SHARED_MEMORY_BYTES.get(capability, 99 << 10),
    }


def of_record(record: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return the question whose answer is a line of ``tests/golden/vllm_kv_plans.jsonl``."""
    words: list[str] = []
    for name, value in record["extra"].items():
        flag = f"--{name.replace('_', '-')}"
        if value is not False:
            words += [flag] if value is True else [flag, str(value)]
    if "--max-num-batched-tokens" not in words:
        words += ["--max-num-batched-tokens", str(record["max_num_batched_tokens"])]
    return {
        "name": record["model"],
        "gpu": gpu(record["cap"]),
        "config": catalog.get(Model, record["model"]).config,
        "arguments": words,
        "available_bytes": record["available_gib"] << 30,
    }


def of_launch(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    """Return the question whether vLLM takes an emitted launch, and what it makes of the KV bytes.

    A checkpoint that doesn't exist yet is described as its maker will write it.
    """
    hardware: Hardware = deployment.hardware
    capability = hardware.compute_capability
    name = "NVIDIA H200" if hardware.id.startswith("h200") else None
    config = dict(deployment.config)
    if launch.makes_checkpoint:
        config["quantization_config"] = _compressed(deployment.decision.weights)
    flags = tuple(flag for flag in launch.flags if flag[0] not in _LISTENING)
    held = launch.value("--kv-cache-memory-bytes")
    return {
        "name": f"{deployment.served_name} {launch.pool.role}",
        "gpu": gpu(capability, int(hardware.hbm), deployment.cluster.gpus_per_node, name),
        "config": config,
        "arguments": [*flag_words(flags), *(flag_words(launch.node_flags[:2]) if launch.nodes > 1 else [])],
        "environment": {key: value for key, value in launch.environment.items() if "{" not in value},
        "available_bytes": held if isinstance(held, int) else None,
    }


def _compressed(weights: str) -> dict[str, Any]:
    """Return the ``quantization_config`` that llm-compressor writes for a precision of weights."""
    activations = {"num_bits": 8, **_INTEGER, "strategy": "token", "dynamic": True} if weights == "int8_w8a8" else None
    bits = 4 if weights in ("awq4", "gptq4") else 8
    group = {"strategy": "channel"} if activations else {"strategy": "group", "group_size": 128}
    scheme = {"targets": ["Linear"], "weights": {"num_bits": bits, **_INTEGER, "dynamic": False, **group}}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if activations else "pack-quantized",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {**scheme, "input_activations": activations}},
    }


def differences(record: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    """Yield where an answer isn't what was recorded."""
    if not said["accepted"]:
        yield f"vLLM refuses it: {said['error']}"
        return
    pairs = (("num_blocks", "blocks"), ("tokens", "tokens"))
    for recorded, name in pairs:
        if record[recorded] != said[name]:
            yield f"{name}: recorded {record[recorded]}, vLLM says {said[name]}"
    if abs(record["concurrency"] - said["concurrency"]) > 1e-3:
        yield f"concurrency: recorded {record['concurrency']}, vLLM says {said['concurrency']}"
