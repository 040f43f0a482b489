"""`from planner import ...` gives the same functions whatever was imported before."""

from __future__ import annotations

import subprocess
import sys


def test_evaluate_is_the_function_also_after_every_module_is_loaded() -> None:
    program = (
        "import planner.pipeline, planner.price, planner.verify\n"
        "from planner import Request, evaluate, make_plan\n"
        "assert callable(evaluate) and callable(make_plan)\n"
        "request = Request(ctx='4K', gpus='1xA100', model='llama-3.1-8b', efficiency='peak')\n"
        "print(evaluate(request).status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "evaluated", done.stderr
