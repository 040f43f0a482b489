"""The record of all starts: ``tests/golden/start_path``, a file per engine with its commands and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from catalog.load import Catalog
from catalog.schema import Model
from planner.emit import emit
from planner.emit.deployment import Deployment
from planner.emit.read_deployment import read_deployment
from planner.emit.router import is_routed, router_words
from planner.errors import InputError
from planner.plan import Document
from planner.targets import check_targets
from scripts.engine_reference.ask import ask
from scripts.engine_reference.cases import Case, document_of
from scripts.engine_reference.commands import Command, commands_of
from scripts.engine_reference.questions import config_text, of_command

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "start_path"
HARNESS = ("answer.py", "gpu.py", "requirements.lock")
"""Files that every answer depends on, beside its engine's own ``start_*.py``."""
ASKED = {"vllm": "vllm", "sglang": "sglang", "lmdeploy": "others"}
"""Engine -> the module that asks it. llama.cpp is started for real, TensorRT-LLM can't be installed."""
Start = dict[str, Any]


def starts_of(case: Case, catalog: Catalog, place: Path) -> list[Start]:
    """Return everything that a case starts, as the program emits it today: engines, and what runs beside them."""
    document = document_of(case, catalog)
    files = emit(document, case.targets, catalog)
    deployment = read_deployment(document, catalog, offload_backend=check_targets(",".join(case.targets))[2])
    commands = commands_of(document, files, case.targets, catalog, place)
    found: list[Start] = [command.as_json() for command in commands]
    folder = f"{deployment.engine.id}/"
    for name, program in (("lmcache.yaml", "lmcache"), ("trtllm.yaml", "trtllm")):
        if folder + name in files:
            found.append({"program": program, "settings": yaml.safe_load(files[folder + name])})
    if is_routed(deployment) and not deployment.mixed:  # HAProxy is run by tests/acceptance/test_emit_weighing.py
        hosts = {pool.role: [f"http://10.0.0.{i}:8000" for i in range(2)] for pool in deployment.pools}
        words = router_words(deployment, hosts)
        found.append({"program": "vllm-router" if words[0] == "vllm-router" else "sglang-router", "words": words})
    return found + _ray(document, deployment, catalog)


def _ray(document: Document, deployment: Deployment, catalog: Catalog) -> list[Start]:
    """Return what Ray Serve LLM is given, where it can run the plan."""
    if deployment.engine.id != "vllm" or deployment.offload_backend == "lmcache":
        return []
    try:
        text = emit(document, "ray", catalog)["ray/application.yaml"]
    except InputError:
        return []
    (application,) = yaml.safe_load(text)["applications"]
    return [{"program": "ray", "settings": settings} for settings in application["args"]["llm_configs"]]


def questions_of(
    engine: str, case: Case, starts: Iterable[Start], catalog: Catalog, document: Document | None = None
) -> Iterator[tuple[str, Start]]:
    """Yield the module to ask and the question for each start, in order; an empty name where nothing can be asked."""
    document = document or document_of(case, catalog)
    deployment = read_deployment(document, catalog, offload_backend=check_targets(",".join(case.targets))[2])
    config = config_text(catalog.get(Model, str(document.request["model"])))
    for start in starts:
        given = {name: start[name] for name in ("pool", "rank", "words", "environment") if name in start}
        kind = next((one for one in deployment.services if one.pools[0].name == start.get("pool")), deployment)
        question = of_command(kind, Command(**{"pool": "", "rank": 0, "words": [], "environment": {}, **given}), config)
        if "program" in start:
            yield "" if start["program"] == "trtllm" else "others", {**question, **start}
        else:
            yield ASKED.get(engine, ""), {**question, "program": engine, "name": f"{case.name}, {start['pool']}"}


def key_of(module: str, question: Start) -> str:
    """Return what an answer depends on, in a few letters: the question, and the sources that ask it."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode())
    for name in (*HARNESS, f"start_{module}.py"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def read_record(engine: str) -> dict[str, Any]:
    """Return an engine's record; empty where there is none yet."""
    path = GOLDEN / f"{engine}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": []}


def recorded_cases(engine: str) -> Iterator[tuple[Case, list[Start]]]:
    """Yield the recorded cases, with what they start."""
    for row in read_record(engine)["cases"]:
        case = Case(row["name"], row["factors"], row["request"], row["decision"], row["targets"], row.get("refused"))
        yield case, row.get("starts", [])


def record(
    engine: str, cases: Iterable[Case], catalog: Catalog, environment: Path | None, place: Path
) -> dict[str, Any]:
    """Return the record of an engine's cases; only what changed is asked again.

    Parameters
    ----------
    engine
        Its id.
    cases
        In order.
    catalog
        The facts.
    environment
        A virtual environment made from ``requirements.lock``; None: what isn't known stays without an answer.
    place
        A directory to work in.
    """
    known = {
        start["asked"]: start["answer"] for _, starts in recorded_cases(engine) for start in starts if "answer" in start
    }
    rows: list[dict[str, Any]] = []
    asked: dict[str, list[tuple[Start, Start]]] = {}
    for case in cases:
        row = {name: getattr(case, name) for name in ("name", "factors", "request", "decision", "targets")}
        rows.append(row)
        if case.refused is not None:
            row["refused"] = case.refused
            continue
        row["starts"] = starts_of(case, catalog, place / "scripts")
        for start, (module, question) in zip(
            row["starts"], questions_of(engine, case, row["starts"], catalog), strict=True
        ):
            if not module:
                continue
            start["asked"] = key_of(module, question)
            if start["asked"] in known:
                start["answer"] = known[start["asked"]]
            else:
                asked.setdefault(module, []).append((start, question))
    for module, pairs in asked.items():
        if environment is None:
            break
        for (start, question), said in zip(
            pairs, ask(environment, module, [question for _, question in pairs], place), strict=True
        ):
            said.pop("name", None)
            start["answer"] = said
            print(module, question.get("name"), said.get("error", "accepted"), flush=True)
    return {"versions": versions(), "cases": rows}


def versions() -> dict[str, str]:
    """Return the locked versions of the engines and of what decides their answers."""
    names = ("vllm", "sglang", "sglang-kernel", "lmdeploy", "lmcache", "ray", "vllm-router", "sglang-router", "torch")
    lines = (Path(__file__).parent / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith((" ", "#")))
    return {name: locked[name].split()[0] for name in (*names, "transformers")}


def write_record(engine: str, content: dict[str, Any]) -> None:
    """Write an engine's record."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=False)
    (GOLDEN / f"{engine}.json").write_text(text + "\n", encoding="utf-8")
