"""What a ``quantization_config`` says of the weights: how many bits each takes with its scales, and by which method."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_MXFP4_BITS, _MXFP8_BITS, _NVFP4_BITS = 4.25, 8.25, 4.5
"""MXFP4 and MXFP8 have a scale of 8 bits per 32 weights, NVFP4 one of 8 bits per 16."""
_NF4_BLOCK, _NF4_DOUBLE_BITS = 64, 4.127
"""bitsandbytes keeps a float32 per 64 weights; with double quantisation 4.127 bits (arXiv 2305.14314, section 3)."""
_TORCHAO_GROUP = 128
"""``int4_weight_only`` without a group size (torchao's default)."""
_EIGHT = {"fp8", "fbgemm_fp8", "eetq", "w8a8_int8", "w8a8_fp8", "experts_int8", "modelopt_fp8", "finegrained_fp8"}
"""Methods of 8 bits a weight whose scales don't count."""
_GROUPED = {"awq", "gptq", "auto-round", "auto_round", "intel/auto-round", "inc", "awq_marlin", "gptq_marlin"}
_FORMATS = (
    (re.compile(r"nvfp4|fp4_pack"), _NVFP4_BITS),
    (re.compile(r"mxfp4|mx_fp4"), _MXFP4_BITS),
    (re.compile(r"mxfp8|mx_fp8"), _MXFP8_BITS),
)


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a checkpoint's weights are stored."""

    said: str
    """The method, in the config's words."""
    bits: float | None
    """Of a quantised weight with its scales; None: the method isn't understood."""


def read_quantisation(config: Mapping[str, object]) -> Quantisation | None:
    """Return what a config says of its weights' precision; None if they aren't quantised.

    Examples
    --------
    >>> read_quantisation({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}})
    Quantisation(said='awq', bits=4.125)
    >>> read_quantisation({"quantization_config": {"quant_method": "zipq", "bits": 3}})
    Quantisation(said='zipq', bits=None)
    """
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    quant = config.get("quantization_config") or nested
    if config.get("expert_dtype") == "fp4" and not _is_nvfp4(quant):
        return Quantisation("mxfp4 experts", _MXFP4_BITS)
    if not isinstance(quant, Mapping):
        return None
    method = str(quant.get("quant_method") or "").lower()
    algorithm = str(quant.get("moe_quant_algo") or quant.get("quant_algo") or "").upper()
    named = " ".join(part for part in (method, algorithm) if part) or "a quantization_config without a method"
    return Quantisation(named, _bits(method, algorithm, quant))


def native_weight_bits(config: Mapping[str, object]) -> float | None:
    """Bits per quantised weight of the checkpoint, block scales included; None if it isn't quantised, or not known how.

    What isn't understood is planned at 16 bits: too many, never too few.
    """
    found = read_quantisation(config)
    return None if found is None else found.bits


def _is_nvfp4(quant: object) -> bool:
    if not isinstance(quant, Mapping):
        return False
    return "NVFP4" in str(quant.get("moe_quant_algo") or quant.get("quant_algo") or "").upper()


def _bits(method: str, algorithm: str, quant: Mapping[str, object]) -> float | None:
    if "NVFP4" in algorithm or "NVFP4" in method.upper():
        return _NVFP4_BITS
    if method in ("mxfp4", "gpt_oss_mxfp4") or algorithm == "MXFP4":
        return _MXFP4_BITS
    if method == "mxfp8" or algorithm == "MXFP8":
        return _MXFP8_BITS
    if algorithm.startswith("FP8") or method in _EIGHT:
        return 8.0
    if method in _GROUPED:
        return _of_format(str(quant.get("data_type", ""))) or _grouped(quant.get("bits"), quant.get("group_size"))
    reader = {"bitsandbytes": _bitsandbytes, "torchao": _torchao, "hqq": _hqq, "quark": _quark, "quanto": _quanto}
    if method in reader:
        return reader[method](quant)
    return _compressed_tensors(quant)


def _bitsandbytes(quant: Mapping[str, object]) -> float | None:
    if quant.get("load_in_4bit") or quant.get("_load_in_4bit"):
        return _NF4_DOUBLE_BITS if quant.get("bnb_4bit_use_double_quant") else 4.0 + 32 / _NF4_BLOCK
    return 8.0 if quant.get("load_in_8bit") or quant.get("_load_in_8bit") else None


def _torchao(quant: Mapping[str, object]) -> float | None:
    kind = quant.get("quant_type")
    told = str(kind).lower().replace("_", "")
    group = next(iter(_named(kind, "group_size")), None)
    if "int4" in told or "uintx" in told:
        return _grouped(4, group if isinstance(group, int) else _TORCHAO_GROUP)
    if "float8" in told or "int8" in told or "fp8" in told:
        return 8.0
    return None


def _hqq(quant: Mapping[str, object]) -> float | None:
    bits, group = next(iter(_named(quant, "nbits")), None), next(iter(_named(quant, "group_size")), None)
    return _grouped(bits, group)


def _quanto(quant: Mapping[str, object]) -> float | None:
    return {"int8": 8.0, "float8": 8.0, "int4": 4.0 + 16 / 128}.get(str(quant.get("weights")))


def _quark(quant: Mapping[str, object]) -> float | None:
    whole = quant.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, Mapping) else None
    if isinstance(weight, list):
        weight = weight[0] if weight else None
    if not isinstance(weight, Mapping):
        return None
    kind, group = str(weight.get("dtype", "")).lower(), weight.get("group_size")
    if kind in ("fp4", "mxfp4"):
        return _NVFP4_BITS if group == 16 else _MXFP4_BITS
    if kind.startswith("fp8") or kind in ("int8", "uint8", "mxfp8"):
        return 8.0
    return _grouped(4, group) if kind in ("int4", "uint4") else None


def _compressed_tensors(quant: Mapping[str, object]) -> float | None:
    """Read ``config_groups``, of compressed-tensors and of what writes the same."""
    groups = quant.get("config_groups")
    whole = _of_format(str(quant.get("format", "")))
    found = [_group_bits(group) for group in groups.values()] if isinstance(groups, Mapping) else []
    known = [bits for bits in found if bits is not None]
    # Several groups mean layers of several precisions: the widest, so that the weights fit.
    if known and len(known) == len(found):
        return max(known)
    return whole


def _group_bits(group: object) -> float | None:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        return None
    bits, size = weights.get("num_bits"), weights.get("group_size")
    if weights.get("type") == "float" and bits == 4:
        return _NVFP4_BITS if size == 16 else _MXFP4_BITS
    if weights.get("type") == "float" and bits == 8:
        return _MXFP8_BITS if size == 32 else 8.0
    return _grouped(bits, size)


def _of_format(name: str) -> float | None:
    return next((bits for pattern, bits in _FORMATS if pattern.search(name.lower())), None)


def _grouped(bits: object, group: object) -> float | None:
    """Bits of an integer weight with a 16-bit scale per group."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
        return None
    if isinstance(group, bool) or not isinstance(group, int) or group < 1:
        return float(bits)
    return bits + 16 / group


def _named(value: object, name: str) -> Iterator[object]:
    """Yield what stands under a name anywhere in a nested value."""
    if isinstance(value, Mapping):
        if value.get(name) is not None:
            yield value[name]
        for item in value.values():
            yield from _named(item, name)
