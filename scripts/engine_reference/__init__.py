"""What vLLM itself says to a command line: its own parser, config checks and KV planner, for a GPU that isn't there.

    uv venv -p 3.11 env && pip download --no-deps vllm==0.33.0
    (install the wheel's requirements and the wheel into env: docs/deploy.md)
    python -m scripts.engine_reference ENV < questions.jsonl > answers.jsonl

It runs `answer.py` with the environment's Python, which has vLLM and none of this project. A
question is one line of JSON: the GPU, the model's ``config.json``, the words of the command line and
the bytes for KV; the answer says whether vLLM takes them, which attention backend it chooses, and how
many blocks, tokens and concurrent requests its own planner makes of the bytes.
"""
