"""The snapshots of engines' parsers: what they hold, and that a wrong flag or value is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.emit.emit import ENGINES
from planner.emit.flags import problems_of_environment, problems_of_flags, problems_of_keys, snapshot, versions
from planner.emit.launch import Launch
from planner.emit.read_deployment import read_deployment
from planner.errors import InputError
from planner.plan import Document

FOLDER = Path(__file__).parents[2] / "catalog" / "engine_flags"
SNAPSHOTS = sorted(FOLDER.glob("*.json"))
VLLM = ("vllm", "0.33.0")
GOOD = (
    ("--tensor-parallel-size", 8),
    ("--max-model-len", 1_001_750),
    ("--kv-cache-dtype", "fp8_e4m3"),
    ("--gpu-memory-utilization", 0.92),
    ("--kv-offloading-size", 740.0),
    ("--hf-overrides", '{"max_position_embeddings": 131072}'),
    ("--enable-prefix-caching", True),
    ("-tp", 8),
)


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda p: p.stem)
def test_a_snapshot_says_where_it_comes_from(path: Path) -> None:
    content = json.loads(path.read_text())
    assert path.stem == f"{content['engine']}-{content['version']}"
    assert content["package"]
    assert "flags" in content or "tables" in content


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda p: p.stem)
def test_no_flag_is_declared_twice(path: Path) -> None:
    names = [name for record in json.loads(path.read_text()).get("flags", {}).values() for name in record["names"]]
    assert len(names) == len(set(names))


def test_what_vllm_0_33_added_and_removed_is_in_its_snapshot() -> None:
    new, old = (set(snapshot("vllm", version)["flags"]) for version in ("0.33.0", "0.32.0"))
    assert new - old == {"--monokernel", "--reasoning-effort-map", "--sleep-mode-backend", "--watchdog-config"}
    for gone in ("--swap-space", "--rope-scaling", "--num-scheduler-steps", "--calculate-kv-scales", "--device"):
        assert problems_of_flags(((gone, "1"),), *VLLM)


def test_good_flags_pass() -> None:
    assert problems_of_flags(GOOD, *VLLM) == []


@given(st.sampled_from(GOOD), st.integers(2, 40), st.sampled_from("abcxyz-_"))
def test_a_mutated_name_fails(flag: tuple[str, Any], at: int, letter: str) -> None:
    name = flag[0][:at] + letter + flag[0][at:]
    known = {n for record in snapshot(*VLLM)["flags"].values() for n in record["names"]}
    assert bool(problems_of_flags(((name, flag[1]),), *VLLM)) == (name not in known)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--kv-cache-dtype", "int8"),
        ("--quantization", "bogus"),
        ("--attention-backend", "FLASH"),
        ("--kv-offloading-backend", "hicache"),
        ("--max-model-len", "128k"),
        ("--max-model-len", 1.5),
        ("--tensor-parallel-size", True),
        ("--gpu-memory-utilization", "much"),
        ("--hf-overrides", "{"),
        ("--enable-prefix-caching", 1),
    ],
)
def test_a_mutated_value_fails(name: str, value: Any) -> None:
    (problem,) = problems_of_flags(((name, value),), *VLLM)
    assert name in problem


def test_the_nearest_flag_is_named() -> None:
    (problem,) = problems_of_flags((("--kv-cache-memory", 1),), *VLLM)
    assert "--kv-cache-memory-bytes" in problem


def test_keys_of_a_config_file_are_checked() -> None:
    good = {"chunk_size": 256, "local_cpu": True, "max_local_cpu_size": 92.5}
    assert problems_of_keys(good, "config", "lmcache", "0.5.6") == []
    assert problems_of_keys({"chunk_sizes": 256}, "config", "lmcache", "0.5.6")
    assert problems_of_keys({"chunk_size": "many"}, "config", "lmcache", "0.5.6")
    assert problems_of_keys({"local_cpu": "yes"}, "config", "lmcache", "0.5.6")


def test_environment_variables_are_checked() -> None:
    assert problems_of_environment(["VLLM_NO_USAGE_STATS", "HF_TOKEN"], *VLLM) == []
    assert problems_of_environment(["VLLM_NO_SUCH_THING"], *VLLM)


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"vllm 9\.9.*0\.32\.0, 0\.33\.0"):
        snapshot("vllm", "9.9")
    assert versions("vllm") == ["0.32.0", "0.33.0"]


# --------------------------------------------------------------------------- the same check, for every engine

PLANS = sorted((FOLDER.parents[1] / "tests" / "golden" / "emit" / "plans").glob("*.json"))
SERVED = [path.stem for path in PLANS if path.stem != "kvpress-snapkv"]


def emitted_launches(name: str) -> list[Launch]:
    path = next(p for p in PLANS if p.stem == name)
    deployment = read_deployment(Document.model_validate_json(path.read_text()), open_catalog())
    return ENGINES[deployment.engine.id](deployment, deployment.engine.version)


@pytest.mark.parametrize("name", SERVED)
def test_every_mutated_flag_of_every_engine_is_refused(name: str) -> None:
    for launch in emitted_launches(name):
        who = (launch.engine, launch.version)
        assert problems_of_flags(launch.flags, *who) == []
        known = {n: record for record in snapshot(*who)["flags"].values() for n in record["names"]}
        for flag, value in launch.flags:
            assert problems_of_flags(((f"{flag}x", value),), *who), flag
            kind, choices = known[flag]["type"], known[flag].get("choices")
            wrong = {"bool": "yes", "int": "many", "float": "many", "json": "{"}.get(kind, "bogus" if choices else True)
            assert problems_of_flags(((flag, wrong),), *who), (flag, wrong)


def test_every_mutated_key_of_a_config_file_is_refused() -> None:
    (launch,) = emitted_launches("trtllm-host-cache")
    settings = yaml.safe_load(launch.files["trtllm.yaml"])
    checked = ("LlmArgs", "tensorrt-llm", launch.version)
    assert problems_of_keys(settings, *checked) == []
    for key, value in settings.items():
        others = {name: other for name, other in settings.items() if name != key}
        assert problems_of_keys({**others, f"{key}x": value}, *checked), key
        assert problems_of_keys({**others, key: "bogus" if not isinstance(value, dict) else {"bogus": 1}}, *checked), (
            key
        )
    (press,) = emitted_launches("kvpress-snapkv")
    settings = yaml.safe_load(press.files["press.yaml"])["press"]
    own = {key: value for key, value in settings.items() if key not in ("class", "press")}
    assert problems_of_keys(own, settings["class"], "kvpress", press.version) == []
    assert problems_of_keys({"compression_rate": 0.5}, settings["class"], "kvpress", press.version)
