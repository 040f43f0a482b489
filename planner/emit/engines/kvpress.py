"""Hugging Face transformers with kvpress: a script that answers one question at a time.

Some techniques run nowhere else. This isn't a server: it shows what a technique does to answers.
"""

from __future__ import annotations

import re
from typing import Any

from planner.emit.deployment import Deployment, Technology
from planner.emit.engines.refusals import refuse_unshipped
from planner.emit.flags import problems_of_keys
from planner.emit.launch import Launch
from planner.emit.quoting import yaml_text
from planner.errors import InputError

IMAGE = "pytorch/pytorch"
SETTINGS = "press.yaml"
SCRIPT = "answer.py"
_DIMENSIONS = ("layer", "head", "token", "hidden")
_QUANTIZED_BITS = {"kivi4": 4, "kivi2": 2}
_CALL = re.compile(r"(\w+Press)\((.*)\)")


def launches(deployment: Deployment, version: str) -> list[Launch]:
    """Return the launch.

    Raises
    ------
    InputError
        If kvpress doesn't run a technique of the plan, or two of them together.
    """
    refuse_unshipped(deployment, version)
    settings = _settings(deployment)
    problems = _problems(settings.get("press"), version)
    if problems:
        raise InputError(problems)
    (pool, *_) = deployment.pools
    return [
        Launch(
            engine="transformers-kvpress",
            version=version,
            image=IMAGE,
            program=("python3", "{directory}/" + SCRIPT),
            program_words=2,
            model=deployment.model_source,
            flags=(("--settings", "{directory}/" + SETTINGS),),
            pool=pool,
            port=0,
            is_server=False,
            files={SETTINGS: yaml_text(settings), SCRIPT: _ANSWER},
            gpus_per_node=pool.instance_gpus,
        )
    ]


def _settings(deployment: Deployment) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": deployment.model_source,
        "kvpress": deployment.engine.version,
        "max_context_length": deployment.request.ctx,
        "max_new_tokens": deployment.request.output_tokens,
    }
    evicting = [t for t in deployment.technologies if t.dimension != "hidden"]
    if len(evicting) > 1:
        both = " and ".join(t.point.id for t in evicting)
        raise InputError(f"compression: one press runs at a time, the plan has {both}; plan with one of them")
    if evicting:
        settings["press"] = _press(evicting[0], deployment)
    hidden = deployment.technology("hidden")
    if hidden is not None and hidden.point.id in _QUANTIZED_BITS:
        settings["quantized_cache_bits"] = _QUANTIZED_BITS[hidden.point.id]
    return settings


def _press(used: Technology, deployment: Deployment) -> dict[str, Any]:
    """Return the press that the catalog names for a technique, with the share of the cache that it drops."""
    support = next(s for s in used.technique.engines if s.engine == deployment.engine.id)
    match = _CALL.match(support.setting or "")
    if match is None:
        raise InputError(f"{used.dimension}: {used.point.id}: the catalog names no press for it ({support.setting})")
    inner = _CALL.match(match[2])
    if inner is not None:
        return {"class": match[1], "press": {"class": inner[1], **_strength(used, inner[2], deployment)}}
    return {"class": match[1], **_strength(used, match[2], deployment)}


def _strength(used: Technology, words: str, deployment: Deployment) -> dict[str, float]:
    """The argument that sets a press's strength: the share that it drops, or the number that the catalog gives."""
    key, _, value = words.partition("=")
    if key in ("compression_ratio", "..."):
        storage = used.point.storage
        kept = min(1.0, storage.slope + storage.const_tokens / deployment.request.ctx)
        return {"compression_ratio": round(1.0 - kept, 6)}
    try:
        return {key: float(value)}
    except ValueError:
        raise InputError(
            f"{used.dimension}: {used.point.id}: the catalog doesn't say the {key} that makes a press this strong; "
            "plan with another technique"
        ) from None


def _problems(press: dict[str, Any] | None, version: str) -> list[str]:
    if press is None:
        return []
    inner = press.get("press")
    own = {key: value for key, value in press.items() if key not in ("class", "press")}
    return [*problems_of_keys(own, press["class"], "kvpress", version), *_problems(inner, version)]


_ANSWER = '''"""Answer questions about a document with the plan's compression.

    pip install "kvpress==VERSION of press.yaml"
    python3 answer.py --settings press.yaml --document FILE QUESTION [QUESTION ...]
"""

import argparse

import kvpress
import torch
import yaml
from transformers import QuantizedCache, pipeline


def make_press(settings):
    """Build a press, and the one inside it."""
    if settings is None:
        return None
    arguments = {key: value for key, value in settings.items() if key != "class"}
    if "press" in arguments:
        arguments["press"] = make_press(arguments["press"])
    return getattr(kvpress, settings["class"])(**arguments)


parser = argparse.ArgumentParser()
parser.add_argument("--settings", required=True)
parser.add_argument("--document", required=True)
parser.add_argument("questions", nargs="+")
given = parser.parse_args()
with open(given.settings, encoding="utf-8") as stream:
    settings = yaml.safe_load(stream)
with open(given.document, encoding="utf-8") as stream:
    document = stream.read()
answer = pipeline(
    "kv-press-text-generation",
    model=settings["model"],
    device_map="auto",
    dtype=torch.bfloat16,
)
cache = None
if "quantized_cache_bits" in settings:
    cache = QuantizedCache(backend="quanto", config=answer.model.config, nbits=settings["quantized_cache_bits"])
answers = answer(
    document,
    questions=given.questions,
    press=make_press(settings.get("press")),
    cache=cache,
    max_new_tokens=settings["max_new_tokens"],
    max_context_length=settings["max_context_length"],
)["answers"]
for question, text in zip(given.questions, answers):
    print(question, text, sep="\\n", end="\\n\\n")
'''
