"""What norms with an activation are tested with, and how they are compared with torch's layers in float64."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.kernels.forms import fast

ACTIVATIONS = {
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "part of channels": lambda x: torch.cat([x, x], 1).movedim(1, -1).contiguous().movedim(-1, 1)[:, x.shape[1] :],
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
}
# Of values about 1; what is written in 16 bits is rounded to 8 or 11.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def results(layers, x, probe):
    """Output, gradients, and what the layers hold afterwards."""
    x = x.detach().requires_grad_()
    y = layers(x)
    return [y, *torch.autograd.grad((y * probe.to(y.dtype)).sum(), [x, *layers.parameters()]), *layers.buffers()]


def assert_same_results(ours, theirs, x, probe, layout):
    """Within the rounding of x's dtype, in which ours are, beside theirs in float64."""
    found, expected = results(ours, x, probe), results(theirs, x.double(), probe)
    assert found[0].dtype == x.dtype
    if layout in ("contiguous", "channels last"):
        assert found[0].stride() == found[1].stride() == x.stride()
    for f, e in zip(found, expected, strict=True):
        scale = max(1.0, e.abs().max().item())
        assert (f.double() - e).abs().max() <= TOLERANCES[x.dtype] * scale


def of_any_shape(layouts):
    """Draw sizes but the last, the last, an activation, whether there are parameters, a dtype and a layout."""
    drawn = given(
        st.lists(st.integers(1, 9), min_size=3, max_size=4),
        st.integers(2, 70),
        st.sampled_from(list(ACTIVATIONS)),
        st.booleans(),
        st.sampled_from([torch.float64, torch.float32]),
        st.sampled_from(list(layouts)),
    )
    return lambda test: fast(drawn(test))


def kept(layers, layout):
    """How many tensors of the input's size a forward keeps for the backward."""
    x, saved = LAYOUTS[layout](torch.randn(2, 8, 16, 16)).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):
        layers(x * 1)
    return len({t.untyped_storage().data_ptr() for t in saved if t.numel() == x.numel()})


def all_but_a_corner(x):
    """Where the first value of a map is one of no other."""
    x[:, :, 0, 0] = 0
    return x


FAR = torch.tensor([1e4, 100.0, -3e5]).view(3, 1, 1)
EXACTLY = {
    "around zero": (lambda x: x, 1.25),
    "a deviation away": (lambda x: x + 1, 1.25),
    "few values": (lambda x: x[:, :, :8, :8] + 1, 1.25),
    "far away": (lambda x: x + FAR, 0.01),
    "far away but for a corner": (lambda x: all_but_a_corner(x + FAR), 1.5),
    "near but for a corner": (lambda x: all_but_a_corner(x + 100), 1.5),
}
"""Maps about zero -> other ones, and how many times as far from the exact result as torch's ours may be."""


def assert_as_exact(ours, theirs, arranged, maps):
    """Of the results and the gradients of float32 maps, on average."""
    torch.manual_seed(0)
    (of, at_most), errors = EXACTLY[maps], []
    for _ in range(10):
        x, probe = arranged(of(torch.randn(2, 3, 32, 32)).contiguous()), torch.randn(2, 3, 32, 32)
        probe = arranged(probe[:, :, : x.shape[2], : x.shape[3]].contiguous())
        exact = results(copy.deepcopy(theirs).double(), x.double(), probe)
        for layers in (ours, theirs):
            found = results(copy.deepcopy(layers), x, probe)
            errors += [(f - e).abs().max() for f, e in zip(found[:2], exact[:2], strict=True)]
    y, to_x, torchs_y, torchs_to_x = torch.stack(errors).view(-1, 4).mean(0)
    assert y <= at_most * torchs_y
    assert to_x <= max(at_most, 1.25) * torchs_to_x


def assert_gradients_as_exact(ours, theirs, arranged):
    """Of float32 maps and of parameters, where gradients of the result are about one, on average."""
    torch.manual_seed(0)
    errors = []
    for _ in range(5):
        x, probe = arranged(torch.randn(2, 32, 32, 32)), arranged(torch.randn(2, 32, 32, 32) + 1)
        exact = results(copy.deepcopy(theirs).double(), x.double(), probe)
        for layers in (ours, theirs):
            found = results(copy.deepcopy(layers), x, probe)
            errors += [(f - e).abs().max() for f, e in zip(found[1:4], exact[1:4], strict=True)]
    of_ours, of_theirs = torch.stack(errors).view(-1, 2, 3).mean(0)
    assert (of_ours <= 1.25 * of_theirs).all()
