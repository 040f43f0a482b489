"""Which precision of weights a checkpoint's name or a method of quantisation says.

One table for both: what is taken off a name to find its model is what is read as its precision, so that no word is
dropped without a meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """What a word in a name says of weights."""

    word: str
    """As a pattern, on a whole part of the name."""
    weights: str | None
    """The catalog's format, without ``w_``; None: none of the catalog's is this one."""
    said: str
    """In the field's words."""


PRECISIONS = (
    Precision(r"nvfp4|modelopt[-_]fp4|fp4", None, "NVFP4"),
    Precision(r"mxfp4", None, "MXFP4"),
    Precision(r"mxfp8", None, "MXFP8"),
    Precision(r"mxfp6", None, "MXFP6"),
    Precision(r"w4a8(?:kv\d+)?|w4afp8", None, "W4A8"),
    Precision(r"w4a4(?:kv\d+)?", None, "W4A4"),
    Precision(r"awq4?", "awq4", "AWQ, 4 bits"),
    Precision(r"w8a16|gptq8|gptq[-_]?int8|int8[-_]?gptq", "gptq8", "8-bit weights"),
    Precision(r"w8a8(?:kv\d+)?|int8", "int8_w8a8", "INT8 W8A8"),
    Precision(r"fp8|fp8[-_]dynamic|w8a8fp8|fbgemm", "fp8", "FP8"),
    Precision(r"bnb(?:[-_]4bit)?|nf4|bitsandbytes", "nf4", "bitsandbytes NF4"),
    Precision(
        r"gptq4?|gptq[-_]?int4|int4|w4a16|autoround|auto[-_]round|4[-_]?bits?|w4", "gptq4", "4-bit weights in groups"
    ),
    Precision(r"8[-_]?bits?", None, "8 bits of a kind that isn't said"),
    Precision(r"(?:iq|q)\d(?:_[\w]+)?|gguf", None, "GGUF of a quantised type"),
    Precision(r"exl[23]|hqq|aqlm|quip|torchao|quark|eetq|compressed|quantized", None, "a method that isn't priced"),
)
"""The first that is found counts; a name with two methods is read by the one that stands higher."""

METHODS = {
    "fp8": "fp8",
    "w8a8_fp8": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8_per_channel": "fp8",
    "fp8_per_block": "fp8",
    "fbgemm_fp8": "fp8",
    "modelopt": "fp8",
    "modelopt_fp8": "fp8",
    "awq": "awq4",
    "auto_awq": "awq4",
    "awq_marlin": "awq4",
    "gptq": "gptq4",
    "auto_gptq": "gptq4",
    "gptq_marlin": "gptq4",
    "bitsandbytes": "nf4",
    "w8a8_int8": "int8_w8a8",
}
"""``--quantization`` or ``--model-format`` -> the catalog's format."""
_EIGHT_BITS = re.compile(r"int8|w8a16|8[-_]?bit", re.IGNORECASE)


def precision_in_name(name: str) -> Precision | None:
    """Return what a checkpoint's name says of its weights; None: nothing.

    >>> precision_in_name("nvidia/Qwen3-235B-A22B-NVFP4").said
    'NVFP4'
    >>> precision_in_name("Intel/Qwen3-32B-int4-AutoRound").weights, precision_in_name("Qwen/Qwen3-32B")
    ('gptq4', None)
    """
    base = name.rstrip("/").rsplit("/", 1)[-1]
    if base.lower().endswith(".gguf") and re.search(r"(?:^|[-_.])(?:bf16|f16|fp16|f32)\.gguf$", base, re.IGNORECASE):
        return None
    for precision in PRECISIONS:
        if re.search(rf"(?:^|[-_.])(?:{precision.word})(?=$|[-_.])", base, re.IGNORECASE):
            if precision.weights == "gptq4" and _EIGHT_BITS.search(base) and not re.search("int4|w4|4bit", base, re.I):
                return Precision(precision.word, "gptq8", "8-bit weights")
            return precision
    return None


def weights_of_method(method: str, name: str) -> str | None:
    """Return the catalog's format of a method of quantisation, with the bits that a name gives; None: none of it."""
    weights = METHODS.get(method.lower())
    return "gptq8" if weights == "gptq4" and _EIGHT_BITS.search(name) else weights
