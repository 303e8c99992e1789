"""`python -m bench.cluster`: hours, bytes and money of preparing and neighbours by machines, for docs/scale.md.

Tasks are handed out by one driver to processors of which some are slow and all may die: a simulation, from rates that
were measured on one core and from Ray's own time for a task (`--measure` takes that here). Prices and rates of networks
and of GPUs are taken, not measured. `--compare` searches drawn features on this machine, and as a cluster of it alone.
"""

import argparse
import heapq
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.measurement.machine import machine
from lorbms_fast.similarity.features.extractor import Extractor

PER_TASK = 0.0027
"""Seconds of the driver for a task, of which it hands out one after another (measured, see docs/scale.md)."""
CORES, MEMORY, NETWORK = 16, 4.5e10, 1.25e9
"""Of a machine: processors, bytes that Ray gives to tasks (of 64 GB), and bytes that it reads a second (10 Gbit/s)."""
PREPARED, EMBEDDED, COMPARED = 907, 14.4, 3.9e10
"""Of a core (measured), a second: photographs prepared, images embedded (EfficientNet-Lite0, four quadrants), and
operations of the search."""
DIMENSION, SHARD, QUERIES = 1280, 5461, 16_384
"""Numbers of a feature, and images of a task of each kind."""
CORE_HOUR, GB_MONTH = 0.05, 0.023
"""US dollars (taken)."""
CAUSES, CENTRES = 24, 300
"""Numbers that a drawn image's features depend on, and the groups they come in."""


class Cluster(NamedTuple):
    """Machines that do not all keep pace, and die."""

    machines: int
    spread: float = 0.3
    """Of tasks' durations: the standard deviation of their logarithm."""
    slow: float = 0.05
    """Share of machines that are `slowness` times slower."""
    slowness: float = 3.0
    between_deaths: float = 24 * 3600.0
    """Mean seconds until a machine dies."""
    away: float = 300.0
    """Seconds until another takes its place."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a simulation."""

    seconds: float
    deaths: int
    repeated: int
    """Tasks that were lost with their machine, and done again."""
    efficiency: float
    """Share of the processors' time in which tasks were done that count, at the usual pace."""


def simulated(
    cluster: Cluster, tasks: int, seconds: float, at_once: int = CORES, per_task: float = PER_TASK
) -> Outcome:
    """Simulate tasks of some mean duration on a cluster, some of a machine at once: the makespan, and what got lost."""
    generator = np.random.default_rng(0)
    pace = np.where(generator.random(cluster.machines) < cluster.slow, cluster.slowness, 1.0)
    dies = generator.exponential(cluster.between_deaths, cluster.machines)
    free = [(0.0, machine) for machine in range(cluster.machines) for _ in range(at_once)]
    heapq.heapify(free)
    waiting = list(generator.lognormal(-(cluster.spread**2) / 2, cluster.spread, tasks) * seconds)
    driver = end = 0.0
    deaths = repeated = 0
    while waiting:
        at, machine = heapq.heappop(free)
        begins = max(at, driver)
        while begins >= dies[machine] + cluster.away:
            dies[machine] += cluster.away + generator.exponential(cluster.between_deaths)
            deaths += 1
        if begins >= dies[machine]:
            heapq.heappush(free, (dies[machine] + cluster.away, machine))
            continue
        driver = begins + per_task
        duration = waiting.pop()
        stops = begins + duration * pace[machine]
        if stops > dies[machine]:
            waiting.append(duration)
            repeated += 1
            heapq.heappush(free, (dies[machine] + cluster.away, machine))
            continue
        heapq.heappush(free, (stops, machine))
        end = max(end, stops)
    return Outcome(end, deaths, repeated, tasks * seconds / (end * cluster.machines * at_once))


class Set(NamedTuple):
    """A set of photographs, and how many bytes one takes."""

    name: str
    images: int
    bytes_of_one: int
    probes: int
    """Cells that are searched (measured for COCO, else taken)."""


SETS = (
    Set("COCO", 340_000, 160_000, 15),
    Set("ImageNet", 1_300_000, 110_000, 16),
    Set("YFCC", 100_000_000, 100_000, 24),
    Set("LAION", 2_000_000_000, 50_000, 24),
)


