"""The page says how each kind of deployment is started, and what of the time to ready is assumed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from catalog.load import open_catalog
from planner.emit import emit
from tests.plans import flat_plan, plan_of

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"
CATALOG = open_catalog()


def page(name: str, targets: str | None = None, gpus: str | None = None, **decision: Any) -> str:
    content = flat_plan(name)
    content["decision"] |= decision
    if gpus is not None:
        content["request"]["gpus"] = gpus
    document = plan_of(content)
    return emit(document, targets or document.service.engine, CATALOG)["README.md"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("llama70b-fp8", ["- shell: `vllm/serve.sh`, an instance on 8 GPUs of one server"]),
        (
            "llama8b-int8",
            ["- shell: `vllm/serve.sh 0` to `vllm/serve.sh 7`, a process", "router: `vllm/router.sh`; it"],
        ),
        (
            "llama8b-split",
            [
                "- shell, prefill: `vllm/prefill.sh 0` to `vllm/prefill.sh 1`, a process per instance",
                "- shell, decode: `vllm/decode.sh 0` to `vllm/decode.sh 3`, a process per instance",
            ],
        ),
        ("scout-1m-pp", ["- shell: `RANK=0 HEAD=ADDRESS vllm/serve.sh` on the first of 2 servers, `RANK=1 HEAD"]),
        (
            "deepseek-v3-two-servers",
            ["its 4 data-parallel ranks with", '`SERVE_HOSTS="ADDRESS ..." vllm/router.sh`'],
        ),
    ],
)
def test_every_kind_of_launch_has_its_own_line(name: str, lines: list[str]) -> None:
    text = page(name)
    for line in lines:
        assert line in text


def test_instances_on_several_servers_are_counted_out() -> None:
    text = page("llama8b-int8", gpus="2x8xA100", parallel={"tp": 1, "replicas": 16})
    assert (
        "`vllm/serve.sh 0` to `vllm/serve.sh 15`, a process per instance, 8 on a server: 0 to 7 on the first, and so on"
        in text
    )
    assert (
        '`SERVE_HOSTS="ADDRESS ..." vllm/router.sh`, with the addresses of the servers of the serve instances (2)'
        in text
    )


def test_a_config_file_is_named_only_where_it_says_all() -> None:
    assert "`env VLLM_NO_USAGE_STATS=1 vllm serve --config vllm/serve.yaml`" in page("llama70b-fp8")
    for name in ("llama8b-int8", "llama8b-split", "scout-1m-pp", "deepseek-v3-two-servers"):
        assert "serve --config" not in page(name)


def test_scripts_of_the_shell_target_are_found() -> None:
    assert "- shell: `shell/serve.sh`" in page("llama70b-fp8", "shell")
    assert "- shell:" not in page("llama70b-fp8", "kubernetes")


def test_what_is_assumed_of_the_time_to_ready_is_told(tmp_path: Path) -> None:
    assumed = page("llama70b-fp8")
    assert "assumed: 15 min for the engine itself, 200 MB/s from the hub (storage.download" in assumed
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("node: dgx-a100-80gb\nnodes: 1\nstorage: {bandwidth: 4 GB/s, download: 1 GB/s}\n")
    known = page("llama70b-fp8", gpus=str(cluster))
    line = next(line for line in known.splitlines() if line.startswith("- ready:"))
    assert re.search(r"\d+ GB to download at 1000 MB/s, \d+ GB to read at 4000 MB/s; assumed: 15 min for the eng", line)
    assert "cluster file" not in line


def test_the_network_is_checked_where_servers_talk() -> None:
    assert "`NET/IB`" in page("scout-1m-pp")
    assert "UCX_LOG_LEVEL" not in page("scout-1m-pp")
    assert "## Check the network" not in page("llama8b-split")  # one server
