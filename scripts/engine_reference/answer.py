"""Answer questions from stdin, one line of JSON each. Runs in the engines' environment.

A process imports an engine once for a GPU; each question is answered in a child of it, so that none leaves
anything behind for the next.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback

import gpu

ANSWER_SECONDS = 600


def said_to(engine, asked):
    """Return what the engine says to one question."""
    gpu.become(asked["gpu"])
    os.environ.update(asked.get("environment", {}))
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as stream:
            stream.write(asked["config"] if isinstance(asked["config"], str) else json.dumps(asked["config"]))
        try:
            text = json.dumps({"accepted": True, **engine.answer(asked, directory)}, default=str)
            return json.loads(text.replace(directory, "MODEL"))
        except SystemExit as left:
            return {"accepted": False, "error": f"it leaves with {left.code}: its parser refuses the command line"}
        except Exception as error:
            traceback.print_exc()
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = (str(error) or last.line or "").replace(directory, "MODEL")
            raised_in = last.filename.rpartition("site-packages/")[2]
            return {"accepted": False, "error": f"{type(error).__name__}: {text}"[:2000], "raised_in": raised_in}


def in_a_child(engine, asked):
    """Fork, answer, and return what the child wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(ANSWER_SECONDS)
        os.close(reading)
        said = said_to(engine, asked)
        with os.fdopen(writing, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(said, default=str))
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"accepted": False, "error": "the process died"}


def answer_for_one_gpu(name, numbered):
    """Import the engine as it is on this GPU, and print the answers with their numbers."""
    gpu.become(numbered[0][1]["gpu"])
    engine = importlib.import_module(f"start_{name}")
    for number, asked in numbered:
        if hasattr(engine, "prepare"):
            engine.prepare(asked)
        said = in_a_child(engine, asked)
        print("ANSWER " + json.dumps({"number": number, "name": asked.get("name"), **said}), flush=True)


def main():
    """Answer every line; the engine is the first argument. What an engine decides as it is imported is each GPU's own.

    So there is a process per GPU, which imports the engine once.
    """
    gpu.pretend()
    groups = {}
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        groups.setdefault(json.dumps(asked["gpu"], sort_keys=True), []).append((number, asked))
    failed = 0
    for numbered in groups.values():
        child = os.fork()
        if child == 0:
            try:
                answer_for_one_gpu(sys.argv[1], numbered)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        failed |= os.waitpid(child, 0)[1]
    sys.exit(1 if failed else 0)


main()