def cells_of(images: int) -> int:
    """Number of cells, as the search has it."""
    return min(images // 2000, 32_768)


def operations(images: int, cells: int, probes: int, dimension: int) -> float:
    """Operations of a quadrant's search: two for each number that is compared."""
    kmeans = 20 * 64 * cells**2
    of_one = 3 * cells + 512 + probes * images / cells  # its cell, for the samples and itself; recall; others
    return 2.0 * dimension * (kmeans + images * of_one)


def steps(of: Set) -> dict[str, tuple[int, float, int]]:
    """Tasks, seconds of a task, and tasks of a machine at once, by step; k-means of cells is beside them."""
    k, n = cells_of(of.images), of.images
    pair = 2 * DIMENSION / COMPARED
    in_a_file = min(max(n // 2048 // 16 * 16, 256), 4096)
    files = max(1, n // in_a_file)
    found = {
        "list": (max(1, n * of.bytes_of_one // 10**9), 10**9 / (NETWORK / CORES), CORES),
        "prepare": (max(1, n // SHARD), SHARD * max(1 / PREPARED, of.bytes_of_one / (NETWORK / CORES)), CORES),
        "embed": (files, in_a_file / EMBEDDED, CORES),
    }
    if is_searched_whole(of):
        return found | {"search": (4, operations(n, k, of.probes, DIMENSION) / COMPARED / CORES, 1)}
    return found | {
        "cells": (4 * files, in_a_file * k * pair, CORES),
        "recall": (4 * files, in_a_file * 512 * 2 * pair, CORES),
        "search": (4 * max(1, n // QUERIES), QUERIES * (2 * k + of.probes * n / k) * pair, CORES),
    }


def is_searched_whole(of: Set) -> bool:
    """Check whether a machine has the memory to search a quadrant, so that one does it."""
    from lorbms_fast.cluster.neighbours import memory_of_search

    return memory_of_search(of.images, DIMENSION) <= MEMORY


def kmeans_seconds(of: Set) -> float:
    """Seconds of one machine for the four quadrants' k-means, where the others wait for it."""
    if is_searched_whole(of):
        return 0.0
    k = cells_of(of.images)
    return 4 * 20 * 64 * k * k * 2 * DIMENSION / COMPARED / CORES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, metavar="TASKS", help="time that many empty tasks of Ray, here")
    parser.add_argument("--compare", type=int, metavar="IMAGES", help="search one quadrant of so many, both ways, here")
    parser.add_argument("--cells", action="store_true", help="let --compare search in cells, too")
    parser.add_argument("--turns", type=int, default=2, help="of --compare")
    parser.add_argument("--dimension", type=int, default=256, help="of the features that --compare draws")
    asked = parser.parse_args()
    if asked.compare:
        compare(asked.compare, asked.dimension, asked.turns, asked.cells)
        return
    if asked.measure:
        print(f"{measured(asked.measure) * 1e3:.2f} ms a task")
        return
    print(
        "| set | machines | list + prepare, h | embed, h | cells + search, h | k-means, h | all, h | core-hours | $ |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for of in SETS:
        for machines in (1, 16, 64, 256):
            if of.images / machines > 4e7 or of.images / machines < 5e3:
                continue
            hours = {name: _hours(Cluster(machines), *step) for name, step in steps(of).items()}
            alone = kmeans_seconds(of) / 3600
            total = sum(hours.values()) + alone
            cores = total * machines * CORES
            made = hours.pop("list") + hours.pop("prepare")
            print(
                f"| {of.name} | {machines} | {made:.2g} | {hours.pop('embed'):.2g} | "
                f"{sum(hours.values()):.2g} | {alone:.2g} | {total:.3g} | "
                f"{cores:,.0f} | {cores * CORE_HOUR:,.0f} |"
            )
    print("\n| set | read, TB | store | features | neighbours | of a machine's disk | a month, $ |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for of in SETS:
        n = of.images / 1e12
        read, store, features, lists = 2 * of.bytes_of_one * n, 12_288 * n, 16 * DIMENSION * n, 700 * n
        disk = store + (features if is_searched_whole(of) else features / 4)
        print(
            f"| {of.name} | {read:.3g} | {store:.3g} | {features:.3g} | {lists:.2g} | {disk:.3g} | "
            f"{(store + lists) * 1000 * GB_MONTH:,.2g} |"
        )
    print("\n| machines | tasks | a task, s | hours | deaths | done again | efficiency |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    shards, of_one = 10**8 // SHARD, round(SHARD / PREPARED)
    for machines, tasks, seconds in (*((m, shards, of_one) for m in (16, 64, 256)), (256, shards, 10 * of_one)):
        for cluster in (Cluster(machines, 0, 0, 1, 1e12), Cluster(machines), Cluster(machines, between_deaths=7200)):
            found = simulated(cluster, tasks, seconds)
            print(
                f"| {machines} | {tasks:,} | {seconds} | {found.seconds / 3600:.3g} | {found.deaths} | "
                f"{found.repeated} | {found.efficiency:.0%} |"
            )


def _hours(cluster: Cluster, tasks: int, seconds: float, at_once: int) -> float:
    """Hours of a step; of very many tasks a part is simulated."""
    part = min(tasks, 50 * cluster.machines * CORES + 20_000)
    return simulated(cluster, part, seconds, at_once).seconds * tasks / part / 3600


def measured(tasks: int) -> float:
    """Seconds of the driver and the cluster for an empty task, through the code that hands out all."""
    from lorbms_fast.cluster.tasks import Task, connected, results

    with connected("ray"):
        for count in (50, tasks):  # the first start the workers
            start = time.perf_counter()
            for _ in results(nothing, None, (Task("nothing", 1, None) for _ in range(count)), "empty tasks", count):
                pass
        return (time.perf_counter() - start) / tasks


def drawn_features(d: int) -> Extractor:
    """(images, 4, d): rectified mixtures of a few causes, around one of 300 centres, and noise."""
    fixed = np.random.default_rng(0)
    centres = fixed.standard_normal((CENTRES, CAUSES), np.float32)
    mixture = fixed.standard_normal((CAUSES, d), np.float32)

    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = np.ascontiguousarray(images).reshape(len(images), 8).view(np.int64)[:, 0]
        generator = np.random.default_rng(int(numbers[0]))
        causes = centres[generator.integers(CENTRES, size=(len(images), 4))]
        causes += generator.standard_normal(causes.shape, np.float32)
        noise = generator.standard_normal((len(images), 4, d), np.float32)
        return np.maximum(causes @ mixture, 0) + np.float32(0.3) * noise

    return Extractor(1, extract)


def compare(images: int, dimension: int, turns: int, in_cells: bool) -> None:
    """Search a quadrant of drawn features without a cluster and in the cluster's two forms, in turns, and print."""
    from lorbms_fast.cluster.neighbours import (
        Job,
        memory_of_search,
        roomy,
        rows_of_a_file,
        search_in_cells,
        search_whole,
    )
    from lorbms_fast.cluster.tasks import connected
    from lorbms_fast.dataloader.places import Place
    from lorbms_fast.similarity.algorithm2 import Quadrant, Settings, find_for_quadrant

    print(f"{images:,} images, {dimension} features; {machine()}, {len(os.sched_getaffinity(0))} cores")
    draw, pictures = drawn_features(dimension), np.arange(images)
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "1000000000")  # what has ended is not counted
    with tempfile.TemporaryDirectory() as folder, connected("ray"):
        memory = memory_of_search(images, dimension)
        place, rows = Place(folder), rows_of_a_file(images)
        whole = Job(
            *(place, Path(folder), {}, images, "drawn", None, Settings(), False, place / "whole", rows),
            *(roomy(memory, False), memory),
        )
        cells = replace(whole, work=place / "cells", machine=None)
        for number, of in enumerate(whole.files):
            numbers = np.arange(of.start, of.stop).view(np.uint8).reshape(-1, 1, 1, 8)
            drawn = draw.extract(numbers)[:, 0].astype(np.float16)
            for job in (whole, cells):
                with job.work.write(f"q1/features-{number:05d}.npy") as path, path.open("wb") as file:
                    np.save(file, drawn.astype(job.dtype))
        ways: dict[str, Callable[[Settings], Quadrant]] = {
            "without a cluster": lambda settings: find_for_quadrant(whole.by_rows[:], pictures, settings),
            "cluster, whole": lambda settings: search_whole(replace(whole, settings=settings), pictures, [0])[0],
            "cluster, in cells": lambda settings: search_in_cells(replace(cells, settings=settings), pictures)[0],
        }
        if not in_cells:
            ways.pop("cluster, in cells")
        for seed in range(turns):
            results = []
            for name, search in ways.items():
                start, before = time.perf_counter(), processor_seconds()
                found = search(Settings(seed=seed))
                seconds, processor = time.perf_counter() - start, processor_seconds() - before
                results.append(found)
                done = operations(images, len(found.sizes), found.probes, dimension)
                same = all(np.array_equal(value, vars(found)[key]) for key, value in vars(results[0]).items())
                print(
                    f"{name}: {seconds:.1f} s, {processor:.1f} s of processor, {found.probes} of {len(found.sizes)} "
                    f"cells, recall {found.recall:.1%}, {done / processor:.2g} operations a second of processor"
                    f"{', the same result' if same and len(results) > 1 else ''}",
                    flush=True,
                )


def processor_seconds() -> float:
    """Seconds of processor of this process, of Ray's and of its workers."""
    seconds = {os.getpid(): float(time.process_time())}
    for stat in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):  # parents come first
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            _, parent, *fields = stat.read_text().rpartition(")")[2].split()
            if int(parent) in seconds:
                seconds[int(stat.parent.name)] = (int(fields[9]) + int(fields[10])) / os.sysconf("SC_CLK_TCK")
    return sum(seconds.values())


def nothing(shared: None, item: None) -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()
