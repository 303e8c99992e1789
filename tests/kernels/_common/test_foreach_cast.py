"""Casting many tensors at once is casting each."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast.kernels._common.foreach_cast import foreach_cast


class Counting(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def tensors() -> list[torch.Tensor]:
    shapes = (3,), (2, 3, 4, 4), ()
    found = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]
    found[1] = found[1].contiguous(memory_format=torch.channels_last)
    return [*(tensor.requires_grad_() for tensor in found), torch.ones(2, dtype=torch.bfloat16), torch.ones(2)]


def test_values_layouts_and_gradients():
    leaves = tensors()
    with Counting() as counted:
        found = foreach_cast(leaves, torch.bfloat16)
    assert counted.names.count("_foreach_copy_") == 1
    assert "_to_copy" not in counted.names
    assert found[3] is leaves[3]
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    assert [f.requires_grad for f in found[:3]] == [True] * 3
    for f, leaf in zip(found, leaves, strict=True):
        assert torch.equal(f, leaf.to(torch.bfloat16))
    loss = (found[0].square().sum() + found[1].sin().sum()).float()  # nothing of the third
    plain = leaves[0].bfloat16().square().sum() + leaves[1].bfloat16().sin().sum()
    for g, e in zip(torch.autograd.grad(loss, leaves[:2]), torch.autograd.grad(plain.float(), leaves[:2]), strict=True):
        assert g.dtype == torch.float32
        assert torch.equal(g, e)


def test_what_needs_no_cast_is_not_touched():
    leaves = [tensor.detach().float() for tensor in tensors()]
    assert all(f is leaf for f, leaf in zip(foreach_cast(leaves, torch.float32), leaves, strict=True))
