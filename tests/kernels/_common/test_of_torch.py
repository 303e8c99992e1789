"""What torch tells by private names alone, against what it does in public: another torch may call it otherwise."""

from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.kernels._common import of_torch


def test_what_watches():
    assert not of_torch.modes_in_force()
    assert not of_torch.is_profiled()
    with torch.profiler.profile():
        assert of_torch.is_profiled()
    with FlopCounterMode(display=False):
        assert of_torch.in_dispatch_mode()
        assert [type(mode).__name__ for mode in of_torch.modes_in_force()] == ["_FlopCounterMode"]


def test_what_transforms():
    seen, kept = [], []

    def f(x):
        seen.append((of_torch.in_transform(), of_torch.in_forward_mode()))
        kept.append(x)
        return 2 * x

    x = torch.ones(3)
    f(x)
    torch.func.vmap(f)(x)
    with forward_ad.dual_level():
        f(x)
    assert seen == [(False, False), (True, False), (False, True)]
    assert [of_torch.is_wrapped(one) for one in kept] == [False, True, False]


def test_gradients_that_are_no_memory():
    met = []

    class Meets(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            met.append((any(of_this_way(grad) for of_this_way in of_torch.are_several), of_torch.is_zero(grad)))
            return grad

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Meets.apply(x), x, torch.ones(3))
    torch.autograd.grad(Meets.apply(x), x, torch.eye(3), is_grads_batched=True)
    assert met == [(False, False), (True, False)]
    assert of_torch.is_zero(torch._efficientzerotensor(3))


def test_what_compilers_take_for_constant():
    def f():
        return 1

    of_torch.constant_to_compilers(f)
    assert vars(f) == vars(torch.compiler.assume_constant_result(lambda: 1))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="nothing here to ask the processor by")
def test_has_amx():
    """The system may withhold from a process what its processor has: it grants it, or not, to whoever asks."""
    in_processor = " amx_tile" in Path("/proc/cpuinfo").read_text()
    assert of_torch.has_amx() == (in_processor and torch.cpu._init_amx())
