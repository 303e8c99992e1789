"""The fully connected layer by C++ loops against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms, use_impl
from lorbms_fast.kernels.lorbms.linear import cpp
from lorbms_fast.measurement.counts import count
from tests.kernels.threads import the_same_by_threads


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int, C: int, O: int) -> list[torch.Tensor]:
    tensors = [drawn(n, C, seed=0), drawn(O, C, seed=1), drawn(O, seed=2)]
    if not cpp.take(*tensors):
        pytest.skip("no C++ compiler, or no vectors")
    return [tensor.requires_grad_() for tensor in tensors]


size = st.sampled_from([16, 48, 272, 544])


@settings(deadline=None, max_examples=12)
@given(n=st.integers(1, 70), C=size, O=size, in_rows=st.booleans())
def test_result_and_gradients(n, C, O, in_rows):
    x, weight, bias = inputs(n, C, O)
    grad = drawn(n, O, seed=3)
    if not in_rows:
        x = x.detach().t().contiguous().t().requires_grad_()
        grad = grad.t().contiguous().t()
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    y = F.linear(*exact)
    expected = [y, *torch.autograd.grad(y, exact, grad.double())]

    def outcome():
        y = lorbms.linear(x, weight, bias)
        assert type(y.grad_fn).__name__ == "_LinearBackward"
        return y, *torch.autograd.grad(y, (x, weight, bias), grad)

    for f, e in zip(the_same_by_threads(outcome, (1, 3)), expected, strict=True):
        assert f.dtype == torch.float32
        assert f.shape == e.shape
        assert (f - e).abs().max() <= 1e-6 * e.abs().max()


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_what_was_not_asked_for_is_not_computed(wanted):
    tensors = inputs(3, 16, 32)
    work = [count(lambda: lorbms.linear(*tensors))]
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i == wanted)
    work.append(count(lambda: torch.autograd.grad(lorbms.linear(*tensors).sum(), tensors[wanted])))
    products = 2 * 3 * 16 * 32 / 1e9
    assert [one.gflop for one in work] == [products, products * (1 if wanted == 2 else 2)]


def test_gradients_of_gradients_are_the_definitions():
    x, weight, bias = inputs(3, 16, 32)
    (to_x,) = torch.autograd.grad(lorbms.linear(x, weight, bias).square().sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(to_x.square().sum(), weight)
    (to_x,) = torch.autograd.grad(F.linear(x, weight, bias).square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(to_x.square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["float64", "autocast", "odd", "many", "reference", "vmap"])
def test_all_else_goes_to_torch(case):
    n, C, O = {"odd": (3, 17, 32), "many": (cpp.MOST + 1, 16, 16)}.get(case, (3, 16, 32))
    tensors = [drawn(n, C, seed=0), drawn(O, C, seed=1), drawn(O, seed=2)]
    tensors = [(t.double() if case == "float64" else t).requires_grad_() for t in tensors]
    if case == "vmap":
        x, *others = tensors
        y = torch.vmap(lambda row: lorbms.linear(row[None], *others)[0])(x)
        torch.testing.assert_close(y, F.linear(*tensors))
        return
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        with use_impl("reference" if case == "reference" else "auto"):
            y = lorbms.linear(*tensors)
        assert type(y.grad_fn).__name__ != "_LinearBackward"
        torch.testing.assert_close(y, F.linear(*tensors))


def test_layer_in_one_graph():
    layer = lorbms.Linear(32, 16)
    x = drawn(2, 32, seed=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("shapes", [((2, 48), (16, 32), (16,)), ((2, 32), (16, 32), (32,))], ids=str)
def test_sizes_that_do_not_fit_are_torchs_errors(shapes):
    tensors = [torch.randn(shape) for shape in shapes]
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|must match the existing size"):
        lorbms.linear(*tensors)
