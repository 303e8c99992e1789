"""The loss head in Triton: images are read once forward and once backward, nothing else is written but gradients."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.operation import operation

BLOCK = 4096


@triton.jit
def _mean_cross_entropy(logits_ptr, size, target, BLOCK: tl.constexpr):
    """`mean(max(x, 0) - x target + log(1 + exp(-|x|)))`."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + i, mask=i < size, other=0).to(tl.float32)
        total += tl.where(i < size, tl.maximum(x, 0.0) - x * target + tl.log(1 + tl.exp(-tl.abs(x))), 0.0)
    return tl.sum(total) / size


@triton.jit
def partial_losses(
    I_ref_ptr, I_hat_ptr, I_prime_ptr, logits_ptr, partial_ptr, pixels, logits, target, BLOCK: tl.constexpr
):
    """Sums of both differences over a block of pixels, (2, blocks); after them, by the last program, the bce."""
    blocks = tl.num_programs(0) - 1
    if tl.program_id(0) == blocks:
        tl.store(partial_ptr + 2 * blocks, _mean_cross_entropy(logits_ptr, logits, target, BLOCK))
    else:
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        I_ref = tl.load(I_ref_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_hat = tl.load(I_hat_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_prime = tl.load(I_prime_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.abs(I_ref - I_hat)))
        tl.store(partial_ptr + blocks + tl.program_id(0), tl.sum(tl.abs(I_ref - I_prime)))


@triton.jit
def add_partial_losses(partial_ptr, losses_ptr, blocks, pixels, BLOCK: tl.constexpr):
    """(2, blocks) sums and the bce -> the three losses. One program."""
    for loss in range(2):
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, blocks, BLOCK):
            i = start + tl.arange(0, BLOCK)
            total += tl.load(partial_ptr + loss * blocks + i, mask=i < blocks, other=0)
        tl.store(losses_ptr + loss, tl.sum(total) / pixels)
    tl.store(losses_ptr + 2, tl.load(partial_ptr + 2 * blocks))


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _sigmoid(x):
    """Without an exponential that overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1 + e)


@triton.jit
def backward_program(
    grad_ptr,
    I_ref_ptr,
    I_hat_ptr,
    I_prime_ptr,
    logits_ptr,
    dI_hat_ptr,
    dI_prime_ptr,
    dlogits_ptr,
    pixels,
    logits,
    target,
    BLOCK: tl.constexpr,
):
    """Gradients of a block of pixels of both reconstructions; by the last program, of the logits."""
    if tl.program_id(0) == tl.num_programs(0) - 1:
        scale = tl.load(grad_ptr + 2) / logits
        for start in range(0, logits, BLOCK):
            i = start + tl.arange(0, BLOCK)
            x = tl.load(logits_ptr + i, mask=i < logits, other=0).to(tl.float32)
            dlogits = (_sigmoid(x) - target) * scale
            tl.store(dlogits_ptr + i, dlogits.to(dlogits_ptr.dtype.element_ty), mask=i < logits)
    else:
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        I_ref = tl.load(I_ref_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_hat = tl.load(I_hat_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        dI_hat = _sign(I_hat - I_ref) * (tl.load(grad_ptr) / pixels)
        tl.store(dI_hat_ptr + i, dI_hat.to(dI_hat_ptr.dtype.element_ty), mask=i < pixels)
        I_prime = tl.load(I_prime_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        dI_prime = _sign(I_prime - I_ref) * (tl.load(grad_ptr + 1) / pixels)
        tl.store(dI_prime_ptr + i, dI_prime.to(dI_prime_ptr.dtype.element_ty), mask=i < pixels)


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three float32 scalars; documented at the definition. Differentiable once."""
    channels_last = I_hat.is_contiguous(memory_format=torch.channels_last) if I_hat.dim() == 4 else False
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = (image.contiguous(memory_format=layout) for image in (I_ref, I_hat, I_prime))
    L_rec_hat, L_rec_prime, L_adv = losses(*images, D_mix.contiguous(), target).unbind()
    return L_rec_hat, L_rec_prime, L_adv


@operation("loss_head")
def losses(I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float) -> Tensor:
    """The three losses, (3,) float32, of three dense image batches in one memory layout and contiguous logits."""
    if I_ref.numel() >= 2**31:
        raise ValueError(f"{tuple(I_ref.shape)}: 2^31 values or more are not supported")
    blocks = triton.cdiv(I_ref.numel(), BLOCK)
    partial = I_ref.new_empty(2 * blocks + 1, dtype=torch.float32)
    result = _empty_losses(I_ref)
    partial_losses[(blocks + 1,)](
        I_ref, I_hat, I_prime, D_mix, partial, I_ref.numel(), D_mix.numel(), target, BLOCK, num_warps=8
    )
    add_partial_losses[(1,)](partial, result, blocks, I_ref.numel(), 256)
    return result


