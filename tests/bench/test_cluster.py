"""The simulation behind docs/scale.md: what can be computed by hand."""

import pytest

from bench.cluster import COMPARED, CORES, DIMENSION, SETS, Cluster, cells_of, operations, simulated, steps

EVEN = Cluster(4, spread=0, slow=0, slowness=1, between_deaths=1e15)


def test_even_tasks_fill_the_machines():
    found = simulated(EVEN, 4 * CORES * 10, 3.0, per_task=0)
    assert found.seconds == pytest.approx(30)
    assert found.efficiency == pytest.approx(1)
    assert (found.deaths, found.repeated) == (0, 0)


def test_a_driver_that_hands_out_slowly_is_the_bound():
    assert simulated(EVEN, 1000, 0.01, per_task=0.1).seconds == pytest.approx(100, rel=0.01)


def test_slow_machines_cost_at_most_their_last_tasks():
    slow = EVEN._replace(slow=1.0, slowness=3.0)
    assert simulated(slow, 4 * CORES, 3.0, per_task=0).seconds == pytest.approx(9)


def test_what_dies_is_done_again():
    found = simulated(EVEN._replace(between_deaths=50.0, away=10.0), 5000, 3.0)
    assert found.deaths > 10
    assert found.repeated > 10
    assert found.efficiency < 0.9


def test_what_a_machine_holds_is_searched_by_it():
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    coco, *_, laion = SETS
    tasks, seconds, at_once = steps(coco)["search"]
    assert (tasks, at_once) == (4, 1)
    assert seconds * CORES * COMPARED == pytest.approx(
        operations(coco.images, cells_of(coco.images), coco.probes, DIMENSION)
    )
    assert simulated(EVEN, tasks, seconds, at_once).seconds == pytest.approx(seconds, rel=0.01)
    assert steps(laion)["search"][2] == CORES
    assert operations(1000, 1, 1, 100) == pytest.approx(2 * 100 * 1000 * (3 + 512 + 1000), rel=0.01)
