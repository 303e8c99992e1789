"""Spectral norms against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast import kernels
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@fast
@given(st.lists(st.tuples(size, size, st.sampled_from((1, 3))), min_size=1, max_size=5))
def test_spectral_norm_of_all_weights(shapes):
    weights = [draw(out, channels, k, k, seed=i) for i, (out, channels, k) in enumerate(shapes)]
    us = [draw(1, out, seed=99 + i).detach() for i, (out, _, _) in enumerate(shapes)]
    assert_forms_agree(lambda impl: kernels.spectral_norm_all(weights, us, impl), weights)


def test_a_penalty_of_gradients():
    """As of WGAN-GP, of a network whose weights are normalized."""
    weights, us, x = (
        [draw(3, 2, 3, 3), draw(2, 3)],
        [draw(1, 3, seed=1).detach(), draw(1, 2, seed=2).detach()],
        draw(2, 2, 4, 4),
    )

    def penalty(impl):
        first, second = kernels.spectral_norm_all(weights, us, impl)
        y = torch.tanh(torch.nn.functional.conv2d(x, first)).mean((2, 3)) @ second.T
        grads = torch.autograd.grad(y.square().sum(), [x, *weights], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), [x, *weights])

    for found, expected in zip(penalty("fused"), penalty("reference"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_power_iteration_converges_to_the_largest_singular_value():
    weights, us = [draw(6, 4, 3, 3)], [draw(1, 6, seed=1).detach()]
    for _ in range(200):
        kernels.advance_u(weights, us)
    (normalized,) = kernels.spectral_norm_all(weights, us)
    assert torch.linalg.matrix_norm(normalized.flatten(1), 2).item() == pytest.approx(1, abs=1e-6)


class _Operations(TorchDispatchMode):
    """Names of the operations dispatched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_weights_are_read_as_they_lie(layout):
    """None is copied, and quotients and gradients lie as their weights."""
    weights = [draw(4, 3, 3, 3).detach().contiguous(memory_format=layout).requires_grad_(), draw(5, 2, 1, 1)]
    us = [draw(1, 4, seed=1).detach(), draw(1, 5, seed=2).detach()]
    with _Operations() as done:
        normalized = kernels.spectral_norm_all(weights, us, "fused")
        grads = torch.autograd.grad(normalized, weights, [torch.ones_like(W) for W in weights])
    assert not {"clone", "copy_", "_to_copy"} & set(done.names)
    for W, W_bar, grad in zip(weights, normalized, grads, strict=True):
        assert W_bar.stride() == grad.stride() == W.stride()
