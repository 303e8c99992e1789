"""Batch norm of groups against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast import kernels
from lorbms_fast.kernels.grouped_batch_norm.synchronized import synchronized_batch_norm
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@fast
@given(st.integers(2, 5), st.integers(1, 4), size, size)
def test_grouped_batch_norm(n, groups, channels, side):
    x, gamma, beta = draw(groups * n, channels, side, side), draw(channels, seed=1), draw(channels, seed=2)
    assert_forms_agree(
        lambda impl: kernels.grouped_batch_norm(x, gamma, beta, groups, impl=impl), [x, gamma, beta], 1e-7
    )


def test_grouped_batch_norm_keeps_the_groups_apart():
    x, one, zero = draw(6, 2, 3, 3).detach(), torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    changed = x.clone()
    changed[3:] *= 7
    first, second = (kernels.grouped_batch_norm(batch, one, zero, 2)[0] for batch in (x, changed))
    assert torch.equal(first[:3], second[:3])


@fast
@given(st.integers(2, 5), st.integers(1, 4), size, size)
def test_synchronised_batch_norm_of_one_process(n, groups, channels, side):
    x, gamma, beta = draw(groups * n, channels, side, side), draw(channels, seed=1), draw(channels, seed=2)

    def normalize(impl):
        if impl == "reference":
            return kernels.grouped_batch_norm(x, gamma, beta, groups, impl=impl)
        return synchronized_batch_norm(x, gamma, beta, groups, 1e-5, lambda own: own[None])

    assert_forms_agree(normalize, [x, gamma, beta], 1e-7)


def test_synchronised_batch_norm_is_that_of_all_samples():
    x, gamma, beta = draw(2, 3, 4, 5, 3, 2).detach() + 10, draw(5).detach(), draw(5, seed=1).detach()
    x[1] *= 3  # two processes with three groups of four, of different means and variances
    whole, *of_all = kernels.grouped_batch_norm(x.transpose(0, 1).flatten(0, 2), gamma, beta, 3, impl="reference")
    mean, variance = x.mean((2, 4, 5)), x.var((2, 4, 5), correction=0)
    for part, wanted in zip(x, whole.unflatten(0, (3, 2, 4)).transpose(0, 1), strict=True):
        y, *found = synchronized_batch_norm(
            part.flatten(0, 1), gamma, beta, 3, 1e-5, lambda own: torch.stack([mean, variance], 1)
        )
        torch.testing.assert_close(y.view_as(wanted), wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found, of_all, rtol=1e-10, atol=0)


def test_grouped_batch_norm_of_an_uneven_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 5"):
        kernels.grouped_batch_norm(torch.ones(5, 1, 2, 2), torch.ones(1), torch.zeros(1), 2)


def test_relu_grouped_batch_norm_is_relu_then_batch_norm():
    x, gamma, beta = draw(4, 2, 3, 3), draw(2, seed=1), draw(2, seed=2)
    found = kernels.relu_grouped_batch_norm(x, gamma, beta, 2)
    expected = kernels.grouped_batch_norm(torch.relu(x), gamma, beta, 2, impl="reference")
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)
