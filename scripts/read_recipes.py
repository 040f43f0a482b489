"""Compare how `plan import` reads the commands of vLLM's recipes with what vLLM's own parser makes of them.

    git clone https://github.com/vllm-project/recipes RECIPES
    python -m scripts.read_recipes RECIPES > commands.json                       in the project's environment
    python scripts/read_recipes.py --judge commands.json                         in one with vLLM 0.33 (a CPU will do)

Commands are those of fenced shell blocks, in pages and in the guides of YAML files. Judged are all flags with one
value that either side has; the answer says how many commands are read alike, and which aren't. At 8959cf6 (2026-08-21):
678 commands, of which vLLM 0.33 takes 613, all read alike; 9 of the 65 that it refuses have no note here: their
JSON has keys that an older vLLM knew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^[ \t]*(`{3,})[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_SHELLS = {"", "bash", "sh", "shell", "console"}
_SERVES = re.compile(r"vllm\s+serve|vllm-openai|vllm\.entrypoints")


def blocks(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the shell blocks of a checkout that serve something, with the file of each."""
    import yaml

    for path in sorted([*folder.rglob("*.md"), *folder.rglob("*.yaml")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".yaml":
            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError:
                continue
            text = str(content.get("guide", "")) if isinstance(content, dict) else ""
        for match in _FENCE.finditer(text):
            if match[2].lower() in _SHELLS and _SERVES.search(match[3]):
                yield str(path.relative_to(folder)), re.sub(r"^\s*\$ ", "", match[3], flags=re.MULTILINE)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return every vLLM command with its words and what import makes of them."""
    from planner.importing import Command
    from planner.importing.entrypoints import servers_of_script
    from planner.importing.flags import read_flags
    from planner.importing.unknown import shown

    found = []
    for path, block in blocks(folder):
        for server in servers_of_script(block, {}):
            if server.engine == "vllm":
                given = read_flags(Command(server.arguments, path))
                words = [shown(word) for word in server.arguments]
                told = [*given.notes, *given.open_words]
                found.append(
                    {"file": path, "words": words, "model": given.model, "flags": dict(given.flags), "told": told}
                )
    return found


def judge(commands: list[dict[str, Any]]) -> None:
    """Print how many commands vLLM's parser reads alike, and those that it doesn't."""
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    from vllm.entrypoints.common.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> None:
            raise ValueError(message)

    parser = make_arg_parser(Parser(prog="vllm serve"))
    alike, refused, silent = 0, 0, 0
    for command in commands:
        try:
            theirs = vars(parser.parse_args(command["words"]))
        except (ValueError, OSError):
            refused += 1
            silent += not command["told"]
            continue
        wrong = list(_differences(command, theirs))
        alike += not wrong
        if wrong:
            print(command["file"], *wrong, "told" if command["told"] else "NOT TOLD", sep="; ")
    taken = len(commands) - refused
    print(f"{alike} of {taken} read alike; vLLM refuses {refused}, of which {silent} without a note here")


def _differences(command: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    model = theirs.get("model_tag") or theirs.get("model")
    if command["model"] is not None and command["model"] != model:
        yield f"model {command['model']!r}, vLLM has {model!r}"
    for flag, value in command["flags"].items():
        name = flag.removeprefix("--").replace("-", "_")
        name = name if name in theirs else name.replace("disable_", "enable_", 1)
        known = theirs.get(name)
        plain = isinstance(known, str | int | float) and not str(value).lstrip().startswith("{")
        if plain and str(known) != str(value) and not (str(value) == "auto" and known == -1):
            yield f"{flag} {value!r}, vLLM has {known!r}"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source", type=Path, metavar="RECIPES|COMMANDS.json")
    arguments.add_argument("--judge", action="store_true")
    given = arguments.parse_args()
    if given.judge:
        judge(json.loads(given.source.read_text(encoding="utf-8")))
    else:
        json.dump(read(given.source), sys.stdout, indent=1, default=str)
