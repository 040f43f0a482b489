"""Replicas that the worst single loss takes, against every server of a large cluster taken away."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from planner.reserve import lost_replicas


@dataclass(frozen=True)
class Cluster:
    gpus: int
    gpus_per_node: int


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, 16])
def test_a_server_takes_every_group_of_replicas_that_it_touches(size: int, step: int) -> None:
    for gpus in range(1, size + 1):
        held = size // gpus
        servers = [range(first, first + held) for first in range(0, 48 * held, held)]
        worst = max(len({replica // step for replica in server}) for server in servers)
        assert lost_replicas(Cluster(48 * size, size), gpus, step) == worst * step, (size, gpus, step)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_one_group_on_one_server_and_of_replicas_over_several(step: int) -> None:
    assert lost_replicas(Cluster(8, 8), 2, step) == step
    assert lost_replicas(Cluster(32, 8), 16, step) == step
