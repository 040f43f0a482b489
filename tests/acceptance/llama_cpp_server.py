"""Run llama.cpp's server in this process with the flags of ``llama-server``, ask it, and print what it says.

Arguments: the flags as JSON, and the characters of each prompt (a token each, for the tests' model); ``serve`` in
their place prints the address, and serves others until standard input ends.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

TYPES = {"q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0", "f16": "GGML_TYPE_F16"}
NUMBERS = {
    "ctx-size": "n_ctx",
    "parallel": "n_parallel",
    "batch-size": "n_batch",
    "ubatch-size": "n_ubatch",
    "cache-ram": "cache_ram_mib",
}
ELSEWHERE = ("alias", "host", "port", "n-gpu-layers", "split-mode")
"""A free port of this machine is taken, and it has no GPU."""


def parameters(flags: dict[str, Any]) -> Any:
    """Return the parameters that the flags mean; each flag must be known."""
    given = dict(flags)
    params = xllamacpp.CommonParams()
    params.model.path = given.pop("model")
    for name, field in NUMBERS.items():
        setattr(params, field, int(given.pop(name)))
    params.cache_type_k = getattr(xllamacpp.ggml_type, TYPES[given.pop("cache-type-k")])
    params.cache_type_v = getattr(xllamacpp.ggml_type, TYPES[given.pop("cache-type-v")])
    attention = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[given.pop("flash-attn")]
    params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
    params.kv_unified = not given.pop("no-kv-unified")
    params.fit_params = given.pop("fit") == "on"
    params.endpoint_metrics = given.pop("metrics")
    for name in ELSEWHERE:
        given.pop(name)
    if given:
        raise SystemExit(f"flags without a parameter: {', '.join(given)}")
    params.port = 0
    params.warmup = False
    params.verbosity = 5
    return params


def main() -> None:
    """Serve, ask as many at once as there are slots, and print one line of JSON."""
    server = xllamacpp.Server(parameters(json.loads(sys.argv[1])))

    if sys.argv[2] == "serve":
        print(server.listening_address, flush=True)
        sys.stdin.read()
        return

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(server.listening_address + path, data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())

    props = ask("/props")
    letters = "abcdefgh"[: props["total_slots"]]
    prompts = [{"model": "tiny", "prompt": letter * int(sys.argv[2]), "max_tokens": 4} for letter in letters]
    with ThreadPoolExecutor(len(prompts)) as users:
        answers = list(users.map(lambda body: ask("/v1/completions", body)["usage"], prompts))
    context = props["default_generation_settings"]["n_ctx"]
    print(json.dumps({"slots": props["total_slots"], "context": context, "answers": answers}))


if __name__ == "__main__":
    main()
