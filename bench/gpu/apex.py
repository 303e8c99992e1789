"""NVIDIA apex beside ours, where somebody has built it: its Adam, and its instance norm of 3D maps."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu.raw import Pair
from lorbms_fast.kernels import InstanceNorm3d
from lorbms_fast.kernels.lorbms.adam import step_size
from lorbms_fast.optimizers import Adam

BETAS = (0.5, 0.999)


def adam(device: torch.device) -> Pair:
    """A step for 16 tensors of 512 x 512 numbers; both return the first of them.

    apex corrects both moments, then adds eps, which is not where TensorFlow has it. Told to correct nothing, and given
    a rate that is corrected instead, it computes TensorFlow's formula, which is ours.
    """
    drawn = torch.randn(16, 512, 512, device=device)
    gradients = torch.randn(16, 512, 512, device=device)
    theirs, ours = ([p.clone().requires_grad_() for p in drawn] for _ in range(2))
    for parameters in (theirs, ours):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
    fused = importlib.import_module("apex.optimizers").FusedAdam(
        theirs, lr=1e-3, bias_correction=False, betas=BETAS, eps=Adam.EPS, capturable=True
    )
    optimizer = Adam(ours, 1e-3, BETAS)
    t, lr = (torch.tensor(number, dtype=torch.float64, device=device) for number in (0.0, 1e-3))
    one, nothing, flawed = torch.ones((), device=device), torch.zeros((), device=device), torch.zeros(2, device=device)

    def step_of_apex() -> Tensor:
        fused.param_groups[0]["lr"].copy_(step_size(one, nothing, t, flawed, lr, one.double(), BETAS))
        fused.step()
        return theirs[0]

    def step_of_ours() -> Tensor:
        optimizer.step()
        return ours[0]

    return step_of_apex, step_of_ours


def instance_norm(device: torch.device) -> Pair:
    """Two volumes of 64 maps of 32 x 32 x 32, channels_last, with weight and bias."""
    x = torch.randn(2, 64, 32, 32, 32, device=device).to(memory_format=torch.channels_last_3d)
    theirs = importlib.import_module("apex.normalization").InstanceNorm3dNVFuser(64, affine=True).to(device)
    ours = InstanceNorm3d(64, affine=True).to(device)
    return lambda: theirs(x), lambda: ours(x)


APEX: dict[str, Callable[[torch.device], Pair]] = {
    "step of Adam, 16 x 512 x 512 numbers": adam,
    "instance norm, 64 maps 32x32x32, channels_last": instance_norm,
}
