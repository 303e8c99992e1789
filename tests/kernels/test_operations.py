"""The other fused operations against their definitions, outputs and gradients in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast import kernels
from lorbms_fast.kernels import dispatch
from lorbms_fast.kernels.dispatch import resolve
from lorbms_fast.kernels.grouped_batch_norm.synchronised import synchronised_batch_norm
from lorbms_fast.kernels.instance_norm.definition import instance_norm

size = st.integers(1, 6)
fast = settings(deadline=None, max_examples=30)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_forms_agree(operation, wanted, tolerance=1e-10):
    """`operation(impl)` gives a tensor or several; compare them and their gradients for `wanted`."""
    found = {}
    for impl in ("reference", "torch"):
        outputs = operation(impl)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        moving = [y for y in outputs if y.requires_grad]
        loss = sum((y * draw(*y.shape, seed=i).detach()).sum() for i, y in enumerate(moving))
        found[impl] = [*outputs, *torch.autograd.grad(loss, wanted)]
    for reference, fused in zip(found["reference"], found["torch"], strict=True):
        torch.testing.assert_close(fused, reference, rtol=tolerance, atol=tolerance)


@fast
@given(size, size, size, st.integers(2, 6), st.sampled_from(("contiguous", "channels_last")))
def test_instance_norm(n, channels, height, width, layout):
    x = draw(n, channels, height, width)
    arranged = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    assert_forms_agree(lambda impl: kernels.instance_norm(arranged, 1e-3, impl), [x])
    assert_forms_agree(lambda impl: kernels.instance_norm_relu(arranged, 1e-3, impl), [x])


def test_instance_norm_with_a_channels_last_gradient_of_one_sample():
    x = draw(1, 2, 2, 4)
    grad = draw(1, 2, 4, 2, seed=1).detach().permute(0, 3, 1, 2)[:, :2, :2].expand(1, 2, 2, 4)
    expected, found = (
        torch.autograd.grad(kernels.instance_norm(x, impl=impl), x, grad)[0] for impl in ("reference", "torch")
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_instance_norm_of_a_constant_map_is_zero():
    assert kernels.instance_norm(torch.full((2, 3, 1, 1), 5.0), impl="torch").abs().max() == 0


def test_instance_norm_of_volumes():
    x = draw(2, 3, 4, 3, 5)
    assert_forms_agree(lambda impl: kernels.instance_norm(x, impl=impl), [x], 1e-8)


def test_instance_norm_far_from_zero():
    x = (torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000).float()
    torch.testing.assert_close(
        kernels.instance_norm(x, impl="torch"), instance_norm(x.double()).float(), atol=2e-3, rtol=0
    )


@fast
@given(size, size, size, size, size)
def test_resize_conv(n, channels, out, height, width):
    x, weight = draw(n, channels, height, width), draw(out, channels, 3, 3, seed=1)
    assert_forms_agree(lambda impl: kernels.resize_conv(x, weight, impl), [x, weight])


@fast
@given(size, size, size, st.integers(1, 7), st.integers(2, 7))
def test_coord_conv_adds_a_ramp_along_each_axis(n, channels, out, height, width):
    x, weight, bias = draw(n, channels, height, width), draw(out, channels + 2, 1, 1, seed=1), draw(out, seed=2)
    across = torch.tensor([-1 + 2 * i / (width - 1) for i in range(width)], dtype=torch.float64)
    down = torch.tensor([-1 + 2 * i / (height - 1) if height > 1 else -1 for i in range(height)], dtype=torch.float64)
    per_axis = (
        weight[:, channels, 0, 0, None, None] * across + weight[:, channels + 1, 0, 0, None, None] * down[:, None]
    )
    expected = torch.einsum("oc,nchw->nohw", weight[:, :channels, 0, 0], x) + per_axis + bias[:, None, None]
    torch.testing.assert_close(kernels.coord_conv2d(x, weight, bias), expected)


@fast
@given(size, st.integers(1, 4), size, size, size, st.integers(1, 3), st.integers(1, 2))
def test_paired_conv(n, groups, channels, others, out, k, stride):
    shared, each = draw(n, channels, 5, 4), draw(groups * n, others, 5, 4, seed=1)
    weight, bias = draw(out, channels + others, k, k, seed=2), draw(out, seed=3)
    wanted = [shared, each, weight, bias]
    assert_forms_agree(lambda impl: kernels.paired_conv2d(shared, each, weight, bias, stride, impl), wanted)


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

    def normalise(impl):
        if impl == "reference":
            return kernels.grouped_batch_norm(x, gamma, beta, groups, impl=impl)
        return synchronised_batch_norm(x, gamma, beta, groups, 1e-5, lambda own: own[None])

    assert_forms_agree(normalise, [x, gamma, beta], 1e-7)


def test_synchronised_batch_norm_is_that_of_all_samples():
    x, gamma, beta = draw(2, 3, 4, 5, 3, 2).detach() + 10, draw(5).detach(), draw(5, seed=1).detach()
    x[1] *= 3  # two processes with three groups of four, of different means and variances
    whole, *of_all = kernels.grouped_batch_norm(x.transpose(0, 1).flatten(0, 2), gamma, beta, 3, impl="reference")
    mean, variance = x.mean((2, 4, 5)), x.var((2, 4, 5), correction=0)
    for part, wanted in zip(x, whole.unflatten(0, (3, 2, 4)).transpose(0, 1), strict=True):
        y, *found = synchronised_batch_norm(
            part.flatten(0, 1), gamma, beta, 3, 1e-5, lambda own: torch.stack([mean, variance], 1)
        )
        torch.testing.assert_close(y.view_as(wanted), wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found, of_all, rtol=1e-10, atol=0)


def test_grouped_batch_norm_of_an_uneven_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 5"):
        kernels.grouped_batch_norm(torch.ones(5, 1, 2, 2), torch.ones(1), torch.zeros(1), 2)


@fast
@given(st.lists(st.tuples(size, size, st.sampled_from((1, 3))), min_size=1, max_size=5))
def test_spectral_norm_of_all_weights(shapes):
    weights = [draw(out, channels, k, k, seed=i) for i, (out, channels, k) in enumerate(shapes)]
    us = [draw(1, out, seed=99 + i).detach() for i, (out, _, _) in enumerate(shapes)]
    assert_forms_agree(lambda impl: kernels.spectral_norm_all(weights, us, impl), weights)


def test_power_iteration_converges_to_the_largest_singular_value():
    weights, us = [draw(6, 4, 3, 3)], [draw(1, 6, seed=1).detach()]
    for _ in range(200):
        kernels.advance_u(weights, us)
    (normalised,) = kernels.spectral_norm_all(weights, us)
    assert torch.linalg.matrix_norm(normalised.flatten(1), 2).item() == pytest.approx(1, abs=1e-6)


def test_mix_chunks_takes_the_masked_ones():
    f_ref, f_q = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    mixed = kernels.mix_chunks(f_ref, f_q, torch.tensor([[False, True, False, True]]))
    assert mixed[0, :, 0].tolist() == [0, 1, 0, 1]


@fast
@given(st.integers(1, 5), size, size, st.integers(0, 2))
def test_mix_used_is_mix_chunks_of_those_in_use(n, chunks, width, padding):
    mask = draw(n, chunks, seed=2) > 0
    f_ref, f_q = draw(n, chunks, width), draw(n, chunks, width, seed=1)
    used = [torch.zeros(chunks, width, dtype=torch.float64).index_put((c,), f_q[s, c]) for c, s in mask.T.nonzero()]
    codes = torch.stack([*f_ref, *used, *[torch.full((chunks, width), torch.nan, dtype=torch.float64)] * padding])
    found, expected = kernels.mix_used(codes, mask), kernels.mix_chunks(f_ref, f_q, mask)
    assert torch.equal(found, expected)
    probe = draw(n, chunks, width, seed=3).detach()
    wanted = [f_ref, f_q]
    for f, e in zip(
        torch.autograd.grad((found * probe).sum(), wanted, allow_unused=True),
        torch.autograd.grad((expected * probe).sum(), wanted),
        strict=True,
    ):
        assert torch.equal(torch.zeros_like(e) if f is None else f, e)


def test_choosing_a_form():
    x = torch.ones(1)
    assert resolve(None, x) == "torch"
    with kernels.use_impl("reference"):
        assert resolve(None, x) == "reference"
        assert resolve("torch", x) == "torch"
    assert resolve(None, x) == "torch"
    with pytest.raises(ValueError, match="impl 'cuda'"):
        resolve("cuda", x)


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    x = torch.ones(1)
    monkeypatch.setattr(dispatch, "TRITON", False)
    with pytest.raises(ValueError, match="needs the package triton"):
        resolve("triton", x)
    monkeypatch.setattr(dispatch, "TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    with pytest.raises(ValueError, match="not on cpu"):
        resolve("triton", x)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    assert resolve("triton", x) == "triton"
    with pytest.raises(ValueError, match="float64"):
        resolve("triton", x.double())


def test_auto_is_triton_on_cuda_only(monkeypatch):
    class OnCuda(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(dispatch, "TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    assert resolve("auto", torch.ones(1)) == "torch"
    assert resolve("auto", torch.ones(1).as_subclass(OnCuda)) == "triton"
    assert resolve("auto", torch.ones(1, dtype=torch.float64).as_subclass(OnCuda)) == "torch"


def test_choosing_breaks_no_graph():
    def chosen(x):
        return x + len(resolve("auto", x)) + len(resolve(None, x))

    x = torch.ones(2)
    assert torch.equal(torch.compile(chosen, backend="eager", fullgraph=True)(x), chosen(x))
