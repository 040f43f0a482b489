"""Questions for vLLM: the recorded KV plans, and the launches that the planner emits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from catalog.load import Catalog, built_in_directory
from catalog.schema import Hardware, Model
from planner.emit.deployment import Deployment
from scripts.engine_reference.commands import DIRECTORY, Command

_NAMES = {"8.0": "NVIDIA A100-SXM4-80GB", "8.9": "NVIDIA L40S", "9.0": "NVIDIA H100 80GB HBM3", "10.0": "NVIDIA B200"}
"""What a driver calls a GPU of a capability; vLLM's defaults look at the name."""
_SHARED_MEMORY_BYTES = {"8.0": 163 << 10, "8.9": 99 << 10, "9.0": 227 << 10, "10.0": 227 << 10}
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


def of_starts(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records that a start answers: the aligned one where a model has both, as a start aligns blocks."""
    known = list(records)
    aligned = {record["model"] for record in known if record["aligned"]}
    return [record for record in known if record["aligned"] or record["model"] not in aligned]


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
        "words": ["vllm", "serve", record["model"], *words],
        "available_bytes": record["available_gib"] << 30,
    }


def of_command(deployment: Deployment, command: Command, config: str) -> dict[str, Any]:
    """Return the question whether an engine starts with an emitted command, and what it makes of the memory.

    Ranks beside the first only start: what they hold is the first one's.

    Parameters
    ----------
    deployment
        The plan.
    command
        What an operator's shell runs.
    config
        The model's ``config.json``, as its file is. A checkpoint that doesn't exist yet is described as its maker
        will write it.
    """
    if any(word.startswith(f"{DIRECTORY}/models/") for word in command.words):
        made = _compressed(deployment.decision.weights)
        config = json.dumps({**json.loads(config), "quantization_config": made})
    hardware: Hardware = deployment.hardware
    name = "NVIDIA H200" if hardware.id.startswith("h200") else None
    return {
        "gpu": gpu(hardware.compute_capability, int(hardware.hbm), deployment.cluster.gpus_per_node, name),
        "config": config,
        "words": command.words,
        "environment": {key: value for key, value in command.environment.items() if DIRECTORY not in value},
        "only_starts": command.rank > 0,
    }


def config_text(model: Model) -> str:
    """Return a listed model's ``config.json``: the file as it was found, where there is one."""
    if model.config_file is None:
        return json.dumps(model.config)
    return (built_in_directory() / "configs" / model.config_file).read_text(encoding="utf-8")


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
