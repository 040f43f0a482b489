"""How fast candidates are priced. Run with ``pytest -m benchmark -s`` to see the figure."""

from __future__ import annotations

import time

import numpy as np
import pytest

from planner.cost.compression import compression_table
from planner.cost.efficiency import Efficiency
from planner.cost.price import price
from planner.cost.replica import Shape
from tests.cost_models import candidates, measured, model, setting

CANDIDATES = 1_000_000
LIMIT_S = {False: 2.0, True: 3.0}
"""By whether times are measured ones [s]."""

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("is_measured", [False, True])
@pytest.mark.parametrize("kind", ["gqa", "mla", "sliding", "moe"])
def test_a_million_candidates_in_seconds_of_one_core(kind: str, is_measured: bool) -> None:
    rng = np.random.default_rng(0)
    shapes = tuple(Shape(tp=tp, pp=pp) for tp in (1, 2, 4, 8) for pp in (1, 2) if tp * pp <= 8)
    table = compression_table([[None] * 5] * 1000)
    view = Efficiency("growing", growth=True)
    timer = measured() if is_measured else None
    priced = setting(model(kind), 100_000, *shapes, efficiency=view, compression=table, timer=timer)
    chosen = candidates(
        shape=np.repeat(np.arange(len(shapes)), CANDIDATES // len(shapes) + 1)[:CANDIDATES],
        compression=rng.integers(0, len(table), CANDIDATES),
        decode_sequences=rng.integers(1, 64, CANDIDATES),
        prefill_chunk=rng.choice([0, 512, 2048, 8192], CANDIDATES),
        policy=rng.integers(0, 3, CANDIDATES),
        throttled=rng.random(CANDIDATES) < 0.5,
    )
    price(priced, candidates())  # The first call pays for what numpy loads.
    began = time.process_time()
    price(priced, chosen)
    taken_s = time.process_time() - began
    what = "measured times" if is_measured else "roofline"
    print(f"{kind}, {what}: {CANDIDATES:,} candidates in {taken_s:.2f} s of processor time")
    assert taken_s < LIMIT_S[is_measured]
