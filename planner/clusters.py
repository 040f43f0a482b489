"""The same cluster with more of its GPUs, as one would type it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.problem import Problem
from planner.request import Request

ANY = "any"
"""As ``--gpus`` says that the GPU is open, too."""
_COUNTS = re.compile(r"^(?:\s*[0-9]+\s*[x×])+\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Sizes:
    """Clusters of one GPU or server in any number."""

    name: str
    """``A100``, ``8xA100`` of a request for servers of eight, ``p4d.24xlarge``."""
    count: int
    """How many the request has."""
    gpus_each: int
    """1, or the GPUs of a server where servers are counted."""

    def text(self, count: int) -> str:
        """``11xA100``."""
        return f"{count}x{self.name}"

    @property
    def unit(self) -> str:
        """What is counted: GPUs or servers."""
        return "GPUs" if self.gpus_each == 1 else "servers"


def sizes_of(problem: Problem) -> Sizes | None:
    """How the request counts its GPUs; None for a cluster file, which one would have to edit."""
    text, cluster = problem.request.gpus.strip(), problem.cluster
    counts = _COUNTS.match(text)
    name = text[counts.end() :] if counts else text
    if counts is None and name.lower().endswith((".yaml", ".yml", ".json")):
        return None
    given = [int(number) for number in re.findall(r"[0-9]+", counts.group())] if counts else []
    if len(given) == 2:
        return Sizes(f"{given[1]}x{name}", given[0], given[1])
    if not cluster.assumed_node:
        return Sizes(name, given[0] if given else 1, cluster.node.gpus)
    return Sizes(name, cluster.gpus, 1)


def is_open(request: Request) -> bool:
    """Whether a request leaves the number of its GPUs open: it has users, and a GPU or a server without a number.

    >>> is_open(Request(ctx="8K", gpus="H100", users=5)), is_open(Request(ctx="8K", gpus="1xH100", users=5))
    (True, False)
    """
    text = request.gpus.strip().lower()
    return request.users is not None and not text[:1].isdigit() and not text.endswith((".yaml", ".yml", ".json"))
