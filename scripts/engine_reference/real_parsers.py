"""The engines' own parsers, run on command lines. Runs in an environment that has the engines (docs/deploy.md).

One line of JSON per question on stdin, ``{"engine": ..., "words": [...]}``; one per answer on stdout,
``{"accepted": ..., "error": ...}``. LMCache and Ray take ``settings``, a mapping, instead of words.
"""

import contextlib
import io
import json
import sys
import tempfile


def sglang(words, settings):
    from sglang.srt.server_args import prepare_server_args

    prepare_server_args(words)


def lmdeploy(words, settings):
    from lmdeploy.cli.cli import CLI
    from lmdeploy.cli.serve import SubCliServe

    CLI.add_parsers()
    SubCliServe.add_parsers()
    CLI.parser.parse_args(words)


def vllm_router(words, settings):
    from vllm_router.launch_router import parse_router_args

    parse_router_args(words)


def sglang_router(words, settings):
    from sglang_router.launch_router import parse_router_args

    parse_router_args(words)


def lmcache(words, settings):
    """LMCache only warns of what it doesn't know: a setting that it takes is one that it gives back."""
    import yaml
    from lmcache.v1.config import LMCacheEngineConfig

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(settings, file)
        file.flush()
        config = LMCacheEngineConfig.from_file(file.name)
        config.validate()
    for name, value in settings.items():
        read = value.removeprefix("file://") if isinstance(value, str) else value
        if getattr(config, name) not in (value, read):
            raise ValueError(f"{name}: {value} became {getattr(config, name)}")


def ray(words, settings):
    from ray.serve.llm import LLMConfig

    LLMConfig(**settings)


PARSERS = {
    "sglang": sglang,
    "lmdeploy": lmdeploy,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "lmcache": lmcache,
    "ray": ray,
}


def main():
    """Answer every line of stdin."""
    for line in sys.stdin:
        asked = json.loads(line)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                PARSERS[asked["engine"]](asked.get("words"), asked.get("settings"))
            answer = {"accepted": True}
        except SystemExit as left:
            answer = {"accepted": False, "error": said.getvalue()[-1500:] or f"left with {left.code}"}
        except Exception as error:
            answer = {"accepted": False, "error": f"{type(error).__name__}: {error}"[:1500]}
        print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
