"""Without --model: on every GPU, for every length, a model that was trained for it, with a config that is known."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.architecture import read_config
from catalog.engine_models import models_of
from catalog.load import Catalog, open_catalog
from catalog.schema import Engine, Hardware, Model
from catalog.window import window_of
from planner.default_model import default_model
from planner.errors import InputError
from planner.problem import runs_on
from planner.request import Cluster, resolve_cluster

GPUS = [entry.id for entry in open_catalog([]).all(Hardware)]
LONGEST = 1_048_576


@cache
def catalog() -> Catalog:
    return open_catalog([])


def engines(cluster: Cluster) -> tuple[Engine, ...]:
    return tuple(
        engine
        for engine in catalog().all(Engine)
        if engine.continuous_batching and runs_on(engine, cluster.hardware.compute_capability)
    )


@given(
    gpu=st.sampled_from(GPUS),
    count=st.sampled_from([1, 2, 4, 8, 16]),
    ctx=st.one_of(st.integers(1, LONGEST), st.sampled_from([32_768, 32_769, 262_144, 262_145, LONGEST])),
)
def test_the_default_holds_the_length_with_a_known_config(gpu: str, count: int, ctx: int) -> None:
    cluster = resolve_cluster(f"{count}x{gpu}", catalog())
    model, default = default_model(ctx, catalog(), cluster, engines(cluster))
    assert model.config_grade in ("proven", "copied")
    assert ctx <= model.trained_tokens
    assert ctx <= window_of(read_config(model.config), model.config, model).reach_tokens
    assert default.reason
    assert default.source
    names = tuple(model.config["architectures"])
    known = [models_of(engine.id, engine.version) for engine in engines(cluster)]
    assert any(found is None or found.implementation(names) for found in known)


@pytest.mark.parametrize("engine", [entry.id for entry in open_catalog([]).all(Engine)])
@pytest.mark.parametrize("ctx", [8_000, 200_000, 1_000_000])
def test_an_engine_that_is_named_has_the_default(engine: str, ctx: int) -> None:
    found = catalog().get(Engine, engine)
    cluster = resolve_cluster("8xA100", catalog())
    model, _ = default_model(ctx, catalog(), cluster, (found,))
    known = models_of(found.id, found.version)
    assert known is None or known.implementation(tuple(model.config["architectures"]))


def test_an_engine_without_any_default_is_told() -> None:
    strange = catalog().get(Engine, "vllm").model_copy(update={"id": "tensorrt-llm", "version": "1.2.1"})
    none = Catalog([])
    with pytest.raises(InputError, match="name a model"):
        default_model(8_000, none, resolve_cluster("8xA100", catalog()), (strange,))


def test_what_is_only_remembered_is_never_a_default() -> None:
    for entry in catalog().all(Model):
        if entry.default_for:
            assert entry.config_grade in ("proven", "copied"), entry.id
