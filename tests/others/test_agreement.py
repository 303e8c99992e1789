"""Models that nobody here wrote compute, and learn, the same before and after `accelerate`."""

import copy

import pytest
import torch

from bench.others.models import CASES, channels_last, loss, outputs
from lorbms_fast.kernels import accelerate, restore

STEPS = 5


def made(name, in_channels_last, dtype):
    torch.manual_seed(0)
    try:
        model = CASES[name].small().to(dtype)
    except ImportError as error:
        pytest.skip(f"{error}: pip install lorbms-fast[others]")
    x = torch.randn(CASES[name].small_shape, dtype=dtype)
    if in_channels_last:
        layout = channels_last(x.dim())
        return model.to(memory_format=layout), x.to(memory_format=layout)
    return model, x


def trained(model, x):
    """What comes out and is sent back at first, then what a few steps make of the model."""
    found = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for step in range(STEPS):
        torch.manual_seed(step)  # dropout's
        z = x.clone(memory_format=torch.preserve_format).requires_grad_()
        if not step:
            found += [y.detach().clone() for y in outputs(model, z)]
            torch.manual_seed(step)
        optimizer.zero_grad()
        value = loss(model, z)
        value.backward()
        found += [value.detach(), z.grad]
        if not step:
            found += [p.grad.clone() for p in model.parameters()]
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found += outputs(model, x)
    return found + list(model.state_dict().values())


@pytest.mark.parametrize("in_channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_it_learns_the_same(name, in_channels_last):
    before, x = made(name, in_channels_last, torch.float64)
    after = copy.deepcopy(before)
    names = list(after.state_dict())
    accelerate(after, save_memory=True)
    assert list(after.state_dict()) == names
    restored = copy.deepcopy(after)
    for f, e in zip(trained(after, x), trained(before, x), strict=True):
        torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6 * max(1.0, e.abs().max().item()))
    restore(restored)
    assert [type(m) for m in restored.modules()] == [type(m) for m in before.modules()]


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16_it_computes_the_same_but_for_rounding(name):
    before, x = made(name, True, torch.float32)
    exact = copy.deepcopy(before)
    after = copy.deepcopy(before)
    accelerate(after, save_memory=True)

    def results(model, enabled):
        """Gradients of the input and of what is no convolution's weight.

        Those are, in torch 2.13, of memory that nobody wrote where a 3D convolution in bfloat16 reads maps of 2x2x2.
        """
        torch.manual_seed(0)
        z = x.clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = loss(model, z)
        wanted = [z, *(p for p in model.parameters() if p.dim() == 1)]
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, wanted)])

    truth = results(exact, False)
    ours, theirs = ((results(model, True) - truth).norm() / truth.norm() for model in (after, before))
    assert ours <= 1.5 * theirs + 0.01
