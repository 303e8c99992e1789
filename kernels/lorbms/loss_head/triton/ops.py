"""The loss head in Triton: images are read once forward and once backward, nothing else is written but gradients."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels.lorbms.loss_head.reference import Gan, Losses, is_hinge
from lorbms_fast.kernels.lorbms.loss_head.triton import kernels

BLOCK = 4096
FEW = 256
"""Number of logits read at a time."""
REGISTERS = 64
"""The gradients' program may have: left to itself, the compiler spills one to fit more programs on a multiprocessor."""


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, mask: Tensor,
    weights: tuple[float, float, float], lambdas: Sequence[float], gan: Gan,
) -> Losses:  # fmt: skip
    """Five float32 scalars; documented at the package's function of this name. Differentiable once."""
    layout = torch.channels_last if is_channels_last(I_hat) else torch.contiguous_format
    images = (image.contiguous(memory_format=layout) for image in (I_ref, I_hat, I_prime))
    others = (tensor.contiguous() for tensor in (D_mix, logits, mask))
    L_G, parts = losses(*images, *others, list(weights), list(lambdas), gan)
    L_rec_hat, L_rec_prime, L_adv, L_cls = parts.unbind()
    return L_G, L_rec_hat, L_rec_prime, L_adv, L_cls


@triton_op("loss_head")
def losses(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, mask: Tensor, weights: list[float],
    lambdas: list[float], gan: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """L_G and its parts, () and (4,), of three dense image batches in one memory layout and contiguous logits."""
    if I_ref.numel() >= 2**31:
        raise NotImplementedError(f"{tuple(I_ref.shape)}: 2^31 values or more are not supported")
    C, N, _ = logits.shape
    blocks = triton.cdiv(I_ref.numel(), BLOCK)
    partial = I_ref.new_empty(2 * blocks + 2, dtype=torch.float32)
    L_G, parts = _empty_losses(I_ref)
    kernels.partial_losses[(blocks + 1,)](
        I_ref, I_hat, I_prime, D_mix, logits, mask, partial, I_ref.numel(), D_mix.numel(), tuple(lambdas), N,
        C, is_hinge(gan), BLOCK, FEW, num_warps=8,
    )  # fmt: skip
    kernels.add_partial_losses[(1,)](partial, L_G, parts, blocks, I_ref.numel(), tuple(weights), 256)
    return L_G, parts


@triton_op("loss_head_backward")
def losses_backward(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, mask: Tensor, grad: Tensor | None,
    grad_parts: Tensor | None, weights: list[float], lambdas: list[float], gan: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of I_hat, I_prime, D_mix and the classifier's logits."""
    C, N, _ = logits.shape
    gradients = _empty_gradients(I_ref, I_hat, I_prime, D_mix, logits)
    grad_parts = None if grad_parts is None else grad_parts.contiguous()
    kernels.backward[(triton.cdiv(I_ref.numel(), BLOCK) + 1,)](
        grad, grad_parts, I_ref, I_hat, I_prime, D_mix, logits, mask, *gradients, I_ref.numel(), D_mix.numel(),
        tuple(weights), tuple(lambdas), N, C, is_hinge(gan), BLOCK, FEW, num_warps=8, maxnreg=REGISTERS,
    )  # fmt: skip
    return gradients


@losses.register_fake
def _empty_losses(like: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return like.new_empty((), dtype=torch.float32), like.new_empty(4, dtype=torch.float32)


@losses_backward.register_fake
def _empty_gradients(I_ref, I_hat, I_prime, D_mix, logits, *_):
    return torch.empty_like(I_hat), torch.empty_like(I_prime), torch.empty_like(D_mix), torch.empty_like(logits)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.weights, ctx.lambdas, ctx.gan = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_parts: Tensor | None) -> Any:
    if grad is None and grad_parts is None:
        return (None,) * 9
    tensors = ctx.saved_tensors
    dI_hat, dI_prime, *others = losses_backward(*tensors, grad, grad_parts, ctx.weights, ctx.lambdas, ctx.gan)
    dI_ref = -(dI_hat + dI_prime).to(tensors[0].dtype) if ctx.needs_input_grad[0] else None
    return dI_ref, dI_hat, dI_prime, *others, None, None, None, None


losses.register_autograd(_backward, setup_context=_save)


@triton_op("classification_loss")
def classification_loss(logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """A float32 scalar; documented at the package's function of this name. Differentiable once."""
    C, N, _ = logits.shape
    loss = _empty_loss(logits)
    kernels.classification[(1,)](logits.contiguous(), mask.contiguous(), loss, tuple(lambdas), N, C, FEW)
    return loss


@triton_op("classification_loss_backward")
def classification_loss_backward(grad: Tensor, logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """Gradient of the logits."""
    C, N, _ = logits.shape
    dlogits = _empty_logits(grad, logits)
    kernels.classification_backward[(triton.cdiv(N * C * C, FEW),)](
        grad, logits.contiguous(), mask.contiguous(), dlogits, tuple(lambdas), N, C, FEW
    )
    return dlogits


@triton_op("discrimination_loss")
def discrimination_loss(D: Tensor, gan: str) -> Tensor:
    """A float32 scalar; documented at the package's function of this name. Differentiable once."""
    loss = _empty_loss(D)
    kernels.discrimination[(1,)](D.contiguous(), loss, D.numel() // 2, is_hinge(gan), FEW)
    return loss


@triton_op("discrimination_loss_backward")
def discrimination_loss_backward(grad: Tensor, D: Tensor, gan: str) -> Tensor:
    """Gradient of the logits."""
    dD = _empty_logits(grad, D)
    kernels.discrimination_backward[(triton.cdiv(D.numel(), FEW),)](
        grad, D.contiguous(), dD, D.numel() // 2, is_hinge(gan), FEW
    )
    return dD


@classification_loss.register_fake
@discrimination_loss.register_fake
def _empty_loss(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty((), dtype=torch.float32)


@classification_loss_backward.register_fake
@discrimination_loss_backward.register_fake
def _empty_logits(grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_logits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.option = inputs
    ctx.save_for_backward(*tensors)


def _classification_backward(ctx: Any, grad: Tensor) -> Any:
    return classification_loss_backward(grad, *ctx.saved_tensors, ctx.option), None, None


def _discrimination_backward(ctx: Any, grad: Tensor) -> Any:
    return discrimination_loss_backward(grad, *ctx.saved_tensors, ctx.option), None


classification_loss.register_autograd(_classification_backward, setup_context=_save_logits)
discrimination_loss.register_autograd(_discrimination_backward, setup_context=_save_logits)
