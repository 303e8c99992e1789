"""What is told of times that were taken in turns."""

from lorbms_fast.measurement.pairs import Pair


def test_the_middle_half_of_ratios():
    times = Pair([8.0, 1.0, 6.0, 2.0, 40.0], [2.0, 2.0, 2.0, 2.0, 2.0])
    assert times.ratio == 3
    assert times.middle_half == (1, 4)


def test_one_round_is_its_own_middle():
    assert Pair([3.0], [2.0]).middle_half == (1.5, 1.5)
