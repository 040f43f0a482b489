"""What an operator's shell runs: the emitted scripts, with programs in the engines' place that only note their call."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.load import Catalog
from planner.emit.emit import launches_of, own_folder
from planner.emit.read_deployment import read_deployment
from planner.emit.write import write
from planner.plan import Document
from planner.targets import check_targets

HEAD = "10.0.0.1"
ADDRESS = "10.0.0.2"
DIRECTORY = "{directory}"
"""Stands for where the scripts lie."""
_PROGRAMS = ("vllm", "lmdeploy", "llama-server", "trtllm-serve", "python3")
_RECORDER = """#!/bin/sh
case "$(basename "$0") $1" in
  "python3 -c") echo "{version}"; exit ;;
  "python3 -m"|"vllm "*|"lmdeploy "*|"llama-server "*|"trtllm-serve "*) ;;
  *) for last; do :; done; touch "$last"; exit ;;  # makes a checkpoint
esac
basename "$0" | tr '\\n' '\\0' > "{out}.words"; printf '%s\\0' "$@" >> "{out}.words"; env -0 > "{out}.environment"
"""
_SHELLS_OWN = {"PWD", "OLDPWD", "SHLVL", "_", "PATH", "HOME", "RANK", "HEAD", "ADDRESS"}


@dataclass(frozen=True, slots=True)
class Command:
    """One start of an engine: a rank of the first instance of a pool."""

    pool: str
    rank: int
    words: list[str]
    environment: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the recorded form."""
        return {"pool": self.pool, "rank": self.rank, "words": self.words, "environment": self.environment}


def commands_of(
    document: Document, files: dict[str, str], targets: list[str], catalog: Catalog, place: Path
) -> list[Command]:
    """Run the scripts of a plan's files, on every server of the first instance of each pool.

    Parameters
    ----------
    document
        The plan.
    files
        What was emitted for it.
    targets
        For what.
    catalog
        The facts.
    place
        A directory to work in; it is emptied.
    """
    backend = check_targets(",".join(targets))[2]
    deployment = read_deployment(document, catalog, offload_backend=backend)
    found = []
    launches = launches_of(deployment, None)
    for launch in launches:
        script = f"{own_folder(launches)}/{launch.pool.name}.sh"
        for rank in range(launch.nodes):
            found.append(_run(files, script, launch.pool.name, rank, launch.version, place))
    return found


def _run(files: dict[str, str], script: str, pool: str, rank: int, version: str, place: Path) -> Command:
    shutil.rmtree(place, ignore_errors=True)
    programs, out = place / "bin", place / "called"
    programs.mkdir(parents=True)
    for name in _PROGRAMS:
        (programs / name).write_text(_RECORDER.format(version=version, out=out), encoding="utf-8")
        (programs / name).chmod(0o755)
    write(files, place / "out")
    given = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(place),
        "RANK": str(rank),
        "HEAD": HEAD,
        "ADDRESS": ADDRESS,
    }
    subprocess.run(
        ["bash", str(place / "out" / script)], check=True, capture_output=True, text=True, env=given, cwd=place
    )

    def parts(name: str) -> list[str]:
        text = Path(f"{out}.{name}").read_text(encoding="utf-8")
        return [part.replace(str((place / "out" / script).parent), DIRECTORY) for part in text.split("\0")[:-1]]

    environment = dict(part.split("=", 1) for part in parts("environment"))
    kept = {name: value for name, value in sorted(environment.items()) if name not in _SHELLS_OWN}
    return Command(pool, rank, parts("words"), kept)
