"""Predict a measured point."""

from __future__ import annotations

import numpy as np

from planner.measured.batch import Batch, Deployment, decode_batch_s, prefill_batch_s, request_s


def predict_s(deployment: Deployment, batch: Batch, metric: str) -> float:
    """Predicted value of a metric of `planner.measured.points.METRICS` [s]."""
    if metric == "prefill_s":
        return prefill_batch_s(deployment, batch)
    if metric == "tpot_s":
        middle = batch.input_tokens + batch.output_tokens / 2.0
        return float(decode_batch_s(deployment, batch.sequences, np.array([middle]))[0])
    return request_s(deployment, batch)
