"""The 1x1 convolution of a normalized stack and its gradients, in each form, against their definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast import cpp as libraries
from lorbms_fast.kernels._common.cpp import Loops, native_loops, vectors
from lorbms_fast.kernels.densenet_block import cpp, norms, products
from tests.kernels.threads import the_same_by_threads, threads

# What is compiled for other processors has no pairs of bfloat16, or vectors half as wide.
FORMS = ["loops", "chunks", "torch", "x86-64", "x86-64-v3", "x86-64-v4"]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Compute as there; `-march` of other processors, where this one can run what is compiled for them."""
    if request.param.startswith("x86"):
        needs = {"x86-64-v3": ("AVX2", "AVX512"), "x86-64-v4": ("AVX512",)}.get(request.param)
        if needs and torch.backends.cpu.get_cpu_capability() not in needs:
            pytest.skip("not on this processor")
        flags = [f"-march={request.param}" if flag.startswith("-march") else flag for flag in libraries.FLAGS]
        monkeypatch.setattr(libraries, "FLAGS", tuple(flags))
        monkeypatch.setattr(libraries, "_library", libraries._library.__wrapped__)
        monkeypatch.setattr(cpp, "LOOPS", Loops(cpp.LOOPS._source, cpp.LOOPS._types))
        assert cpp.LOOPS._functions  # compiled here, and what `take` asks for is there
    elif request.param == "chunks":
        monkeypatch.setattr(products, "_CHUNK", 1)
        monkeypatch.setattr(cpp, "multiplies", lambda dtype, B: False)
    with native_loops(request.param != "torch"):
        yield request.param


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found, expected, dtype, sizes=None):
    """To what rounding makes of results of this size, or of sums of this size without their signs."""
    assert found.shape == expected.shape
    sizes = expected.abs() if sizes is None else sizes
    assert (found.double() - expected).abs().max() <= TOLERANCE[dtype] * sizes.max()


def check(dtype, M, C, B, wide, count=2, far=0.0):
    """Both functions on C columns of a wider stack."""
    with threads(count):
        _check(dtype, M, C, B, wide, far)


def _check(dtype, M, C, B, wide, far):
    x, g = (drawn(M, wide) + far).to(dtype)[:, :C], drawn(M, B, seed=1).to(dtype)
    W, to_stack = (drawn(B, C, seed=2) / C**0.5).float(), drawn(M, wide, seed=3).to(dtype)
    mean, var = x.double().mean(0), x.double().var(0, correction=0)
    weight, bias = (t.float() for t in drawn(2, C, seed=4))
    norm = norms.Norm(mean.float(), var.float(), weight, bias, 1e-3)

    y, of_y = torch.full((M, B), torch.nan, dtype=dtype), torch.full((2, B), torch.nan).unbind()
    products.convolution(products.form_for(x), x, norm, W, y, of_y)
    W_exact = W.to(dtype).double().requires_grad_()  # rounded as autocast does it

    # With what the norm rounds to, as ReLU's bend is where it is.
    centred = x.double() - norm.mean.double()
    scale = weight.double() * (norm.var.double() + norm.eps).rsqrt()
    a = (centred * scale + bias).relu().requires_grad_()
    expected = a @ W_exact.T
    close(y, expected.detach(), dtype, a.detach() @ W.double().abs().T)
    close(of_y[0], y.double().mean(0), torch.float32)
    close(of_y[1], y.double().var(0, correction=0), torch.float32)
    none = torch.empty_like(y)
    products.convolution(products.form_for(x), x, norm, W, none, None)
    assert torch.equal(none, y)

    sums, kept = torch.ones(2, C), to_stack.clone()
    to_W = products.convolution_backward(products.form_for(x), g, x, norm, W, True, *sums, to_stack[:, :C])
    to_a, expected_to_W = torch.autograd.grad(expected, [a, W_exact], g.double())
    through = torch.where(a > 0, to_a, 0).detach()
    close(to_W, expected_to_W, dtype, g.double().abs().T @ a.detach())
    close(sums[0] - 1, through.sum(0), dtype, through.abs().sum(0))
    close(sums[1] - 1, (through * centred).sum(0), dtype, (through * centred).abs().sum(0))
    close(to_stack[:, :C], kept[:, :C] + scale * through, dtype)
    assert torch.equal(to_stack[:, C:], kept[:, C:])
    again, others = kept.clone(), torch.ones(2, C)
    assert products.convolution_backward(products.form_for(x), g, x, norm, W, False, *others, again[:, :C]) is None
    close(again, to_stack.double(), dtype)
    close(others[1], sums[1].double(), dtype, (through * centred).abs().sum(0))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("M", "C", "B", "wide"),
    [(784, 256, 128, 300), (2 * 23 * 17, 45, 24, 61), (3000, 7, 6, 9), (1, 70, 130, 70), (5, 64, 7, 65)],
)
@pytest.mark.usefixtures("form")
def test_as_in_float64(dtype, M, C, B, wide):
    check(dtype, M, C, B, wide)


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(deadline=None, max_examples=60)
@given(
    M=st.integers(1, 300), C=st.integers(1, 150), B=st.integers(1, 80), more=st.integers(0, 40),
    count=st.integers(1, 3),
)  # fmt: skip
def test_any_shape(dtype, M, C, B, more, count):
    check(dtype, M, C, B, C + more, count)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_no_result_depends_on_threads(dtype):
    M, C, B = 2500, 100, 32
    x, g, W = (drawn(*shape).to(dtype) for shape in ((M, C), (M, B), (B, C)))
    norm = norms.Norm(torch.zeros(C), torch.ones(C), torch.ones(C), torch.zeros(C), 1e-5)
    if products.form_for(x) is not cpp or not cpp.multiplies(dtype, B):
        pytest.skip("torch multiplies")

    def outcome():
        y, of_y, sums, to_x = x.new_empty(M, B), torch.empty(2, B), torch.zeros(2, C), torch.zeros_like(x)
        products.convolution(products.form_for(x), x, norm, W, y, tuple(of_y))
        to_W = products.convolution_backward(products.form_for(x), g, x, norm, W, True, *sums, to_x)
        return y, of_y, sums, to_x, to_W

    the_same_by_threads(outcome)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.usefixtures("form")
