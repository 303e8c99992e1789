"""Steps of dense blocks, and what is compared of two."""

import torch
from torch import nn


def norms(block):
    return [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]


def draw_norms(block):
    """Parameters and running statistics that are not those of a new norm."""
    for norm in norms(block):
        nn.init.uniform_(norm.weight, -1, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)


def maps(*shape, dtype=torch.float64, channels_last=False):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + 3).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def outcome(block, x, after=lambda y: y):
    """Output, its strides, gradients and running statistics of a step."""
    torch.manual_seed(3)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x)
    value, stride = y.detach().clone(), torch.tensor(y.stride())
    probe = torch.arange(y.numel(), dtype=torch.float64).sin().view(y.shape).to(y.dtype)
    grads = torch.autograd.grad((after(y) * probe).sum(), [x, *(p for p in block.parameters() if p.requires_grad)])
    return [value, stride, *grads, *(b.clone() for b in block.buffers())]


def assert_close(found, expected, tolerance=1e-9):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=tolerance, atol=tolerance)
