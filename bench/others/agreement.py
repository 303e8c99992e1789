"""Gradients of a small model, as it was made and accelerated, against those of the model in float64."""

import copy

import torch
from torch import Tensor, nn

from bench.others.models import CASES, DTYPES, arranged, loss
from lorbms_fast.kernels import accelerate


def errors(name: str, layout: str, dtype: str, device: torch.device) -> tuple[float, float]:
    """Relative errors of an accelerated model's gradients, and of those of the model as it was made.

    Raises ImportError if its package is not there.
    """
    torch.manual_seed(0)
    case = CASES[name]
    before, x = arranged(case.small().to(device), torch.randn(case.small_shape, device=device), layout)
    after, exact = copy.deepcopy(before), copy.deepcopy(before).double()
    accelerate(after, save_memory=True)
    truth = _gradients(exact, x.double(), torch.float32)
    found, own = (_gradients(model, x, DTYPES[dtype]) for model in (after, before))
    return tuple(((gradients - truth).norm() / truth.norm()).item() for gradients in (found, own))


def _gradients(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradients of the input and of what is no convolution's weight, one after the other.

    Those are, in torch 2.13, of memory that nobody wrote where a 3D convolution in bfloat16 reads maps of 2x2x2.
    """
    torch.manual_seed(0)  # dropout's
    z = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        value = loss(model, z)
    wanted = [z, *(p for p in model.parameters() if p.dim() == 1)]
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, wanted)])