def test_statistics_far_from_zero(dtype):
    """Columns of the result are some thousands, and differ by one."""
    M, C, B = 500, 4, 6
    x, W = (drawn(M, C) + 3e3 * 2).to(dtype), torch.eye(6, 4).to(dtype)
    W[4:] = 0.25
    norm = norms.Norm(torch.zeros(C), torch.ones(C), torch.ones(C), torch.zeros(C), 0.0)
    y, of_y = x.new_empty(M, B), (torch.empty(B), torch.empty(B))
    products.convolution(products.form_for(x), x, norm, W, y, of_y)
    close(of_y[0], y.double().mean(0), torch.float32)
    close(of_y[1], y.double().var(0, correction=0), torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.usefixtures("form")
def test_what_is_not_a_number_stays_so(dtype):
    M, C, B = 60, 20, 8
    x, W = drawn(M, C).to(dtype), drawn(B, C, seed=1).to(dtype)
    x[7, 3] = torch.nan
    norm = norms.Norm(torch.zeros(C), torch.ones(C), torch.ones(C), torch.zeros(C), 1e-5)
    y = x.new_empty(M, B)
    products.convolution(products.form_for(x), x, norm, W, y, None)
    assert y[7].isnan().all()
    assert not y[torch.arange(M) != 7].isnan().any()
    sums, to_x = torch.zeros(2, C), torch.zeros_like(x)
    to_W = products.convolution_backward(products.form_for(x), torch.ones_like(y), x, norm, W, True, *sums, to_x)
    assert to_W[:, 3].isnan().all()
    assert not to_W[:, torch.arange(C) != 3].isnan().any()


def test_who_multiplies(monkeypatch):
    for amx, found, taken in (
        (False, "AVX512", {(torch.float32, 7), (torch.float32, 8), (torch.bfloat16, 8)}),
        (True, "AVX2", {(torch.float32, 7), (torch.float32, 8)}),
        (False, "DEFAULT", set()),
    ):
        monkeypatch.setattr(vectors, "has_amx", lambda amx=amx: amx)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=found: found)
        dtypes = torch.float32, torch.bfloat16, torch.float16, torch.float64
        assert {(dtype, B) for dtype in dtypes for B in (7, 8) if cpp.multiplies.__wrapped__(dtype, B)} == taken
