"""Read a ``config.json``: find the family's reader by ``model_type``, and refuse what isn't understood.

A config either becomes an `Architecture` or an `UnknownArchitectureError` that names every field in the
way. Nothing is guessed: a wrong KV size would be worse than none.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from catalog.architecture.architecture import Architecture
from catalog.architecture.deepseek_v4 import deepseek_v4
from catalog.architecture.dense import DENSE, chatglm, internlm2, reader
from catalog.architecture.fields import Fields, shown
from catalog.architecture.gpt import bloom, falcon, gpt2, gpt_neox, gptj, nemotron_nas, opt
from catalog.architecture.linear import kimi_linear, lfm2, minimax, qwen3_5, qwen3_next
from catalog.architecture.mamba import bamba, falcon_h1, granite_hybrid, jamba, mamba2, nemotron_h
from catalog.architecture.mla import deepseek, deepseek_sparse
from catalog.architecture.moe import (
    gemma4,
    glm4_moe,
    gpt_oss,
    llama4,
    mimo_v2_flash,
    minimax_m2,
    minimax_m3,
    mixtral,
    qwen2_moe,
    qwen3_moe,
    step3p7,
)
from catalog.architecture.more import (
    apertus,
    arcee,
    dots1,
    ernie4_5,
    ernie4_5_moe,
    granitemoe,
    hunyuan_dense,
    hunyuan_moe,
    mllama,
    nemotron,
    olmo,
    olmoe,
    phi,
    phimoe,
    stablelm,
)
from catalog.architecture.quantisation import read_quantisation
from catalog.architecture.vision import TOWERS
from catalog.errors import nearest

MAX_BYTES = 16 << 20
"""Largest config file that is read [bytes]; real ones with per-layer quantisation reach 3 MiB."""

READERS: dict[str, Callable[[Fields], Architecture]] = {
    **{name: reader(name) for name in DENSE},
    "apertus": apertus,
    "arcee": arcee,
    "bamba": bamba,
    "bloom": bloom,
    "chatglm": chatglm,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "deepseek_v32": deepseek_sparse,
    "deepseek_v4": deepseek_v4,
    "cwm": reader("cwm"),
    "dots1": dots1,
    "ernie4_5": ernie4_5,
    "ernie4_5_moe": ernie4_5_moe,
    "falcon": falcon,
    "falcon_h1": falcon_h1,
    "gemma3_text": reader("gemma3"),
    "gemma4_text": gemma4,
    "glm4_moe": glm4_moe,
    "glm4_moe_lite": deepseek,
    "glm_moe_dsa": deepseek_sparse,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granitemoe": granitemoe,
    "granitemoehybrid": granite_hybrid,
    "helium": reader("helium"),
    "hunyuan_v1_dense": hunyuan_dense,
    "hunyuan_v1_moe": hunyuan_moe,
    "internlm2": internlm2,
    "jamba": jamba,
    "kimi_k2": deepseek,
    "kimi_linear": kimi_linear,
    "lfm2": lfm2,
    "llama4_text": llama4,
    "mamba2": mamba2,
    "mimo_v2_flash": mimo_v2_flash,
    "minimax": minimax,
    "minimax_m1": minimax,
    "minimax_m2": minimax_m2,
    "minimax_m3": minimax_m3,
    "mixtral": mixtral,
    "minimax_text_01": minimax,
    "ministral": reader("mistral"),
    "ministral3": reader("mistral"),
    "mllama_text_model": mllama,
    "nemotron": nemotron,
    "nemotron-nas": nemotron_nas,
    "nemotron_h": nemotron_h,
    "olmo": olmo,
    "olmoe": olmoe,
    "opt": opt,
    "phi": phi,
    "phimoe": phimoe,
    "qwen2_5_vl": reader("qwen2"),
    "qwen2_5_vl_text": reader("qwen2"),
    "qwen2_vl": reader("qwen2"),
    "qwen2_vl_text": reader("qwen2"),
    "qwen2_moe": qwen2_moe,
    "qwen3_5_moe_text": qwen3_next,
    "qwen3_5_text": qwen3_5,
    "qwen3_moe": qwen3_moe,
    "qwen3_next": qwen3_next,
    "qwen3_vl_moe_text": qwen3_moe,
    "qwen3_vl_text": reader("qwen3"),
    "stablelm": stablelm,
    "step3p7": step3p7,
}
"""``model_type`` of a text model -> its family's reader."""

