"""`plan import --emit`: whoever calls the server finds it as it was, and every flag of it is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner import evaluate
from planner.emit import emit
from planner.emit.carried import SECRETS
from planner.emit.flags import problems_of_flags, snapshot
from planner.emit.running import Running
from planner.plan import Document
from planner.request import Request
from planner.service import Batch, Parallel, Service

Plan = Callable[..., Any]
KEY = "sk-never-written"
COMMAND = (
    "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 131072 --port 9001 --host 10.1.2.3 "
    f"--api-key {KEY} --chat-template ./t.jinja --enable-auto-tool-choice --tool-call-parser llama3_json "
    '--served-model-name big chat --speculative-config \'{"method": "ngram"}\' --swap-space 4 --max-num-seqs 64\n'
)
FLAGS = snapshot("vllm", "0.33.0")["flags"]


@pytest.fixture(scope="module")
def document() -> Document:
    decision = Service(
        engine="vllm", parallel=Parallel(tp=1), batch=Batch(decode_sequences=4, prefill_chunk_tokens=2048)
    )
    request = Request(ctx="20K", gpus="1xH100", model="meta-llama/Llama-3.1-8B-Instruct")
    return evaluate(request, decision, open_catalog([]))


def running(flags: dict[str, Any], **other: Any) -> Running:
    model = "meta-llama/Llama-3.1-8B-Instruct"
    return Running(**{"flags": flags, "model": model, "served_names": (model,), "weights": "bf16",
                      "window_tokens": 131_072} | other)  # fmt: skip


def test_name_port_host_template_parser_and_window_stay(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(COMMAND)
    asked = ("--gpus", "1xH100", "--ctx", "50K", "--max-latency", "200ms", "--format", "json")
    found = plan("import", tmp_path / "run.sh", *asked, "--emit", tmp_path / "d")
    assert found.code == 0, found.stderr
    settings_ = yaml.safe_load((tmp_path / "d" / "vllm" / "serve.yaml").read_text())
    assert settings_["served-model-name"] == ["big", "chat"]
    assert (settings_["port"], settings_["host"]) == (9001, "10.1.2.3")
    assert settings_["chat-template"] == "./t.jinja"
    assert settings_["tool-call-parser"] == "llama3_json"
    assert settings_["max-model-len"] == 131_072
    assert "10.1.2.3" not in (tmp_path / "d" / "kubernetes" / "kubernetes.yaml").read_text()
    everything = "".join(path.read_text() for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert KEY not in everything + found.stdout + found.stderr
    becomes = {row["flag"]: row for row in found.json["becomes"]}
    assert becomes["--api-key"]["verdict"] == "kept"
    assert becomes["--max-num-seqs"]["verdict"] == "replaced"
    assert becomes["--swap-space 4"]["verdict"] == "dropped"
    assert "isn't priced" in becomes["--speculative-config"]["reason"]
    page = (tmp_path / "d" / "README.md").read_text()
    assert all(f"`{flag}`" in page for flag in becomes)
    assert "on port 9001, model `big`" in page


def test_a_window_that_does_not_fit_is_told_as_a_loss(document: Document) -> None:
    files = emit(
        document, "vllm", open_catalog([]), running=running({"--max-model-len": 9_000_000}, window_tokens=9 * 10**6)
    )
    assert yaml.safe_load(files["vllm/serve.yaml"])["max-model-len"] == 21_750
    assert "LOWERED" in files["README.md"]


def test_scaled_positions_stay_with_their_window(plan: Plan, tmp_path: Path) -> None:
    rope = '{"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 40960}'
    (tmp_path / "run.sh").write_text(f"vllm serve Qwen/Qwen3-8B --max-model-len 80K --rope-scaling '{rope}'\n")
    asked = ("--gpus", "1xH100", "--ctx", "20K", "--emit", tmp_path / "d", "--target", "vllm")
    assert plan("import", tmp_path / "run.sh", *asked).code == 0
    written = yaml.safe_load((tmp_path / "d" / "vllm" / "serve.yaml").read_text())
    assert written["max-model-len"] == 81_920
    assert written["hf-overrides"]["rope_parameters"]["factor"] == 2.0
    assert written["hf-overrides"]["rope_parameters"]["rope_theta"] == 1_000_000


def test_what_runs_is_what_is_loaded(document: Document) -> None:
    mine = running({}, model="me/my-llama", served_names=("me/my-llama",))
    files = emit(document, ["vllm", "kubernetes"], open_catalog([]), running=mine)
    assert yaml.safe_load(files["vllm/serve.yaml"])["model"] == "me/my-llama"
    assert "- me/my-llama" in files["kubernetes/kubernetes.yaml"]
    assert "meta-llama/Llama-3.1-8B-Instruct" not in files["README.md"]


def value_of(name: str, record: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values as a command line would give them to this flag."""
    kind = record["type"]
    if name in SECRETS:
        return st.just([KEY] if record.get("many") else KEY)
    if kind == "bool":
        return st.booleans()
    if record.get("choices"):
        one: st.SearchStrategy[Any] = st.sampled_from(record["choices"])
    elif kind == "json":
        one = st.just('{"a": 1}')
    elif kind in ("int", "float"):
        one = st.integers(1, 4096)
    else:
        one = st.sampled_from(["word", "two words", "$(touch pwned)", "a'b"])
    return st.lists(one, min_size=1, max_size=3) if record.get("many") else one


COMMANDS = st.lists(st.sampled_from(sorted(FLAGS.keys() - {"--", "--config", "--model"})), max_size=12, unique=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flag_of_vllm_is_accounted_for(data: st.DataObject, document: Document) -> None:
    flags = {name: data.draw(value_of(name, FLAGS[name]), label=name) for name in data.draw(COMMANDS)}
    files = emit(document, "vllm", open_catalog([]), running=running(flags))
    page = files["README.md"].partition("running server's flags")[2]
    written = yaml.safe_load(files["vllm/serve.yaml"])
    assert problems_of_flags(
        tuple((f"--{name}", tuple(v) if isinstance(v, list) else v) for name, v in written.items() if name != "model"),
        "vllm", "0.33.0",
    ) == []  # fmt: skip
    for name in flags:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.split(" | ")[2] in ("kept", "replaced", "dropped")
        if name in SECRETS:
            assert name.removeprefix("--") not in written
    assert not any(KEY in text for text in files.values())
