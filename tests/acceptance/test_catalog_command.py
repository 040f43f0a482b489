"""`plan catalog`: the facts can be listed, shown, checked and dated, with overlays of one's own."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from catalog.load import built_in_directory
from catalog.schema import KINDS

Plan = Callable[..., Any]
Write = Callable[..., Path]

KIND_NAMES = sorted(KINDS)
SHIPPED = sorted(path for kind in KINDS for path in (built_in_directory() / kind).glob("*.yaml"))

LLAMA = """\
id: {id}
name: A model
hf_id: somebody/{id}
context_tokens: 128K
config:
  model_type: llama
  hidden_size: 4096
  intermediate_size: 14336
  num_hidden_layers: {layers}
  num_attention_heads: 32
  num_key_value_heads: 8
  vocab_size: 128256
  max_position_embeddings: 131072
  tie_word_embeddings: false
sources: [{{ref: a test}}]
checked: {checked}
"""

TECHNIQUE = """\
id: keeper
name: Keeps half of it
dimension: token
tier: research
training: none
engines: [{engines: name}]
points:
- id: keeper_half
  strength: 0.5
  storage: {slope: 0.5, const_tokens: 1000}
  prior: null
sources: [{ref: a test}]
checked: 2026-11-01
"""

RULE = """\
id: clash
name: They clash
a: {techniques: [snapkvv], models: ["no-such-*"]}
b: {engines: [vlm], hardware_generations: [Amperes]}
verdict: exclusive
why: a test
sources: [{ref: a test}]
checked: 2026-11-01
"""


def model(name: str = "m1", layers: object = 32, checked: str = "2026-11-01") -> str:
    return LLAMA.format(id=name, layers=layers, checked=checked)


# --------------------------------------------------------------------------- list


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_list_gives_a_json_array_with_ids_sources_and_dates(plan: Plan, kind: str) -> None:
    output = plan("catalog", "list", kind, "--format", "json")
    assert (output.code, output.stderr) == (0, "")
    rows = output.json
    assert [row["id"] for row in rows] == sorted(path.stem for path in (built_in_directory() / kind).glob("*.yaml"))
    for row in rows:
        dt.date.fromisoformat(row["checked"])
        assert set(row["provenance"]) <= {"found", "secondary", "derived", "recalled"}


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_list_prints_a_table_by_default(plan: Plan, kind: str) -> None:
    lines = plan("catalog", "list", kind).stdout.splitlines()
    ids = [path.stem for path in (built_in_directory() / kind).glob("*.yaml")]
    if ids:
        assert lines[0].startswith("ID ")
        assert [line.split()[0] for line in lines[1:]] == sorted(ids)
    else:
        assert lines == [f"no {kind}"]


@pytest.mark.parametrize(("spelling", "kind"), [("model", "models"), ("GPU", "hardware"), ("technique", "techniques")])
def test_singular_kinds_are_understood(plan: Plan, spelling: str, kind: str) -> None:
    assert plan("catalog", "list", spelling).stdout == plan("catalog", "list", kind).stdout


def test_hardware_facts_are_in_si_units(plan: Plan) -> None:
    rows = {row["id"]: row for row in plan("catalog", "list", "hardware", "--format", "json").json}
    a100 = rows["a100-sxm-80gb"]
    assert a100["hbm_bytes"] == 80 * 2**30
    assert a100["hbm_bandwidth_bytes_per_s"] == pytest.approx(2.039e12)
    assert a100["flop_per_s"]["bf16"] == pytest.approx(312e12)
    assert "A100" in a100["aliases"]


def test_a_models_facts_follow_from_its_config(plan: Plan, write_entry: Write) -> None:
    overlay = write_entry("models", "m1", model())
    output = plan("catalog", "list", "models", "--format", "json", "--catalog", overlay)
    row = next(row for row in output.json if row["id"] == "m1")
    # Llama-3.1-8B: 8 030 261 248 parameters, 32 layers x 8 KV heads x 128 x (K and V) x 2 bytes.
    assert row["total_params"] == row["active_params"] == 8_030_261_248
    assert row["kv_bytes_per_token"] == 32 * 8 * 128 * 2 * 2
    assert row["kv_bytes_at_context"] == 131_072 * 128_000
    assert (row["attention"], row["context_tokens"]) == (["gqa"], 128_000)


def test_overlays_are_taken_before_and_after_the_verb_and_from_the_environment(
    plan: Plan, write_entry: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_entry("models", "m1", model(), "a"), write_entry("models", "m2", model("m2"), "b")
    before = plan("--catalog", first, "--catalog", second, "catalog", "list", "models")
    after = plan("catalog", "list", "models", "--catalog", first, "--catalog", second)
    assert before.stdout == after.stdout
    assert "\nm1 " in after.stdout
    assert "\nm2 " in after.stdout
    monkeypatch.setenv("PLAN_CATALOG", str(second))
    assert "\nm2 " in plan("catalog", "list", "models").stdout


def test_the_last_overlay_named_wins(plan: Plan, write_entry: Write) -> None:
    before = write_entry("models", "m1", model(layers=10), "a")
    after = write_entry("models", "m1", model(layers=20), "b")
    shown = plan("--catalog", before, "catalog", "show", "model", "m1", "--catalog", after, "--format", "json").json
    assert shown["derived"]["layers"] == 20


# --------------------------------------------------------------------------- show


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_show_gives_the_file_and_what_follows(plan: Plan, kind: str) -> None:
    for path in sorted((built_in_directory() / kind).glob("*.yaml"))[:3]:
        shown = plan("catalog", "show", kind, path.stem, "--format", "json").json
        written = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        assert shown["file"] == str(path)
        assert {field: shown[field] for field in written} == json.loads(json.dumps(written, default=str))
        assert set(shown) == {"file", "derived", *written}


def test_show_takes_aliases_and_prints_yaml_with_the_files_path(plan: Plan) -> None:
    output = plan("catalog", "show", "hardware", "a100")
    first, _, rest = output.stdout.partition("\n")
    assert first == f"# {built_in_directory() / 'hardware' / 'a100-sxm-80gb.yaml'}"
    shown = yaml.safe_load(rest)
    assert (shown["id"], shown["hbm"], shown["derived"]["hbm_bytes"]) == ("a100-sxm-80gb", "80 GiB", 80 * 2**30)


def test_show_gives_a_techniques_curve(plan: Plan, write_entry: Write) -> None:
    overlay = write_entry("techniques", "keeper", TECHNIQUE.replace("engines: [{engines: name}]\n", ""))
    shown = plan("catalog", "show", "technique", "keeper", "--format", "json", "--catalog", overlay).json
    (point,) = shown["derived"]["curve"]
    assert point["id"] == "keeper_half"
    assert point["storage_ratio"] == {"4000": 0.75, "128000": 0.507812, "1000000": 0.501}
    assert point["loss_mean_pct"] is None


# --------------------------------------------------------------------------- validate


def test_the_shipped_catalog_is_valid(plan: Plan) -> None:
    output = plan("catalog", "validate")
    assert output.code == 0, output.stderr
    assert output.stdout == ""
    assert f"{len(SHIPPED)} entries, no problems" in output.stderr


def test_validate_tells_everything_at_once_with_file_field_and_fix(plan: Plan, write_entry: Write) -> None:
    write_entry("models", "m1", model(layers="many"))
    write_entry("models", "m2", model("m2", checked="2999-01-01").replace("ref: a test", "ref: a test, fields: [size]"))
    write_entry("techniques", "keeper", TECHNIQUE.replace("{engines: name}", "{engine: vlm, status: ships}"))
    write_entry("rules", "clash", RULE)
    overlay = write_entry("prices", "offer", "id: offer\n")
    (overlay / "model").mkdir()
    (overlay / "models" / "m3.json").write_text("{}")
    output = plan("catalog", "validate", overlay)
    assert (output.code, output.stdout) == (2, "")
    for told in (
        "model: would be ignored; did you mean models/?",
        "m3.json: isn't an entry and would be ignored",
        "offer.yaml: usd_per_gpu_hour: missing; add it",
        "m1.yaml: config: num_hidden_layers: ",
        "m2.yaml: checked: 2999-01-01 is in the future",
        "m2.yaml: sources.0.fields: 'size' isn't a field of this entry",
        "keeper.yaml: engines.0.engine: 'vlm' is not among the engines; did you mean vllm?",
        "clash.yaml: a.techniques: 'snapkvv' is not among the techniques; did you mean snapkv?",
        "clash.yaml: a.models: 'no-such-*' is not among the models",
        "clash.yaml: b.engines: 'vlm' is not among the engines; did you mean vllm?",
        "clash.yaml: b.hardware_generations: 'Amperes' is not among the hardware generations; did you mean Ampere?",
    ):
        assert told in output.stderr
    assert "Traceback" not in output.stderr


def test_validate_checks_a_point_that_two_techniques_claim(plan: Plan, write_entry: Write) -> None:
    text = TECHNIQUE.replace("engines: [{engines: name}]\n", "")
    overlay = write_entry("techniques", "keeper", text)
    write_entry("techniques", "keeper2", text.replace("id: keeper\n", "id: keeper2\n"))
    output = plan("catalog", "validate", overlay)
    assert output.code == 2
    assert "keeper2.yaml: points: 'keeper_half' is already in" in output.stderr


def test_validate_checks_a_point_that_is_called_like_a_technique(plan: Plan, write_entry: Write) -> None:
    text = TECHNIQUE.replace("engines: [{engines: name}]\n", "").replace("keeper_half", "snapkv")
    output = plan("catalog", "validate", write_entry("techniques", "keeper", text))
    assert output.code == 2
    assert "keeper.yaml: points: 'snapkv' is also a technique; rename the point" in output.stderr


def test_validate_checks_two_servers_for_one_gpu(plan: Plan, write_entry: Write) -> None:
    shipped = next(path for path in SHIPPED if path.parent.name == "nodes" and "\ndefault_for: [" in path.read_text())
    text = shipped.read_text(encoding="utf-8").replace(f"\nid: {shipped.stem}\n", "\nid: other\n")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("aliases:"))
    output = plan("catalog", "validate", write_entry("nodes", "other", text))
    assert output.code == 2
    assert "other.yaml: default_for: " in output.stderr


def test_validate_refuses_a_directory_without_entries(plan: Plan, tmp_path: Path) -> None:
    output = plan("catalog", "validate", tmp_path)
    assert output.code == 2
    assert "holds no entries" in output.stderr
    missing = plan("catalog", "validate", tmp_path / "nowhere")
    assert missing.code == 2
    assert "isn't a directory" in missing.stderr


def test_validate_passes_a_good_overlay(plan: Plan, write_entry: Write) -> None:
    output = plan("catalog", "validate", write_entry("models", "m1", model()))
    assert output.code == 0
    assert f"{len(SHIPPED) + 1} entries" in output.stderr


# --------------------------------------------------------------------------- schema


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_the_editor_schemas_are_current(plan: Plan, kind: str) -> None:
    exported = (built_in_directory() / "schema" / f"{kind}.json").read_text(encoding="utf-8")
    assert exported == plan("catalog", "schema", kind).stdout, "run make schemas"


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_shipped_entries_satisfy_the_editor_schema_that_they_name(kind: str) -> None:
    schema = json.loads((built_in_directory() / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in (built_in_directory() / kind).glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# yaml-language-server: $schema=../schema/{kind}.json\n"), path
        # An editor sees dates as text.
        entry = json.loads(json.dumps(yaml.load(text, Loader=yaml.CSafeLoader), default=str))
        assert [f"{path.name}: {error.message}" for error in validator.iter_errors(entry)] == []


# --------------------------------------------------------------------------- stale


def test_stale_lists_old_checks_oldest_first(plan: Plan, write_entry: Write) -> None:
    today = dt.date.today()
    for name, age in (("m1", 5000), ("m2", 6000), ("m3", 4999)):
        overlay = write_entry("models", name, model(name, checked=(today - dt.timedelta(age)).isoformat()))
    rows = plan("catalog", "stale", "--days", "5000", "--format", "json", "--catalog", overlay).json
    assert [(row["kind"], row["id"], row["age_days"]) for row in rows] == [
        ("models", "m2", 6000),
        ("models", "m1", 5000),
    ]
    table = plan("catalog", "stale", "--days", "5000", "--catalog", overlay).stdout
    assert [line.split()[4] for line in table.splitlines()[1:]] == ["m2", "m1"]
    assert plan("catalog", "stale", "--days", "100000").stdout == "every entry was checked within 100000 days\n"


# --------------------------------------------------------------------------- speed


def test_looking_up_a_fact_imports_neither_numpy_nor_the_solver() -> None:
    code = (
        "import sys, cli; cli.main(['catalog', 'show', 'hardware', 'A100']);"
        "sys.exit(', '.join({'numpy', 'ortools', 'matplotlib', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.benchmark
def test_looking_up_a_fact_takes_less_than_half_a_second(cache: Path) -> None:
    command = [sys.executable, "-m", "cli", "catalog", "show", "hardware", "A100"]
    environment = {**os.environ, "PLAN_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
