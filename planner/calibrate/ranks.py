"""All-reduce over several processes, one per device: NCCL or RCCL on GPUs, gloo on the processor."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from planner.calibrate.device import Unmeasurable

REPETITIONS = 9
WARM_UP = 3
CALLS = 10
"""Messages of one timed block."""
TIMEOUT_S = 120.0
"""Longest wait for the answer of a rank; the first message also sets up the library [s]."""


class Ranks:
    """Processes that reduce together."""

    def __init__(self, count: int, kind: str) -> None:
        self.count = count
        self._folder = tempfile.TemporaryDirectory(prefix="plan-calibrate-")
        spawning = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        meeting = f"file://{Path(self._folder.name) / 'meeting'}"
        for rank in range(count):
            ours, theirs = spawning.Pipe()
            process = spawning.Process(target=_serve, args=(rank, count, kind, meeting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def times_s(self, message_bytes: int) -> tuple[float, ...]:
        """Times of an all-reduce of a message, as the first rank sees them [s].

        Raises
        ------
        Unmeasurable
            If a rank fails or doesn't answer.
        """
        for pipe in self._pipes:
            pipe.send(message_bytes)
        answers = []
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(TIMEOUT_S):
                    raise Unmeasurable(f"all-reduce: rank {rank} doesn't answer within {TIMEOUT_S:.0f} s")
                answers.append(pipe.recv())
            except (EOFError, OSError):
                raise Unmeasurable(f"all-reduce: rank {rank} ended") from None
        failed = next((answer for answer in answers if isinstance(answer, str)), None)
        if failed is not None:
            raise Unmeasurable(f"all-reduce: {failed}")
        times: tuple[float, ...] = answers[0]
        return times

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.terminate()
                process.join(5.0)
        self._folder.cleanup()


def _serve(rank: int, count: int, kind: str, meeting: str, pipe: Connection) -> None:
    """Answer message sizes with times until the pipe closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then closes the pipe.
    import torch

    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    try:
        if kind == "cuda":
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "nccl" if kind == "cuda" else "gloo", init_method=meeting, rank=rank, world_size=count
        )
    except (RuntimeError, ValueError) as error:
        _answer_all(pipe, " ".join(str(error).split())[:200])
        return
    while True:
        try:
            size = pipe.recv()
        except (EOFError, OSError):
            break
        try:
            pipe.send(_times(torch, device, size))
        except RuntimeError as error:
            pipe.send(" ".join(str(error).split())[:200])
    torch.distributed.destroy_process_group()


def _answer_all(pipe: Connection, text: str) -> None:
    try:
        while True:
            pipe.recv()
            pipe.send(text)
    except (EOFError, OSError):
        return


def _times(torch: Any, device: Any, size: int) -> tuple[float, ...]:
    reduce = torch.distributed.all_reduce
    message = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)
    for _ in range(WARM_UP):
        reduce(message)
    times = []
    for _ in range(REPETITIONS):
        _wait(torch, device)
        torch.distributed.barrier()
        _wait(torch, device)
        start = time.perf_counter()
        for _ in range(CALLS):
            reduce(message)
        _wait(torch, device)
        times.append((time.perf_counter() - start) / CALLS)
    return tuple(times)


def _wait(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