@operation("loss_head_backward")
def losses_backward(
    grad: Tensor, I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of I_hat, I_prime and D_mix."""
    dI_hat, dI_prime, dD_mix = torch.empty_like(I_hat), torch.empty_like(I_prime), torch.empty_like(D_mix)
    backward_program[(triton.cdiv(I_ref.numel(), BLOCK) + 1,)](
        grad.contiguous(),
        I_ref,
        I_hat,
        I_prime,
        D_mix,
        dI_hat,
        dI_prime,
        dD_mix,
        I_ref.numel(),
        D_mix.numel(),
        target,
        BLOCK,
        num_warps=8,
    )
    return dI_hat, dI_prime, dD_mix


def _empty_losses(like: Tensor) -> Tensor:
    return like.new_empty(3, dtype=torch.float32)


@losses.register_fake
def _(I_ref, I_hat, I_prime, D_mix, target):
    return _empty_losses(I_ref)


@losses_backward.register_fake
def _(grad, I_ref, I_hat, I_prime, D_mix, target):
    return torch.empty_like(I_hat), torch.empty_like(I_prime), torch.empty_like(D_mix)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.target = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> Any:
    dI_hat, dI_prime, dD_mix = losses_backward(grad, *ctx.saved_tensors, ctx.target)
    dI_ref = -(dI_hat + dI_prime).to(ctx.saved_tensors[0].dtype) if ctx.needs_input_grad[0] else None
    return dI_ref, dI_hat, dI_prime, dD_mix, None


losses.register_autograd(_backward, setup_context=_save)


@triton.jit
def _classification(logits_ptr, mask_ptr, lambdas, start, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """Of a block of logits: places, the logits, their targets, and `lambda_j / (N C)`, which is 0 behind the last."""
    i = start + tl.arange(0, BLOCK)
    candidate, sample, quadrant = i // (N * C), i // C % N, i % C
    inside = i < N * C * C
    x = tl.load(logits_ptr + i, mask=inside, other=0).to(tl.float32)
    own = inside & (candidate == quadrant)
    target = (tl.load(mask_ptr + sample * C + quadrant, mask=own, other=0) != 0).to(tl.float32)
    weight = tl.zeros((BLOCK,), tl.float32)
    for j in tl.static_range(C):
        weight = tl.where(inside & (candidate == j), lambdas[j] / (N * C), weight)
    return i, x, target, weight


@triton.jit
def classification_program(logits_ptr, mask_ptr, loss_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """L_cls of logits (C, N, C). One program."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N * C * C, BLOCK):
        _, x, target, weight = _classification(logits_ptr, mask_ptr, lambdas, start, N, C, BLOCK)
        total += weight * (tl.maximum(x, 0.0) - x * target + tl.log(1 + tl.exp(-tl.abs(x))))
    tl.store(loss_ptr, tl.sum(total))


@triton.jit
def classification_backward_program(
    grad_ptr, logits_ptr, mask_ptr, dlogits_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradient of a block of logits."""
    i, x, target, weight = _classification(logits_ptr, mask_ptr, lambdas, tl.program_id(0) * BLOCK, N, C, BLOCK)
    dlogits = tl.load(grad_ptr) * weight * (_sigmoid(x) - target)
    tl.store(dlogits_ptr + i, dlogits.to(dlogits_ptr.dtype.element_ty), mask=i < N * C * C)


@operation("classification_loss")
def classification_loss(logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """A float32 scalar; documented at the package's function of this name. Differentiable once."""
    C, N, _ = logits.shape
    loss = _empty_loss(logits)
    classification_program[(1,)](logits.contiguous(), mask.contiguous(), loss, tuple(lambdas), N, C, 256)
    return loss


@operation("classification_loss_backward")
def classification_loss_backward(grad: Tensor, logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """Gradient of the logits."""
    C, N, _ = logits.shape
    dlogits = _empty_logits(logits)
    classification_backward_program[(triton.cdiv(N * C * C, 256),)](
        grad, logits.contiguous(), mask.contiguous(), dlogits, tuple(lambdas), N, C, 256
    )
    return dlogits


def _empty_loss(logits: Tensor) -> Tensor:
    return logits.new_empty((), dtype=torch.float32)


def _empty_logits(logits: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@classification_loss.register_fake
def _(logits, mask, lambdas):
    return _empty_loss(logits)


@classification_loss_backward.register_fake
def _(grad, logits, mask, lambdas):
    return _empty_logits(logits)


def _save_logits(ctx: Any, inputs: tuple[Tensor, Tensor, list[float]], output: Tensor) -> None:
    logits, mask, ctx.lambdas = inputs
    ctx.save_for_backward(logits, mask)


def _classification_backward(ctx: Any, grad: Tensor) -> Any:
    return classification_loss_backward(grad, *ctx.saved_tensors, ctx.lambdas), None, None


classification_loss.register_autograd(_classification_backward, setup_context=_save_logits)
