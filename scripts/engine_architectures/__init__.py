"""Make the lists in ``catalog/engine_architectures``: which models an engine has at a version, from its package.

As with the flags, nothing is imported or run: the registries are read from the wheels with `ast`, and
llama.cpp's names from its compiled library. TensorRT-LLM publishes a list of its models instead of a
package that could be read here; `published.py` holds it with its source.

    pip download --no-deps vllm==0.33.0 -d WHEELS        (and the others that `__main__.py` names)
    python -m scripts.engine_architectures WHEELS        writes catalog/engine_architectures/*.json
    python -m scripts.engine_architectures WHEELS --check   exits 1 where a file differs
"""
