"""The instance norm parts of torch's own test suite, run against ours: its module inputs and operator samples."""

import copy
import pickle
import sys
import types
import unittest

import pytest
import torch
from torch import nn

from lorbms_fast.kernels import InstanceNorm2d, InstanceNorm3d

if "expecttest" not in sys.modules:  # which torch's tests import, and these need nothing of
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase
with pytest.MonkeyPatch.context() as patch:  # its import forbids every later change of cuDNN's flags in this process
    patch.setattr(torch.backends, "disable_global_flags", lambda: None)
    common_modules = pytest.importorskip("torch.testing._internal.common_modules")

OURS = {nn.InstanceNorm2d: InstanceNorm2d, nn.InstanceNorm3d: InstanceNorm3d}
INFOS = [info for info in common_modules.module_db if info.module_cls in OURS]
LAYOUTS = {
    "contiguous": lambda x, channel: x.contiguous(),
    "channels last": lambda x, channel: x.movedim(channel, -1).contiguous().movedim(-1, channel),
    "transposed": lambda x, channel: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "with gaps": lambda x, channel: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x, channel: x[:1].contiguous().expand(x.shape),
}
cases = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.module_cls.__name__)
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def inputs_of(info, dtype, training=True):
    torch.manual_seed(0)
    return info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=training)


def arranged(layout, info, x):
    return LAYOUTS[layout](x, -3 if info.module_cls is nn.InstanceNorm2d else -4)


def both(info, module_input, dtype):
    args, kwargs = module_input.constructor_input.args, module_input.constructor_input.kwargs
    theirs, ours = info.module_cls(*args, dtype=dtype, **kwargs), OURS[info.module_cls](*args, dtype=dtype, **kwargs)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def results(module, x, probe):
    """Result, its gradients, and what the module holds afterwards."""
    x = x.detach().requires_grad_()
    y = module(x)
    return [y, *torch.autograd.grad((y * probe).sum(), [x, *module.parameters()]), *module.state_dict().values()]


@cases
@layouts
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_forward_and_gradients(info, layout, dtype, training):
    for module_input in inputs_of(info, dtype, training):
        (x,) = module_input.forward_input.args
        ours, theirs = both(info, module_input, dtype)
        x = arranged(layout, info, x)
        probe = torch.randn(x.shape).to(dtype)
        found = results(ours.train(training), x, probe)
        expected = results(theirs.train(training), x, probe)
        tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e, rtol=tolerance, atol=tolerance)
        if layout == "channels last" and not ours.track_running_stats:
            assert found[0].stride() == x.stride()


@cases
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_derivatives(info, layout):
    """Of first and second order, and forward mode."""
    for module_input in inputs_of(info, torch.float64):
        (x,) = module_input.forward_input.args
        ours, _ = both(info, module_input, torch.float64)
        names, values = zip(*ours.named_parameters(), strict=True) if ours.affine else ((), ())

        def function(x, *values, module=ours, names=names):
            return torch.func.functional_call(copy.deepcopy(module), dict(zip(names, values, strict=True)), (x,))

        inputs = arranged(layout, info, x[..., :3, :3]).detach().requires_grad_(), *values
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@cases
def test_what_a_module_is(info):
    for module_input in inputs_of(info, torch.float32):
        (x,) = module_input.forward_input.args
        ours, theirs = both(info, module_input, torch.float32)
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        expected = theirs.eval()(x)
        for other in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours), ours.to("cpu", torch.float32)):
            torch.testing.assert_close(other.eval()(x), expected)
        assert ours.to("meta")(x.to("meta")).shape == x.shape


def test_averages_that_are_switched_off_later_move_as_torchs():
    ours, theirs = InstanceNorm2d(3, track_running_stats=True), nn.InstanceNorm2d(3, track_running_stats=True)
    ours.track_running_stats = theirs.track_running_stats = False
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
