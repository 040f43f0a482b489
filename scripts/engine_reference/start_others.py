"""The start of what is smaller: LMDeploy, LMCache, Ray Serve LLM and the routers.

Runs in the engines' environment; `answer.py` asks it. A question names its ``program`` and has ``words``, the
whole command, or ``settings``, a mapping. Each program is taken as far as it goes without a GPU or a network:
LMDeploy up to its server, LMCache and Ray through the classes that read their settings, the others through
their parsers.
"""

import dataclasses
import importlib
import tempfile


class Started(BaseException):
    """LMDeploy has read everything, and would start its server now."""


def lmdeploy(asked, directory):
    """``lmdeploy serve api_server MODEL``: which of its engines it takes, and how that is configured.

    TurboMind's library wants CUDA 12 and isn't loaded: which models it has stands in Python.
    """
    import lmdeploy.turbomind as turbomind
    from lmdeploy.cli.cli import CLI
    from lmdeploy.cli.serve import SubCliServe

    def starts(_model, *, backend, backend_config, **_):
        raise Started(backend, backend_config)

    turbomind.is_available = lambda: True
    # ``lmdeploy.serve`` is a function, too.
    importlib.import_module("lmdeploy.serve.openai.api_server").serve = starts
    CLI.add_parsers()
    SubCliServe.add_parsers()
    words = asked["words"]
    given = CLI.parser.parse_args([*words[1:3], directory, *words[4:]])
    try:
        given.run(given)
    except Started as end:
        backend, config = end.args
    else:
        raise RuntimeError("LMDeploy left without starting anything")
    if backend != given.backend:
        raise RuntimeError(f"LMDeploy doesn't start {given.backend} with this model, but {backend}")
    kept = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    return {"backend": backend, **kept}


def vllm_router(asked, _directory):
    """``vllm-router ...``."""
    from vllm_router.launch_router import parse_router_args

    parse_router_args(asked["words"][1:])
    return {}


def sglang_router(asked, _directory):
    """``python3 -m sglang_router.launch_router ...``."""
    from sglang_router.launch_router import parse_router_args

    parse_router_args(asked["words"][3:])
    return {}


def lmcache(asked, _directory):
    """LMCache only warns of what it doesn't know: a setting that it takes is one that it gives back."""
    import yaml
    from lmcache.v1.config import LMCacheEngineConfig

    settings = asked["settings"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(settings, file)
        file.flush()
        config = LMCacheEngineConfig.from_file(file.name)
        config.validate()
    for name, value in settings.items():
        read = value.removeprefix("file://") if isinstance(value, str) else value
        if getattr(config, name) not in (value, read):
            raise ValueError(f"{name}: {value} became {getattr(config, name)}")
    return dict(settings)


def ray(asked, directory):
    """Ray's ``LLMConfig``. No further: Ray 2.60 asks for vLLM 0.29 and doesn't import 0.33."""
    from ray.serve.llm import LLMConfig

    settings = asked["settings"]
    loading = {**settings["model_loading_config"], "model_source": directory}
    LLMConfig(**{**settings, "model_loading_config": loading})
    return {}


PROGRAMS = {
    "lmdeploy": lmdeploy,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "lmcache": lmcache,
    "ray": ray,
}


IMPORTED = {
    "lmdeploy": "lmdeploy.cli.serve",
    "vllm-router": "vllm_router.launch_router",
    "sglang-router": "sglang_router.launch_router",
    "lmcache": "lmcache.v1.config",
    "ray": "ray.serve.llm",
}


def prepare(asked):
    """Import a program once, for all of its questions."""
    importlib.import_module(IMPORTED[asked["program"]])


def answer(asked, directory):
    """Return what a program says to one question; what it refuses raises."""
    return PROGRAMS[asked["program"]](asked, directory)
