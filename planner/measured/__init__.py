"""Predictions that match measurements: operations, the steps composed of them, and their intervals."""
