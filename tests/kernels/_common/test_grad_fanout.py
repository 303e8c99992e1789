"""One value for several uses: the gradients are the sums, added by one operation."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast.kernels import DenseBlock, dense_block_maps, fan_out, fold_taps, pack_layers, resize_conv


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


class Counted(TorchDispatchMode):
    def __init__(self, *operations):
        super().__init__()
        self.operations, self.count = operations, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in self.operations
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_gradients_add_up(uses):
    a, b, frozen = draw(2, 3), draw(4, seed=1), draw(3, seed=2).detach()
    shared = fan_out({"a": a, "rest": [b, frozen, "name"]}, uses)
    assert all(use["rest"][1] is frozen and use["rest"][2] == "name" for use in shared)
    loss = sum((i + 1) * (use["a"].sin().sum() + use["rest"][0].square().sum()) for i, use in enumerate(shared))
    found = torch.autograd.grad(loss, [a, b])
    weight = uses * (uses + 1) / 2
    for f, e in zip(found, (weight * a.cos(), weight * 2 * b), strict=True):
        torch.testing.assert_close(f, e)


def test_one_operation_adds_all():
    tensors = [draw(2, seed=i) for i in range(5)]
    first, second = fan_out(tensors, 2)
    loss = sum((x * y).sum() for x, y in zip(first, second, strict=True))
    with Counted(torch.ops.aten.add.Tensor, torch.ops.aten._foreach_add.List) as additions:
        found = torch.autograd.grad(loss, tensors)
    assert additions.count == 1
    for f, x in zip(found, tensors, strict=True):
        torch.testing.assert_close(f, 2 * x)


def test_a_use_may_leave_tensors_alone():
    a, b, c = draw(2), draw(3, seed=1), draw(1, seed=2)
    first, second = fan_out([a, b, c], 2)
    found = torch.autograd.grad(first[0].sum() + second[1].sum(), [a, b, c], allow_unused=True)
    assert found[0].tolist() == [1, 1]
    assert found[1].tolist() == [1, 1, 1]
    assert found[2] is None or not found[2].any()


def test_changing_what_was_shared_before_its_backward_is_refused():
    a = draw(2)
    first, second = fan_out([a], 2)
    loss = first[0].square().sum() + second[0].square().sum()
    with torch.no_grad():
        a.add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        loss.backward()


@pytest.mark.parametrize("impl", ["reference", "fused"])
@pytest.mark.parametrize("layers", [1, 3])
def test_packed_layers_of_two_blocks_used_twice(impl, layers):
    x = draw(2, 3, 4, 5)
    blocks = [
        ([draw(2, 3 + 2 * i, 3, 3, seed=k + i) for i in range(layers)], [draw(2, seed=k + i) for i in range(layers)])
        for k in (10, 20)
    ]
    wanted = [x, *(tensor for block in blocks for tensors in block for tensor in tensors)]

    def loss(packed):
        return sum((i + 1) * dense_block_maps(x, block).sin().sum() for i, block in enumerate(packed))

    expected = sum(
        2 * (i + 1) * dense_block_maps(x, *block, impl="reference").sin().sum() for i, block in enumerate(blocks)
    )
    found = sum(loss(packed) for packed in fan_out(pack_layers(blocks, impl=impl), 2))
    for f, e in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(f, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("impl", ["reference", "fused"])
def test_folded_taps_used_twice(impl):
    x, weights = draw(1, 3, 2, 3), [draw(2, 3, 3, 3, seed=1), draw(4, 3, 3, 3, seed=2)]
    shared = fan_out(fold_taps(weights, impl=impl), 2)
    found = sum(resize_conv(x, taps).sin().sum() for use in shared for taps in use)
    expected = sum(2 * resize_conv(x, weight, "reference").sin().sum() for weight in weights)
    wanted = [x, *weights]
    for f, e in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(f, e, rtol=1e-10, atol=1e-10)


def test_packing_in_autocast_is_for_autocast():
    block = DenseBlock(3, 2, 4)
    weights, biases = ([getattr(layer, name) for layer in block.children()] for name in ("weight", "bias"))
    with torch.autocast("cpu", torch.bfloat16):
        (packed,) = pack_layers([(weights, biases)])
        assert packed.dtype == torch.bfloat16
        y = dense_block_maps(torch.ones(1, 3, 4, 4), packed)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in weights)
