"""Flags of a command line that is written in Rust: clap's attributes, out of a source distribution."""

from __future__ import annotations

import re
import tarfile
from typing import Any

from scripts.engine_flags.reading import Flag, Wheel, flag

_ARGUMENT = re.compile(
    r"#\[arg\((?P<settings>(?:[^()\[\]]|\([^()]*\)|\[[^\[\]]*\])*)\)\]\s*(?://[^\n]*\s*)*(?P<name>\w+):\s*(?P<type>[\w:<>]+),"
)
_WHOLE = {"u16", "u32", "u64", "usize", "i32", "i64"}


def router(source_package: Wheel) -> dict[str, Any]:
    """Return the flags of the ``vllm-router`` binary, which is what its image runs."""
    with tarfile.open(source_package.path) as archive:
        name = next(n for n in archive.getnames() if n.endswith("/src/main.rs"))
        member = archive.extractfile(name)
        source = member.read().decode() if member else ""
    found: dict[str, Flag] = {}
    for match in _ARGUMENT.finditer(source):
        settings = match["settings"]
        given = re.search(r'long = "([\w-]+)"', settings)
        spelled = f"--{given[1] if given else match['name'].replace('_', '-')}"
        inner = re.search(r"<(\w+)>", match["type"])
        kind = inner[1] if inner else match["type"]
        choices = re.search(r"value_parser = \[([^\]]*)\]", settings)
        found[spelled] = flag(
            [spelled],
            "bool" if kind == "bool" else "int" if kind in _WHOLE else "float" if kind in ("f32", "f64") else "str",
            re.findall(r'"([^"]+)"', choices[1]) if choices else None,
            many=match["type"].startswith("Vec<"),
        )
    # Read before clap, since a worker's port is optional.
    found["--prefill"] = flag(["--prefill"], "str", many=True)
    return {"flags": found}