WRAPPERS: dict[str, str] = {
    "exaone4_5": "exaone4",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "kimi_k25": "deepseek_v3",
    "kimi_k3": "kimi_linear",
    "lfm2_vl": "lfm2",
    "llama4": "llama4_text",
    "minimax_m3_vl": "minimax_m3",
    "mllama": "mllama_text_model",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "voxtral": "llama",
}
"""``model_type`` of a multimodal config -> that of its ``text_config`` where this doesn't say."""

DEFAULTS: dict[str, dict[str, object]] = {
    "gemma3_text": {"vocab_size": 262_208, "max_position_embeddings": 131_072},
}
"""Values that published configs of a family leave to the library (transformers' configuration classes)."""


class UnknownArchitectureError(ValueError):
    """A config that can't be turned into layers, with every problem that was found in it."""

    def __init__(self, problems: list[str], where: str = "config.json") -> None:
        self.problems = [f"{where}: {problem}" for problem in problems]
        super().__init__("\n".join(self.problems))


def read_config(source: Mapping[str, object], *, where: str = "config.json") -> Architecture:
    """Turn a parsed ``config.json`` into layers.

    Parameters
    ----------
    source
        The object as parsed; it isn't trusted.
    where
        How to name it in errors: a file, or a catalog entry.

    Raises
    ------
    UnknownArchitectureError
        If the ``model_type`` isn't known, a field is missing, wrong or out of range, or the config sets
        something that changes the cache and that the family isn't known to have.

    Examples
    --------
    >>> config = {
    ...     "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    ...     "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    ...     "max_position_embeddings": 131072,
    ... }
    >>> llama = read_config(config)
    >>> llama.total_params, llama.kv_bytes_per_token
    (8030261248, 131072.0)
    >>> read_config({**config, "model_type": "lama"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    catalog.architecture.read.UnknownArchitectureError: config.json: model_type: 'lama' isn't known; did you mean ...
    """
    if not isinstance(source, Mapping):
        raise UnknownArchitectureError([f"holds {shown(source)}, no object; give a model's config.json"], where)
    problems: list[str] = []
    name, fields = _text_model(source, problems)
    if name is None or fields is None:
        raise UnknownArchitectureError(problems, where)
    if fields.flag("is_encoder_decoder") or fields.flag("add_cross_attention"):
        fields.problem("is_encoder_decoder", "only decoders are supported", "choose a decoder-only model")
    architecture = READERS[name](fields)
    fields.check_unread()
    name = str(source["model_type"])
    other = TOWERS[name](Fields(source, problems)) if name in TOWERS else 0
    if not problems and architecture.kv_bytes(1_000_000) <= 0:
        problems.append("num_hidden_layers: no layer keeps a cache or a state; correct the layers")
    if problems:
        raise UnknownArchitectureError(problems, where)
    quantised = read_quantisation(source)
    return replace(
        architecture,
        model_type=name,
        other_params=other,
        native_weight_bits=None if quantised is None else quantised.bits,
        quantised_by=None if quantised is None else quantised.said,
    )


def read_config_file(path: Path) -> Architecture:
    """Read a ``config.json``, or the one in a directory.

    Raises
    ------
    UnknownArchitectureError
        If it can't be read, is too large, is no JSON object, or is no config that `read_config` takes.
    """
    return read_config(load_config(path), where=str(_config_path(path)))


