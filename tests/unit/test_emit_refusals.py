"""What an engine can't do is said, with the engines that can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose

from planner.emit import emit
from planner.errors import InputError
from tests.manifests import documents, read_yaml
from tests.plans import flat_plan, plan_of, shipped_catalog

PLANS = Path(__file__).parents[1] / "golden" / "emit" / "plans"


def problems(name: str, targets: str = "vllm", engine_version: str | None = None, **changes: Any) -> str:
    content = flat_plan(name)
    for part, values in changes.items():
        content[part] |= values
    with pytest.raises(InputError) as raised:
        emit(plan_of(content), targets, shipped_catalog(), engine_version=engine_version)
    return str(raised.value)


def compressed(**choices: tuple[str, float | None]) -> dict[str, Any]:
    return {"compression": {d: {"technique": t, "strength": s} for d, (t, s) in choices.items()}}


def test_token_eviction_names_the_engines_that_ship_it() -> None:
    text = problems("llama70b-fp8", decision=compressed(token=("snapkv_1024", None)))
    assert "token: vllm 0.33.0 has no flag for snapkv_1024" in text
    assert "transformers-kvpress" in text


def test_no_engine_is_sent_to_itself() -> None:
    text = problems("kvpress-snapkv", "transformers-kvpress", decision={"weights": "nf4"})
    assert "weights: transformers-kvpress 0.5.5 has nf4, but files with it aren't written here" in text
    assert "have it: sglang" in text
    assert "transformers-kvpress" not in text.partition("have it:")[2]


def test_a_press_gets_the_strength_that_the_catalog_gives() -> None:
    content = flat_plan("kvpress-snapkv")
    content["request"]["model"] = "llama-2-7b"
    content["decision"] |= compressed(head=("duo_25_mha", None))
    files = emit(plan_of(content), "transformers-kvpress", shipped_catalog())
    press = read_yaml(files["transformers-kvpress/press.yaml"])["press"]
    assert press == {"class": "DuoAttentionPress", "head_compression_ratio": 0.75}
    unknown = problems("kvpress-snapkv", "transformers-kvpress", decision=compressed(layer=("simlayerkv", None)))
    assert "layer: simlayerkv: the catalog doesn't say the lazy_threshold that makes a press this strong" in unknown


def test_every_problem_is_told_at_once() -> None:
    bad = compressed(token=("snapkv_1024", None), attention=("quest_1024", None))
    text = problems("llama70b-fp8", decision=bad)
    assert "token:" in text
    assert "attention:" in text


def test_a_kv_format_that_the_gpu_lacks_is_refused() -> None:
    bad = compressed(hidden=("kv_fp8_e4m3", 8.0))
    text = problems("deepseek-v3-dcp", request={"gpus": "2x8xA100"}, decision=bad)
    assert "hidden: vllm 0.33.0" in text


def test_a_kv_format_of_another_engine_is_refused() -> None:
    text = problems("llama70b-fp8", decision=compressed(hidden=("lcpp_q8_0", None)))
    assert "no KV format for lcpp_q8_0" in text
    assert "llama.cpp" in text


def test_weights_that_the_engine_lacks_are_refused() -> None:
    text = problems("llama70b-fp8", decision={"weights": "qserve_w4a8"})
    assert "weights: vllm 0.33.0 has no flag for qserve_w4a8" in text


def test_quantising_what_is_quantised_is_refused() -> None:
    assert "quantised by its makers" in problems("deepseek-v3-dcp", decision={"weights": "gptq8"})


def test_a_version_without_a_snapshot_is_refused() -> None:
    assert "known versions: 0.32.0, 0.33.0" in problems("llama70b-fp8", engine_version="0.20.0")


def test_another_engine_than_the_plans_is_refused() -> None:
    content = flat_plan("llama70b-fp8")
    content["decision"]["engine"] = "sglang"
    with pytest.raises(InputError, match="made for sglang"):
        emit(plan_of(content), "vllm", shipped_catalog())


def test_compose_is_refused_over_several_servers() -> None:
    assert "compose runs on one server" in problems("scout-1m-pp", "compose")


def test_kserve_is_refused_over_several_servers_and_ray_over_two_pools() -> None:
    assert "spans servers" in problems("scout-1m-pp", "kserve")
    assert "separate pools" in problems("llama8b-split", "ray")
    assert "name a checkpoint" in problems("qwen32b-awq-yarn", "ray", decision={"weights": "int8_w8a8"})


def test_an_offline_engine_takes_no_platform() -> None:
    assert "is no server" in problems("kvpress-snapkv", "compose")


def test_unknown_targets_are_named_with_the_known_ones() -> None:
    text = problems("llama70b-fp8", "vllm,kubernets")
    assert "did you mean kubernetes?" in text
    assert "--target" in problems("llama70b-fp8", "")


def test_lmcache_is_refused_where_the_engine_is_not_started_with_it() -> None:
    assert "llama.cpp has no connector to it" in problems("llamacpp-q8", "llama.cpp,lmcache")


def test_lmcache_of_sglang_is_refused_in_pools_and_for_data_parallel_ranks() -> None:
    swap = {"offload": {"policy": "swap", "tier": "ddr"}}
    assert "one pool prefills and decodes" in problems("sglang-split", "sglang,lmcache", decision=swap)
    spread = {**swap, "parallel": {"tp": 2, "ep": 8, "replicas": 4}}
    model = {"model": "qwen3-30b-a3b-2507"}
    text = problems("sglang-fp8-hicache", "sglang,lmcache", decision=spread, request=model)
    assert "attention-data-parallel" in text


def test_llama_cpp_has_no_disk_tier_of_its_own() -> None:
    swap = {"offload": {"policy": "swap", "tier": "nvme"}}
    assert "moves no KV to nvme" in problems("llamacpp-q8", "llama.cpp", decision=swap)


def test_an_infeasible_plan_is_refused() -> None:
    content = flat_plan("llama70b-fp8") | {"status": "infeasible"}
    with pytest.raises(InputError, match="nothing to deploy"):
        emit(plan_of(content), "vllm", shipped_catalog())


def test_amd_gpus_get_images_and_devices_of_their_own_or_a_refusal() -> None:
    content = flat_plan("llama70b-fp8")
    content["request"]["gpus"] = "8xMI300X"
    content["decision"]["compression"] = {}
    files = emit(plan_of(content), "compose,kubernetes", shipped_catalog())
    service = read_yaml(files["compose/compose.yaml"])["services"]["serve-0"]
    assert service["image"] == "vllm/vllm-openai-rocm:v0.33.0"
    assert service["environment"]["HIP_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    assert "reservations" not in service["deploy"]["resources"]
    PyCompose.from_yaml(files["compose/compose.yaml"])
    assert "amd.com/gpu: '8'" in files["kubernetes/kubernetes.yaml"]
    content["decision"]["engine"] = "sglang"
    with pytest.raises(InputError, match="no image of sglang for AMD"):
        emit(plan_of(content), "kubernetes", shipped_catalog())


def test_formats_that_heads_or_sinks_do_not_take_are_refused() -> None:
    sinks = {"model": "gpt-oss-120b", "gpus": "8xA100"}
    text = problems("llama70b-fp8", request=sinks, decision={"weights": "native"})
    assert "fp8_e4m3 KV on NVIDIA A100 SXM 80 GB isn't for attention sinks" in text
    wide = {"model": "phi-3-mini-128k", "gpus": "8xA100"}
    assert "is for heads of 64, 128, 256, 512, not of 96" in problems("llama70b-fp8", request=wide)


def test_tensorrt_llm_makes_its_quantised_checkpoint_with_modelopt() -> None:
    content = flat_plan("trtllm-host-cache")
    content["request"]["gpus"] = "8xH100"
    content["decision"]["weights"] = "fp8"
    files = emit(plan_of(content), "tensorrt-llm,kubernetes", shipped_catalog())
    program = files["tensorrt-llm/make_checkpoint.py"]
    compile(program, "make_checkpoint.py", "exec")
    assert "mtq.FP8_DEFAULT_CFG" in program
    (job,) = documents(files["kubernetes/make-checkpoint.yaml"], "Job")
    assert "make_checkpoint.py" in str(job)
    named = emit(plan_of(content), "tensorrt-llm", shipped_catalog(), checkpoint="nvidia/Llama-FP8")
    assert "nvidia/Llama-FP8" in named["tensorrt-llm/serve.sh"]
    assert "tensorrt-llm/make_checkpoint.py" not in named
