"""Work on a Ray cluster, item by item, with progress, and with failures that name their machine and item."""

import logging
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lorbms_fast.counted import counted
from lorbms_fast.errors import UserError, one_line
from lorbms_fast.progress import tqdm

RETRIES = 20
"""Times that an item is tried again after its worker or machine died, or a place elsewhere could not be reached."""
TOLD = 10.0
"""Seconds between two lines on what is tried again."""
OF_A_GPU = 0.25
"""Share of a GPU that a task asks for: two threads that decode feed no whole one."""
ANSWERS_IN = 10
"""Seconds in which a cluster's head must take a connection."""
CONNECTS = 3
"""Times that a head is asked to take this process: its server for a driver behind ray:// may die while it starts."""
WAITING = 2
"""Tasks that are handed to Ray for each processor: its queues stay short, and the memory of what they carry."""

T = TypeVar("T")


class Task(NamedTuple):
    """An item of work."""

    name: str
    """The name that a failure gives it."""
    images: int
    item: Any


class Machine(NamedTuple):
    """Resources that Ray counts on a machine of the cluster."""

    processors: int
    memory: int
    """Bytes that tasks may ask for (`ray start --memory`; Ray's own choice leaves room for the rest)."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster for the time of a block, unless this process is connected already.

    The address is `ray` for the cluster that this machine belongs to (else a new one, of this machine alone), or one
    that Ray knows: `ray://HEAD:10001`, `HEAD:6379`. Raises UserError if there is none or it lets nobody in.
    """
    if ray.is_initialized():
        yield
        return
    _check_listens(address)
    try:
        _connect(None if address == "ray" else address)
    except Exception as error:  # of Ray, of any kind, for a start that takes too long too
        raise UserError(
            f"no Ray cluster that takes this process answers at --cluster {address} ({type(error).__name__}: "
            f"{one_line(str(error), 200)}): if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "copy the head's ~/.ray/auth_token; Python and Ray must be of the head's versions; a busy machine may need "
            "another try"
        ) from error
    print(f"cluster: {described()}", flush=True)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    for attempt in range(CONNECTS):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            return
        except ConnectionError as error:
            if "client server failed" not in str(error) or attempt == CONNECTS - 1:
                raise


def _check_listens(address: str) -> None:
    """Check quickly that an address of a machine and port has a listener; Ray itself tries for half a minute."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), ANSWERS_IN).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"nothing answers at --cluster {address} ({error}): start a cluster with  ray start --head  there (ray:// "
            "is its client server, port 10001; the others' port is 6379), or say --cluster ray for this machine alone"
        ) from error


def described() -> str:
    """Describe the cluster: its machines, processors and GPUs."""
    found = ray.cluster_resources()
    machines, processors, gpus = len(_alive()), int(found.get("CPU", 0)), int(found.get("GPU", 0))
    return f"{counted(machines, 'machine')}, {counted(processors, 'processor')}, {counted(gpus, 'GPU')}"


def has_gpus() -> bool:
    """Check whether any machine of the cluster has a GPU."""
    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def machines(gpu: bool = False) -> list[Machine]:
    """List the machines that do work, the one with the most processors first; `gpu`: those that have a GPU."""
    every = [node["Resources"] for node in _alive()]
    found = [Machine(int(has.get("CPU", 0)), int(has.get("memory", 0))) for has in every if not gpu or has.get("GPU")]
    return sorted((one for one in found if one.processors), reverse=True)


def results(
    work: Callable[..., T], shared: Any, tasks: Iterable[Task], description: str, images: int, *,
    gpu: bool = False, processors: int = 1, memory: int = 0, unit: str = " images",
) -> Iterator[tuple[Task, T]]:  # fmt: skip
    """Do `work(shared, item)` of every task somewhere on the cluster, and yield results as they come.

    Work is a function of a module, and leaves the same when it is done twice; what is shared is sent to each machine
    once. A task needs so many processors and bytes of memory, and a share of a GPU or none. The progress bar counts the
    images of all tasks, or what `unit` says. Raises UserError if a task did, or it could not read or write, or its
    machines died, too often; a mistake of the program is a RuntimeError with the task's own traceback.
    """
    remote: Any = ray.remote(_done).options(
        num_cpus=processors,
        num_gpus=OF_A_GPU if gpu else 0,
        memory=memory or None,
        max_retries=RETRIES,
    )
    common = ray.put(shared)
    coming, running = iter(tasks), dict[Any, Task]()
    tries, told = Counter[str](), -TOLD
    with tqdm(total=images, desc=description, unit=unit) as bar:
        try:
            while True:
                for task in islice(coming, max(0, _at_once() - len(running))):
                    running[remote.remote(work, common, task.name, task.item)] = task
                if not running:
                    return
                ray.wait(list(running), num_returns=1)
                for ready in ray.wait(list(running), num_returns=len(running), timeout=0)[0]:  # all that are by now
                    task = running.pop(ready)
                    try:
                        found = _result(ready, task)
                    except OSError as error:  # may be well on another machine, or later
                        tries[task.name] += 1
                        if tries[task.name] > RETRIES:
                            raise UserError(str(error)) from error
                        if time.monotonic() > told + TOLD:
                            told = time.monotonic()
                            bar.write(f"trying again: {one_line(str(error), 400)}", file=sys.stderr)
                        running[remote.remote(work, common, task.name, task.item)] = task
                        continue
                    yield task, found
                    bar.update(task.images)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def result(work: Callable[..., T], shared: Any, name: str, images: int, **options: Any) -> T:
    """Do a single task, `work(shared, None)`."""
    ((_, found),) = results(work, shared, [Task(name, images, None)], name, images, **options)
    return found


def on_every_machine(work: Callable[..., object], argument: Any) -> None:
    """Do `work(argument)` once on each machine that is there; what cannot be done in a minute is left."""
    nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in _alive()]
    options = {"num_cpus": 0, "max_retries": 0}
    running = [ray.remote(work).options(scheduling_strategy=node, **options).remote(argument) for node in nodes]
    for reference in running:
        try:
            ray.get(reference, timeout=60)
        except (GetTimeoutError, RayError):  # the machine is gone, and its disk with it
            continue


def _done(work: Callable[..., T], shared: Any, name: str, item: Any) -> T:
    """Worker side of a task."""
    where = f"{name}, on {socket.gethostname()}"
    try:
        return work(shared, item)
    except OSError as error:
        raise OSError(f"{where}: {error}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error


def _result(reference: Any, task: Task) -> Any:
    """Get a task's result; UserError where it said so or died, OSError where it may be tried again, or its own."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, OSError):
            raise OSError(str(cause)) from error
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from error
        raise
    except RayError as error:
        raise UserError(
            f"{task.name} was tried {RETRIES + 1} times, and each time its worker or machine died "
            f"({one_line(str(error), 300)}): leave its files out, or give the machines more memory"
        ) from error


def _at_once() -> int:
    return WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def is_gpu_task() -> bool:
    """Check, inside a task, whether Ray gave it a GPU."""
    return bool(os.environ.get("CUDA_VISIBLE_DEVICES")) and bool(ray.get_gpu_ids())
