"""Plan the points of a sweep on a Dask cluster: one that runs, or one that is started here for the sweep.

Each Dask worker opens its catalog once. Dask gives the points of a worker that died to another one, and
each point's outcome is taken once, whoever planned it.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from catalog.load import Catalog, open_catalog
from planner.errors import InputError, PlannerError
from planner.request import Request
from planner.search.cpsat import import_cp_model
from planner.search.solver import Settings
from planner.whatif.outcome import Outcome, Task, from_json, open_task_catalog, plan_point, to_json
from planner.whatif.parallel import usable_cores

CONNECT_S = "20s"
"""So long a scheduler may take to answer."""

_opening = threading.Lock()
_catalogs: dict[str, tuple[Settings, Catalog]] = {}


class DaskError(PlannerError):
    """A Dask cluster that can't plan."""


def check_dask() -> None:
    """Refuse ``--on dask`` where Dask isn't installed.

    Raises
    ------
    InputError
        Naming what to install.
    """
    if find_spec("distributed") is None:
        raise InputError("--on dask: needs Dask; pip install 'plan-llm[dask]', or leave --on out")


def run_on_dask(
    requests: Sequence[Request],
    jobs: int | None = None,
    *,
    catalog: Catalog | None = None,
    settings: Settings | None = None,
    address: str | None = None,
) -> Iterator[Outcome]:
    """Plan requests on a Dask cluster and yield each outcome as it is finished.

    Parameters
    ----------
    requests
        What to plan.
    jobs
        Workers of a cluster that is started here; None: one per core. A cluster that runs has its own.
    catalog, settings
        As `planner.whatif.parallel.run_parallel` takes them. Workers on other machines need the same
        version of this program, and the same overlays in the same places.
    address
        Of a scheduler that runs, such as ``tcp://10.0.0.1:8786``; None: a cluster is started here.

    Yields
    ------
    Outcome
        Once per request, whatever happens to a worker.

    Raises
    ------
    InputError
        If Dask isn't installed.
    DaskError
        If nobody answers at the address, or a worker has another program or other facts.
    """
    check_dask()
    task = json.dumps(Task.of(catalog or open_catalog(), settings).to_json())
    return _run(requests, min(jobs or usable_cores(), max(len(requests), 1)), task, address)


def plan_on_worker(index: int, asked: str, task: str) -> str:
    """Plan one request on a Dask worker: texts in, a text out, so that no class has to match."""
    settings, catalog = _opened(task)
    return json.dumps(to_json(plan_point(index, Request.model_validate_json(asked), catalog, settings)))


def _opened(task: str) -> tuple[Settings, Catalog]:
    """Settings and catalog of a task, opened once per process; CP-SAT's import isn't for two threads at once."""
    with _opening:
        import_cp_model()
        if task not in _catalogs:
            read = Task.from_json(json.loads(task))
            _catalogs[task] = (read.settings, open_task_catalog(read))
        return _catalogs[task]


def _run(requests: Sequence[Request], jobs: int, task: str, address: str | None) -> Iterator[Outcome]:
    with ExitStack() as stack:
        client = _connect(stack, jobs, address)
        run = uuid.uuid4().hex
        futures = [
            client.submit(
                plan_on_worker, index, request.model_dump_json(exclude_none=True), task, key=(f"plan-{run}", index)
            )
            for index, request in enumerate(requests)
        ]
        for future in _distributed().as_completed(futures, loop=client.loop):
            index = future.key[1]
            yield _outcome(future, index, requests[index])
            future.release()


def _connect(stack: ExitStack, jobs: int, address: str | None) -> Any:
    """A client of the cluster at an address, or of one that lives as long as the stack."""
    dask = _distributed()
    if address is None:
        cluster = dask.LocalCluster(
            n_workers=jobs, threads_per_worker=1, memory_limit=0, dashboard_address=None, silence_logs=logging.CRITICAL
        )
        return stack.enter_context(dask.Client(stack.enter_context(cluster), set_as_default=False))
    try:
        client = stack.enter_context(dask.Client(address, timeout=CONNECT_S, set_as_default=False))
    except (OSError, ValueError) as error:
        raise DaskError(f"--scheduler {address}: nobody answers there ({error}); start `dask scheduler`") from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        raise DaskError(f"--scheduler {address}: has no workers; start `dask worker {address} --nthreads 1`") from None
    return client


def _distributed() -> Any:
    """The library, which says nothing of its types; its log would only repeat what outcomes tell."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return import_module("distributed")


def _outcome(future: Any, index: int, request: Request) -> Outcome:
    try:
        return from_json(json.loads(future.result()))
    except _distributed().KilledWorker as error:
        died = f"{error.allowed_failures + 1} workers of the cluster died over it; if memory was short, plan it alone"
        return Outcome(index, request, "error", reason=died)
    except PlannerError as error:
        raise DaskError(f"a worker of the cluster can't plan: {error}") from None
    except ImportError as error:
        raise DaskError(f"a worker of the cluster hasn't this program: {error}; install plan-llm there") from None
    except Exception as error:
        raise DaskError(f"the cluster gave a point up: {type(error).__name__}: {error}") from None
