"""`plan accuracy`: predictions against measurements, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Output

POINT = """\
id,source,engine,engine_version,model,params_b,layers,hidden,q_heads,kv_heads,head_dim,ffn,vocab,gpu,gpus,tp,pp,\
weight_dtype,kv_dtype,batch,input_tokens,output_tokens,metric,value
A,mine,vLLM,0.14,m,8.03,32,4096,32,8,128,14336,128256,a100-sxm-80gb,1,1,1,bf16,bf16,1,1024,128,tpot_s,0.0125
B,mine,vLLM,0.14,m,8.03,32,4096,32,8,128,14336,128256,nowhere,1,1,1,bf16,bf16,1,1024,128,tpot_s,0.0125
"""


def test_points_of_a_user_are_judged_or_named(plan: Callable[..., Output], tmp_path: Path) -> None:
    points, figure = tmp_path / "mine.csv", tmp_path / "scatter.png"
    points.write_text(POINT, encoding="utf-8")
    told = plan("accuracy", str(points), "--format", "json", "--figure", str(figure)).json
    assert told["n"] == 1
    assert told["used_in_fit"] == 0
    assert abs(told["points"][0]["error"]) < 0.25
    assert told["points"][0]["low_s"] < told["points"][0]["predicted_s"] < told["points"][0]["high_s"]
    assert set(told["by_source"]) == {"mine"}
    assert "nowhere" in told["unpriced"][0]["reason"]
    assert figure.stat().st_size > 0


def test_the_published_points_are_called_fitted(plan: Callable[..., Output]) -> None:
    found = plan("accuracy")
    assert found.code == 0
    assert "324 of these points were used to fit" in " ".join(found.stdout.split())


def test_a_missing_file_is_told(plan: Callable[..., Output]) -> None:
    found = plan("accuracy", "nowhere.csv")
    assert found.code == 2
    assert "nowhere.csv" in found.stderr