def load_config(path: Path) -> dict[str, object]:
    """Parse a ``config.json``, or the one in a directory, without understanding it.

    Raises
    ------
    UnknownArchitectureError
        If it can't be read, is larger than `MAX_BYTES`, or is no JSON object.
    """
    file = _config_path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnknownArchitectureError(
                ["isn't a file; give a config.json or the directory that holds it"], str(file)
            )
        if status.st_size > MAX_BYTES:
            raise UnknownArchitectureError([f"is larger than {MAX_BYTES >> 20} MiB; give a config.json"], str(file))
        parsed = json.loads(file.read_bytes(), object_pairs_hook=_one_value_per_key)
    except OSError as error:
        what = "doesn't exist" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror}"
        raise UnknownArchitectureError(
            [f"{what}; give a config.json or the directory that holds it"], str(file)
        ) from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise UnknownArchitectureError([f"isn't JSON: {error.msg} at {at}; download it again"], str(file)) from None
    except RecursionError:
        raise UnknownArchitectureError(["is nested too deeply; give a config.json"], str(file)) from None
    except UnicodeDecodeError:
        raise UnknownArchitectureError(["isn't UTF-8 text; save it as UTF-8"], str(file)) from None
    except ValueError as error:
        raise UnknownArchitectureError([f"isn't a usable JSON file: {error}"], str(file)) from None
    if not isinstance(parsed, dict):
        raise UnknownArchitectureError([f"holds {shown(parsed)}, no object; give a model's config.json"], str(file))
    return parsed


def _config_path(path: Path) -> Path:
    return path / "config.json" if path.is_dir() else path


def _one_value_per_key(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise ValueError(f"{key!r} is given twice with different values; remove one")
        values[key] = value
    return values


def _text_model(source: Mapping[str, object], problems: list[str]) -> tuple[str | None, Fields | None]:
    """The reader's name and the fields of the text model, or None with a problem noted."""
    top = Fields(source, problems)
    name = source.get("model_type")
    if not isinstance(name, str) or not name:
        what = "missing" if name is None else f"{shown(name)} is no name"
        top.problem("model_type", what, "add the one that the model's repository has, for example llama or qwen3")
        return None, None
    flat = name in READERS and not (name in WRAPPERS and isinstance(source.get("text_config"), Mapping))
    if flat:
        return name, Fields({**DEFAULTS.get(name, {}), **source}, problems)
    if name not in WRAPPERS:
        top.problem("model_type", f"{shown(name)} isn't known", _advice(name, source))
        return None, None
    text = top.nested("text_config")
    if text is None:
        return None, None
    inner = text.raw("model_type")
    inner = WRAPPERS[name] if inner is None else inner
    if not isinstance(inner, str) or inner not in READERS:
        text.problem("model_type", f"{shown(inner)} isn't known", _advice(str(inner), {}))
        return None, None
    values = {**DEFAULTS.get(inner, {}), **_mapping(source["text_config"])}
    if source.get("tie_word_embeddings") is not None:
        values["tie_word_embeddings"] = source["tie_word_embeddings"]  # the whole model's decides, as in engines
    return inner, Fields(values, problems, "text_config.")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


_ENCODERS = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "clip",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "siglip",
        "vit",
        "xlm-roberta",
    }
)
"""Types that read a whole input at once and cache nothing."""


def _advice(name: str, source: Mapping[str, object]) -> str:
    known = sorted({*READERS, *WRAPPERS})
    near = nearest(name, known)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    if name in _ENCODERS:
        return "it is an encoder, which caches nothing and generates nothing; choose a decoder"
    inner = _mapping(source.get("text_config")).get("model_type")
    if isinstance(inner, str) and inner in READERS:
        return f"{meant}If its language model alone decides what is cached, give its text_config as a config.json"
    return (
        f"{meant}Fields alike don't make a model alike (norms, biases and gates differ), so it isn't read as another; "
        f"known are {', '.join(known)}"
    )
