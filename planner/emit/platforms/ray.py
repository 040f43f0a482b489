"""Ray Serve LLM: an application whose engine arguments are the plan's."""

from __future__ import annotations

import json
from typing import Any

from planner.emit.deployment import Deployment
from planner.emit.flags import problems_of_keys, snapshot
from planner.emit.launch import Flags, Launch
from planner.emit.platforms.network import crosses_servers, network_environment
from planner.emit.platforms.pods import drain_seconds
from planner.emit.quoting import yaml_text
from planner.emit.stamp import header
from planner.errors import InputError
from planner.targets import PLATFORMS

VERSION = "2.60.0"
PAIRED = "0.29.0"
"""vLLM that Ray's package asks for; its engine doesn't import the server of 0.33.0, which moved its modules."""
AFFINITY = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
"""Sends a request to the replica that has its prefix."""
_FRONTEND = {"--host", "--port", "--served-model-name", "--api-server-count", "--enable-prompt-tokens-details"}
"""Flags of vLLM's own server, which Ray's takes the place of."""


def files(deployment: Deployment, launches: list[Launch]) -> dict[str, str]:
    """Return the application for ``serve deploy``.

    Raises
    ------
    InputError
        If the engine isn't vLLM, the plan has two pools, or a checkpoint or file has to be there first.
    """
    (launch, *others) = launches
    problems = []
    runs = PLATFORMS["ray"]
    if runs.engines is not None and launch.engine not in runs.engines:
        problems.append(f"--target ray: Ray Serve LLM runs vLLM; the plan is for {launch.engine}")
    if others and not runs.pools:
        problems.append("--target ray: separate pools aren't written for Ray; use --target kubernetes")
    if (launch.makes_checkpoint and not runs.makes_checkpoints) or launch.files:
        problems.append(
            "--target ray: the plan needs files on every server (a quantised checkpoint or LMCache's settings); "
            "name a checkpoint, offload natively, or use --target kubernetes"
        )
    if problems:
        raise InputError(problems)
    config = _config(deployment, launch)
    problems = problems_of_keys(config, "LLMConfig", "ray", VERSION)
    problems += problems_of_keys(config["engine_kwargs"], "EngineArgs", "vllm", launch.version)
    if problems:
        raise InputError(problems)
    application = {
        "name": deployment.slug,
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config]},
    }
    unpaired = (
        f"# Ray {VERSION} asks for vLLM {PAIRED}; this was written for {launch.version}, whose server it doesn't\n"
        "# import where modules moved: run an image that pairs the two, and look whether it knows every argument.\n"
    )
    known = "" if launch.version == PAIRED else unpaired
    return {"application.yaml": header(deployment, launch) + known + yaml_text({"applications": [application]})}


def _config(deployment: Deployment, launch: Launch) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": deployment.served_name, "model_source": launch.model},
        "engine_kwargs": engine_arguments(launch.flags),
        "log_engine_metrics": True,
        "deployment_config": {"num_replicas": launch.pool.instances},
    }
    cap = deployment.requests_at_most
    if cap is not None:
        config["deployment_config"]["max_ongoing_requests"] = cap
        config["deployment_config"]["max_queued_requests"] = 1  # Ray takes no 0
    # A replica that is replaced may finish what it has begun.
    config["deployment_config"]["graceful_shutdown_timeout_s"] = drain_seconds(deployment)
    if launch.pool.instances > 1:
        config["deployment_config"]["request_router_config"] = {"request_router_class": AFFINITY}
    accelerator = deployment.hardware.id.partition("-")[0].upper()
    if accelerator in snapshot("ray", VERSION)["tables"]["LLMConfig"]["accelerator_type"]["choices"]:
        config["accelerator_type"] = accelerator
    shared = network_environment(deployment) if crosses_servers(deployment, launch) else {}
    if shared or launch.environment:
        config["runtime_env"] = {"env_vars": {**shared, **launch.environment}}
    return config


def engine_arguments(flags: Flags) -> dict[str, Any]:
    """Return vLLM's flags as arguments in Python."""
    arguments: dict[str, Any] = {}
    for name, value in flags:
        if name in _FRONTEND:
            continue
        field = name.removeprefix("--").replace("-", "_")
        if name.startswith("--disable-"):
            arguments[field.replace("disable_", "enable_", 1)] = False
        else:
            is_json = isinstance(value, str) and value.startswith("{")
            arguments[field] = json.loads(str(value)) if is_json else value
    return arguments
