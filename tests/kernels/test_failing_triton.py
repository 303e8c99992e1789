"""Layers whose kernels fail, as on a GPU whose Triton does not compile them, in a program that nobody prepared."""

import copy
import sys

import pytest
import torch
from triton.runtime.jit import JITFunction

from lorbms_fast.kernels import max_pool2x2, use_impl
from lorbms_fast.kernels._common import dispatch, operation
from tests.kernels.test_as_torch import LAYERS, gradients, made

WITH_KERNELS = (
    "InstanceNorm2d", "InstanceNorm3d affine", "InstanceNormAct2d affine", "InstanceNormReLU", "DenseBlock with norm",
    "ResizeConv2d", "CoordConv2d", "max_pool2x2", "SpectralConv2d", "grouped_batch_norm",
)  # fmt: skip


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Whoever names no form gets kernels, unless they failed."""

    def select(impl, x, prepares=None):
        return impl or ("fused" if prepares in dispatch.failed else "triton")

    for name, module in list(sys.modules.items()):
        if name.startswith("lorbms_fast.kernels") and hasattr(module, "select_impl"):
            monkeypatch.setattr(module, "select_impl", select)
    monkeypatch.setattr(dispatch, "_chosen", "auto")
    yield
    operation.install({}, set())


def fail(monkeypatch):
    def launch(*args, **kwargs):
        raise RuntimeError("ptxas died")

    monkeypatch.setattr(JITFunction, "run", launch)


@pytest.mark.parametrize("name", WITH_KERNELS)
@pytest.mark.parametrize("in_backward", [False, True], ids=["forward", "backward"])
def test_a_layer_goes_on_and_says_why(name, in_backward, on_a_gpu, monkeypatch):
    if in_backward and name == "CoordConv2d":
        pytest.skip("torch's own operations are its backward")
    layer, x = made(name, False, torch.float32)
    with use_impl("reference"):
        expected = gradients(copy.deepcopy(layer), x)

    def failing_behind(y):
        if in_backward:
            fail(monkeypatch)
        return y * y

    if not in_backward:
        fail(monkeypatch)
    with pytest.warns(RuntimeWarning, match="kernel.* failed .RuntimeError: ptxas died"):
        found = gradients(layer, x, failing_behind)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-4)
    gradients(LAYERS[name](), x)  # a warning would be an error here


def test_kernels_alone_are_wanted_by_a_block_of_code_forward_and_backward_by_a_call_forward(on_a_gpu, monkeypatch):
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    with use_impl("triton"):
        in_block = max_pool2x2(x).sum()
    in_call, expected = max_pool2x2(x, "triton").sum(), max_pool2x2(x, "reference").sum()
    fail(monkeypatch)
    with use_impl("triton"), pytest.raises(RuntimeError, match="ptxas died"):
        in_block.backward()
    with use_impl("triton"), pytest.raises(RuntimeError, match="ptxas died"):
        max_pool2x2(x)
    with pytest.raises(RuntimeError, match="ptxas died"):
        max_pool2x2(x, "triton")
    with pytest.warns(RuntimeWarning, match="the definition runs instead"):
        (found,) = torch.autograd.grad(in_call, x)
    assert torch.equal(found, *torch.autograd.grad(expected, x))
