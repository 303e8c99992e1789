"""What a step of Adam decides, in Triton's interpreter and by its definition, against numbers of Python's own."""

import math

import pytest
import torch

from lorbms_fast.kernels.lorbms.adam import step_size


def double(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64)


@pytest.mark.parametrize("impl", ["fused", "triton"])
@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.0, 0.9)])
def test_rates_correct_both_moments(impl, betas):
    t, flawed, (beta1, beta2) = double(0), torch.zeros(2), betas
    for step in (1, 2, 3, 100_000):
        t.fill_(step - 1)
        rate = step_size(torch.ones(()), torch.zeros(()), t, flawed, double(2e-4), double(0.25), betas, impl=impl)
        expected = 0.25 * 2e-4 * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        assert rate.item() == pytest.approx(expected, rel=1e-7 if impl == "triton" else 1e-14)
        assert t.item() == step
    assert flawed.tolist() == [0, 0]


@pytest.mark.parametrize("impl", ["fused", "triton"])
@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("loss", [torch.nan, -torch.inf, 3.0])
@pytest.mark.parametrize("overflow", [0.0, 1.0])
def test_what_is_not_finite_is_written_down_and_not_counted(impl, expected, loss, overflow):
    t, flawed = double(7), torch.tensor([2.0, 3.0])
    numbers = torch.tensor(loss), torch.tensor(overflow), t, flawed, double(1), double(1)
    step_size(*numbers, (0.5, 0.9), expected, impl)
    assert t.item() == 8 - overflow
    assert flawed.tolist() == [2 + (loss != 3), 3 + (overflow and not expected)]
