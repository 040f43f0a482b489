"""Make the snapshots in ``catalog/engine_flags`` from the engines' published packages.

An engine is never imported or run: its source is read from the wheel with `ast`, so this needs
neither a GPU nor torch, and takes a second per engine.

    pip download --no-deps vllm==0.33.0 -d WHEELS      (and the others that `sources.py` names)
    python -m scripts.engine_flags WHEELS              writes catalog/engine_flags/*.json
    python -m scripts.engine_flags WHEELS --check      exits 1 where a file differs
"""
