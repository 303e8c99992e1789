"""The dispatcher, and packed weights that run in another form than they were packed for."""

import importlib

import pytest
import torch

from lorbms_fast import kernels
from lorbms_fast.kernels._common import custom_op, dispatch, operation
from lorbms_fast.kernels.resize_conv.triton import ops as in_triton
from tests.kernels.interpreter import interpreted

OTHER = {"triton": "fused", "fused": "triton"}


@pytest.mark.parametrize("form", OTHER)
def test_what_was_packed_for_one_form_runs_in_the_other(form):
    torch.manual_seed(0)
    with interpreted(seed=0):
        weight, x = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 4, 4)
        (taps,) = kernels.fold_taps([weight], impl=form)
        y = kernels.resize_conv(x, taps, OTHER[form])
        torch.testing.assert_close(y, kernels.resize_conv(x, weight, "reference"), rtol=1e-4, atol=1e-4)
        Ws, bs, x = [torch.randn(2, 4, 3, 3), torch.randn(2, 6, 3, 3)], [torch.randn(2)] * 2, torch.randn(1, 4, 4, 4)
        (layers,) = kernels.pack_layers([(Ws, bs)], impl=form)
        assert all(torch.equal(W, given) for W, given in zip(layers.unpacked()[0], Ws, strict=True))
        for block in (kernels.dense_block, kernels.dense_block_maps, kernels.dense_block_activated):
            y = block(x, layers, activation="instance_norm_relu", impl=OTHER[form])
            expected = block(x, Ws, bs, "instance_norm_relu", impl="reference")
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_a_key_tells_shapes_options_and_packing_apart_but_not_samples():
    W, b = torch.randn(2, 4, 3, 3), torch.randn(2)
    (fused,) = kernels.pack_layers([([W], [b])], impl="fused")

    def key(*args, **options):
        return operation.key_of("dense_block", args, options)

    x = torch.randn(3, 4, 8, 8)
    assert key(x, fused) == key(x[:1], fused)
    others = [key(x[..., :4], fused), key(x.double(), fused), key(x, fused, eps=1e-3), key(x, [W], [b])]
    with torch.autocast("cpu", torch.bfloat16):
        others.append(key(x, fused))
    assert len({key(x, fused), *others}) == 6


def test_tf32_is_told_however_somebody_allows_it():
    cudnn, x = torch.backends.cudnn, torch.randn(3, 4, 8, 8)

    def found():
        return custom_op.input_precision(x.dtype), operation.key_of("max_pool2x2", (x,), {})[-1]

    for allowed, told in ((True, ("tf32", True)), (False, ("ieee", False))):
        with cudnn.flags(allow_tf32=allowed):
            assert found() == told
    try:
        for newer, told in (("ieee", ("ieee", False)), ("tf32", ("tf32", True))):
            cudnn.conv.fp32_precision = newer
            assert found() == told
    finally:
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32"
    assert cudnn.allow_tf32


def test_a_call_takes_the_form_that_was_installed_unless_it_names_one(monkeypatch):
    x, taken = torch.randn(3, 2, 4, 4), []
    for form in ("reference", "fused"):
        of_form = importlib.import_module(f"lorbms_fast.kernels.max_pool.{form}")
        monkeypatch.setattr(of_form, "max_pool2x2", lambda x, form=form: taken.append(form))
    operation.install({operation.key_of("max_pool2x2", (x,), {}): "reference"}, set())
    try:
        kernels.max_pool2x2(x)
        kernels.max_pool2x2(x[:1], None)
        kernels.max_pool2x2(x, impl=None)
        kernels.max_pool2x2(x, "fused")
        kernels.max_pool2x2(x[..., :2])
        with kernels.use_impl("fused"):
            kernels.max_pool2x2(x)
    finally:
        operation.install({}, set())
    assert taken == ["reference"] * 3 + ["fused"] * 3


def test_the_variants_of_a_dense_block_give_the_same(monkeypatch):
    torch.manual_seed(0)
    Ws, bs = [torch.randn(2, 3, 3, 3), torch.randn(2, 5, 3, 3)], [torch.randn(2)] * 2
    with interpreted(seed=0):
        from lorbms_fast.kernels.dense_block.triton import sizes

        monkeypatch.setattr(sizes, "TILE", 16)
        monkeypatch.setattr(sizes, "_splits", {})
        found = []
        names = operation.variants_of("dense_block", (torch.empty(1, 3, 5, 5), Ws, bs), {})
        assert names == ["triton: whole images", "triton: layers"]
        for name in names:
            x = torch.linspace(-1, 1, 75).view(1, 3, 5, 5).requires_grad_()
            y = kernels.dense_block(x, Ws, bs, impl=name)
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
            assert list(sizes._splits.values()) == [name.endswith("layers")]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_maps_of_more_values_than_a_kernel_can_number_run_in_the_fused_form(monkeypatch):
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(4, 3, 3, 3)
    monkeypatch.setattr(in_triton, "INDEXABLE", 1)
    monkeypatch.setattr(dispatch, "_chosen", "auto")
    folder = importlib.import_module("lorbms_fast.kernels.resize_conv")
    monkeypatch.setattr(folder, "select_impl", lambda impl, *_, **__: impl or "triton")
    try:
        with interpreted(seed=0), pytest.warns(RuntimeWarning, match=r"kernel failed \(NotImplementedError: .* 2\^31"):
            y = kernels.resize_conv(x, weight)
    finally:
        operation.install({}, set())
    torch.testing.assert_close(y, kernels.resize_conv(x, weight, "reference"), rtol=1e-4, atol=1e-4)
