"""What layers that convolve otherwise than torch's are tested with, and how they are compared with these."""

import pytest
import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common.layout import CHANNELS_LAST

layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
frozen_ones = pytest.mark.parametrize(
    "frozen", [("weight",), ("bias",), ("weight", "bias"), ("x",), ("x", "weight")], ids=str
)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=CHANNELS_LAST[x.dim()]) if channels_last else x


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return (found.double() - expected.double()).abs().max().item() <= tolerance * expected.abs().max().item()


def assert_same_gradients_beside(frozen, ours, theirs, x):
    """Where some of x, weight and bias need none."""
    results = []
    for conv in (ours, theirs):
        x = x.detach().clone()
        for name, tensor in {"x": x, **dict(conv.named_parameters())}.items():
            tensor.requires_grad_(name not in frozen)
        conv(x).sin().sum().backward()
        results.append([tensor.grad for tensor in (x, conv.weight, conv.bias)])
    for f, e in zip(*results, strict=True):
        assert (f is None) == (e is None)
        assert f is None or close(f, e, 1e-5)


def assert_same_whatever_is_done(ours, theirs, x):
    """What torch transforms, compiles and traces, and what is done behind a layer; x requires gradients."""
    parameters = [list(conv.parameters()) for conv in (ours, theirs)]

    def agree(of, changes=1e-4):
        for f, e in zip(of(ours, parameters[0]), of(theirs, parameters[1]), strict=True):
            assert close(f, e, changes)

    def penalty(conv, wanted):
        (slope,) = torch.autograd.grad(conv(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *wanted])

    def many(conv, wanted):
        y = conv(x)
        return torch.autograd.grad(y, [x, *wanted], torch.stack([y.detach(), y.detach().cos()]), is_grads_batched=True)

    first = x.detach().flatten(2)[..., 0].view(*x.shape[:2], *[1] * (x.dim() - 2))
    agree(lambda conv, wanted: torch.autograd.grad(conv(x).mul_(2).relu_().sum(), [x, *wanted]))
    agree(lambda conv, wanted: torch.autograd.grad(conv(x).sum(), [x, *wanted]))  # one value, of no memory of its own
    agree(lambda conv, wanted: torch.autograd.grad(conv(x).flatten(2).sum(2).sin().sum(), [x, *wanted]))  # one a map
    agree(lambda conv, wanted: torch.autograd.grad(y := conv(x), [x, *wanted], torch._neg_view(y.detach())))
    agree(lambda conv, _: [conv(first.expand_as(x)), conv(x.detach()[:, :1].expand_as(x)), conv(x.detach()[..., ::2])])
    agree(penalty)
    agree(many)
    agree(lambda conv, _: [torch.func.vmap(conv)(torch.stack([x, 2 * x]))])
    agree(lambda conv, _: torch.func.jvp(conv, (x,), (x.cos(),)))
    agree(lambda conv, _: [torch.func.grad(lambda z: conv(z).pow(3).sum())(x)])
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert compiled(x).stride() == theirs(x).stride()
    for f, e in zip(*(torch.autograd.grad(f(x).sin().sum(), x) for f in (compiled, theirs)), strict=True):
        assert close(f, e, 1e-5)
    recorded = torch.fx.symbolic_trace(nn.Sequential(ours))
    assert [node.target for node in recorded.graph.nodes if node.op == "call_module"] == ["0"]
    assert close(torch.jit.trace(ours, x)(2 * x), theirs(2 * x), 1e-5)


def kept(conv: nn.Module, x: Tensor) -> int:
    """Values of maps and weights that a forward keeps for the backward."""
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        conv(x.requires_grad_())
    return sum(tensor.numel() for tensor in saved if tensor.dim() > 1)
