"""Number of threads that compute, and their way of waiting: set for OpenMP before torch loads it."""

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

COUNT, WAITING, SPINS = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
FEW_SPINS = "1000"
"""Looks of a waiting thread before it sleeps: 25 microseconds on an AMD EPYC. An iteration in bfloat16 is some 3,000
loops, and to wake a thread for each took a tenth of it on two cores. Ten times as many gain little more, and two
trainings that share two cores then take half as long again; with these 3 % longer."""


def choose_threads(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Let threads that wait soon sleep, and limit them to the processors that this process may use.

    Threads that spin for long take the processor from those that have work to do. OpenMP knows which processors the
    process is kept on, but not of a control group's share of their time, such as a container's. What the user has set
    stays.
    `root` is the file system in which Linux tells of control groups.

    >>> environment = {"OMP_NUM_THREADS": "2"}
    >>> choose_threads(environment)
    >>> environment
    {'OMP_NUM_THREADS': '2', 'OMP_WAIT_POLICY': 'PASSIVE', 'GOMP_SPINCOUNT': '1000'}
    """
    if WAITING not in environment:
        environment[WAITING] = "PASSIVE"
        environment.setdefault(SPINS, FEW_SPINS)
    share = min(_shares(root), default=math.inf)
    if COUNT not in environment and share < len(os.sched_getaffinity(0)):
        environment[COUNT] = str(max(1, math.floor(share)))


def _shares(root: Path) -> Iterator[float]:
    """Yield the processors' worth of time that each control group around this process allows, where limited."""
    try:
        groups = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for controllers, name in groups:
        first = mount / "cpu" if "cpu" in controllers.split(",") else mount
        if controllers and first == mount:
            continue  # a controller of version 1 that is not about processors
        group = first / name.strip().lstrip("/")
        for folder in (group, *group.parents):
            yield from _share(folder)
            if folder == first:
                break


def _share(group: Path) -> Iterator[float]:
    try:
        if (limit := group / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):  # no such limit, or one of a kind that is not known
        return
