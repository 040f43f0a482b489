"""A name can't break out of any file: what is read back differs from a plain name's files by the name alone."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from planner.emit import emit
from tests.plans import flat_plan, plan_of, shipped_catalog

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
PLAIN = "/srv/plain"
TARGETS = {
    "llama8b-int8": ("vllm", "compose", "kubernetes", "kserve", "ray"),
    "llama8b-split": ("vllm", "compose", "kubernetes", "kserve"),
    "deepseek-v3-two-servers": ("vllm", "kubernetes", "kserve"),
    "scout-1m-pp": ("vllm", "kubernetes", "ray"),
    "sglang-fp8-hicache": ("sglang", "compose", "kubernetes", "kserve"),
    "lmdeploy-int4-awq": ("lmdeploy", "compose", "kubernetes", "kserve"),
    "llamacpp-q8": ("llama.cpp", "compose", "kubernetes", "kserve"),
    "trtllm-host-cache": ("tensorrt-llm", "compose", "kubernetes"),
}
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failing name is short enough as it is; each try emits a whole deployment."""
NAMES = st.text(
    st.characters(
        min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp", "Cf", "Co"]
    ),
    min_size=1,
    max_size=24,
).filter(str.isprintable) | st.sampled_from(
    [
        "$(touch pwned)",
        "`touch pwned`",
        "'; touch pwned; '",
        '"; touch pwned #',
        "a: b # c",
        "- a",
        "${HOME}$$(HOME)$HOME",
        "{{ .Spec }}{{`x`}}",
        '{"a": 1}',
        "--help",
        "null",
        "\\",
        "a\\'b",
        "&a *a !!python/object",
        "%s %(x)s {0}",
        "\u00e9\u0301",
    ]
)


@cache
def files_of(plan: str, checkpoint: str) -> dict[str, str]:
    document = plan_of(flat_plan(plan))
    return emit(document, list(TARGETS[plan]), shipped_catalog(), checkpoint=checkpoint)


def parsed(text: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def read_back(text: str, platform: str, where: str) -> str:
    """Do what a platform does with a text: templates, then variables of arguments; what it would replace is marked."""
    if platform == "kserve":
        text = text.replace("{{`{{`}}", "\0")
        text = re.sub(r"\{\{ (if \.GlobalConfig\.EnableTLS|else|end) \}\}", "", text)
        text = text.replace("{{", "REPLACED").replace("\0", "{{")
    if platform == "compose":
        return re.sub(r"\$(\$|\{\w+[^}]*\}|\w+)", lambda m: "$" if m[1] == "$" else "REPLACED", text)
    if platform in ("kubernetes", "kserve") and re.search(r"\.(args|command|env)\b", where):
        return re.sub(r"\$(\$|\([^)]*\))", lambda m: "$" if m[1] == "$" else "REPLACED", text)
    return text


def same_but_for_the_name(found: Any, plain: Any, name: str, platform: str, where: str) -> None:
    assert type(found) is type(plain), where
    if isinstance(found, dict):
        assert found.keys() == plain.keys(), where
        for key, value in found.items():
            same_but_for_the_name(value, plain[key], name, platform, f"{where}.{key}")
    elif isinstance(found, list):
        assert len(found) == len(plain), where
        for index, (a, b) in enumerate(zip(found, plain, strict=True)):
            same_but_for_the_name(a, b, name, platform, f"{where}[{index}]")
    elif isinstance(found, str) and found != plain:
        text = read_back(found, platform, where)
        words = [word.replace(name, PLAIN) for word in _words(text)]
        expected = read_back(plain, platform, where)
        assert text.replace(name, PLAIN) == expected or words == _words(expected), (where, found)
    else:
        assert found == plain, where


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


@pytest.mark.parametrize("plan", sorted(TARGETS))
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], deadline=None, phases=PHASES)
@given(name=NAMES)
@example(name="$(touch pwned)`touch pwned` $$(HF_TOKEN)${HOME} {{ .Spec }}{{`x`}} '\"# a: b")
def test_a_name_stays_one_scalar_of_every_file(plan: str, name: str) -> None:
    checkpoint = f"/srv/{name}"
    hostile, plain = files_of(plan, checkpoint), files_of(plan, PLAIN)
    assert hostile.keys() == plain.keys()
    for path, text in hostile.items():
        if path.endswith(".yaml"):
            same_but_for_the_name(parsed(text), parsed(plain[path]), checkpoint, path.split("/")[0], path)
        elif path.endswith(".sh"):
            assert [word.replace(checkpoint, PLAIN) for word in shlex.split(text, comments=True)] == shlex.split(
                plain[path], comments=True
            ), path
        elif path.endswith(".json") and path != "plan.json":
            same_but_for_the_name(json.loads(text), json.loads(plain[path]), checkpoint, "", path)
