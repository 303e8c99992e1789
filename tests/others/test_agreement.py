"""Models that nobody here wrote compute, and learn, the same before and after `accelerate`."""

import copy

import pytest
import torch

from bench.others.agreement import errors
from bench.others.models import CASES, LAYOUTS, arranged, loss, outputs
from lorbms_fast.kernels import accelerate, restore

STEPS = 5
MISSING = "{}: pip install lorbms-fast[others]"


def made(name, layout, dtype):
    torch.manual_seed(0)
    try:
        model = CASES[name].small().to(dtype)
    except ImportError as error:
        pytest.skip(MISSING.format(error))
    return arranged(model, torch.randn(CASES[name].small_shape, dtype=dtype), layout)


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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_it_learns_the_same(name, layout):
    before, x = made(name, layout, torch.float64)
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
    try:
        ours, theirs = errors(name, "channels_last", "bfloat16", torch.device("cpu"))
    except ImportError as error:
        pytest.skip(MISSING.format(error))
    assert ours <= 1.5 * theirs + 0.01
