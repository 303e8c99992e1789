"""Spectral norms against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast import kernels
from lorbms_fast.cpp import compiler
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.spectral_norm import fused
from tests.kernels.forms import assert_forms_agree, draw, fast, size
from tests.kernels.threads import the_same_by_threads

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@fast
@given(
    st.lists(st.tuples(size, size, st.sampled_from((1, 3)), st.sampled_from(LAYOUTS)), min_size=1, max_size=5),
    st.booleans(),
)
def test_spectral_norm_of_all_weights(shapes, native):
    weights = [
        draw(out, channels, k, k, seed=i).detach().contiguous(memory_format=layout).requires_grad_()
        for i, (out, channels, k, layout) in enumerate(shapes)
    ]
    us = [draw(1, len(weight), seed=99 + i).detach() for i, weight in enumerate(weights)]
    with native_loops(native):
        assert_forms_agree(lambda impl: kernels.spectral_norm_all(weights, us, impl), weights)


class ProductDtypes(TorchDispatchMode):
    """Dtypes that products with vectors were computed in."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mv, torch.ops.aten.addr, torch.ops.aten.dot):
            self.seen.add((func.overloadpacket.__name__, args[0].dtype))
        return func(*args, **(kwargs or {}))


def test_autocast_on_cuda_lowers_no_product():
    """It lowers some that autocast on a CPU leaves alone."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), ProductDtypes() as dtypes:
            weights = [torch.zeros(4, 3, 3, 3, device="cuda")]
            vectors = fused.power_iteration(weights, [torch.zeros(1, 4, device="cuda")])
            fused._through_division(weights, weights, vectors)
    finally:
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.set_autocast_enabled("cuda", False)
    assert dtypes.seen == {(name, torch.float32) for name in ("mv", "addr", "dot")}


# Rows and columns of several spans and threads, and as many as fill no vector.
SIZES = [(37, 3 * 257), (1, 900), (300, 1), (64, 512)]


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("u_first", [True, False])
@pytest.mark.parametrize("native", [True, False])
def test_power_iteration(native, u_first, added):
    weights = [draw(*size, seed=i).detach() for i, size in enumerate(SIZES)]
    first = [draw(W.shape[0 if u_first else 1], seed=9 + i).detach() for i, W in enumerate(weights)]
    eps = 20.0  # above some norms, below others
    with native_loops(native):
        found = fused.power_iteration(weights, first, u_first, 3, eps, added)
    for W, a, of_weight in zip(weights, first, found.each(weights), strict=True):
        for half in range(6):
            product = (W.T if (half % 2 == 0) == u_first else W) @ a
            norm = product.norm()
            a = product / (norm + eps if added else norm.clamp_min(eps))
        torch.testing.assert_close(of_weight.u if u_first else of_weight.v, a)
        torch.testing.assert_close(of_weight.sigma.squeeze(), of_weight.u @ W @ of_weight.v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loops_as_torchs_operations(dtype):
    weights = [draw(*size, seed=i).detach().to(dtype).requires_grad_() for i, size in enumerate(SIZES)]
    us = [draw(1, len(W), seed=9 + i).detach().to(dtype) for i, W in enumerate(weights)]

    def outcome(native):
        with native_loops(native):
            quotients = kernels.spectral_norm_all(weights, us)
            return [*quotients, *torch.autograd.grad(quotients, weights, [W.detach().sin() for W in weights])]

    by_loops = the_same_by_threads(lambda: outcome(True), (1, 3))
    torch.testing.assert_close(by_loops, outcome(False))


def test_gradients_of_another_layout():
    weight, u = draw(5, 3, 3, 3), draw(1, 5, seed=1).detach()
    (quotient,) = kernels.spectral_norm_all([weight], [u])
    grad = draw(5, 3, 3, 3, seed=2).detach()
    (found,) = torch.autograd.grad(quotient, weight, grad.contiguous(memory_format=torch.channels_last))
    (expected,) = torch.autograd.grad(kernels.spectral_norm(weight, u)[0], weight, grad)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("native", [True, False])
def test_hooks_that_lay_saved_weights_otherwise(native):
    weight, u = draw(4, 3, 3, 3), draw(1, 4, seed=1).detach()
    weight = weight.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    probe, found = draw(4, 3, 3, 3, seed=2), []
    with native_loops(native):
        for kept in (lambda t: t, torch.Tensor.contiguous):
            with torch.autograd.graph.saved_tensors_hooks(kept, lambda t: t):
                (W_bar,) = kernels.spectral_norm_all([weight], [u], "fused")
            found.append(torch.autograd.grad(W_bar, weight, probe)[0])
    torch.testing.assert_close(*found)


def test_many_gradients_at_once_through_hooks_that_lay_saved_weights_otherwise():
    u = draw(1, 4, seed=1).detach()
    weight = draw(4, 3, 3, 3).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous().clone(), lambda t: t):
        (W_bar,) = kernels.spectral_norm_all([weight], [u], "fused")
    probes = draw(2, 4, 3, 3, 3, seed=2).detach()
    (found,) = torch.autograd.grad(W_bar, weight, probes, retain_graph=True, is_grads_batched=True)
    expected = [torch.autograd.grad(W_bar, weight, probe, retain_graph=True)[0] for probe in probes]
    torch.testing.assert_close(found, torch.stack(expected))


def test_weights_of_16_bits_go_through_torchs_operations():
    weights, us = [draw(4, 3).detach().bfloat16()], [draw(1, 4, seed=1).detach().bfloat16()]
    (quotient,) = kernels.spectral_norm_all(weights, us)
    assert quotient.dtype == torch.bfloat16
    exact = kernels.spectral_norm(weights[0].double(), us[0].double())[0]
    torch.testing.assert_close(quotient.double(), exact, rtol=2e-2, atol=2e-2)


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
    if compiler():
        of_ours = [name for name in done.names if name.startswith("spectral_norm")]
        assert len(of_ours) == 3
        assert not {"mv", "dot", "addr"} & set(done.names)
    for W, W_bar, grad in zip(weights, normalized, grads, strict=True):
        assert W_bar.stride() == grad.stride() == W.stride()
