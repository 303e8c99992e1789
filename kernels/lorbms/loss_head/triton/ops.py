"""The loss head in Triton: images are read once forward and once backward, nothing else is written but gradients."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.loss_head.definition import Gan, Losses
from lorbms_fast.kernels.operation import operation

BLOCK = 4096
FEW = 256
"""Of logits, at a time."""
REGISTERS = 64
"""The gradients' program may have: left to itself, the compiler spills one to fit more programs on a multiprocessor."""


@triton.jit
def _cross_entropy(x, target):
    return tl.maximum(x, 0.0) - x * target + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def _cross_entropy_slope(x, target):
    """`sigmoid(x) - target`, without an exponential that overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1 + e) - target


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _sum_of_deceptions(D_ptr, size, HINGE: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(D_ptr + i, mask=i < size, other=0).to(tl.float32)
        total += tl.where(i < size, -x if HINGE else _cross_entropy(x, 1.0), 0.0)
    return tl.sum(total)


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
def _classification_loss(logits_ptr, mask_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N * C * C, BLOCK):
        _, x, target, weight = _classification(logits_ptr, mask_ptr, lambdas, start, N, C, BLOCK)
        total += weight * _cross_entropy(x, target)
    return tl.sum(total)


@triton.jit
def _classification_gradient(
    grad, logits_ptr, mask_ptr, dlogits_ptr, lambdas, start, N, C: tl.constexpr, BLOCK: tl.constexpr
):
    i, x, target, weight = _classification(logits_ptr, mask_ptr, lambdas, start, N, C, BLOCK)
    dlogits = grad * weight * _cross_entropy_slope(x, target)
    tl.store(dlogits_ptr + i, dlogits.to(dlogits_ptr.dtype.element_ty), mask=i < N * C * C)


@triton.jit
def partial_losses(
    I_ref_ptr, I_hat_ptr, I_prime_ptr, D_ptr, logits_ptr, mask_ptr, partial_ptr, pixels, patches, lambdas, N,
    C: tl.constexpr, HINGE: tl.constexpr, BLOCK: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Sums of both differences over a block of pixels, (2, blocks); behind them, by the last program, L_adv, L_cls."""
    blocks = tl.num_programs(0) - 1
    if tl.program_id(0) == blocks:
        tl.store(partial_ptr + 2 * blocks, _sum_of_deceptions(D_ptr, patches, HINGE, FEW) / patches)
        tl.store(partial_ptr + 2 * blocks + 1, _classification_loss(logits_ptr, mask_ptr, lambdas, N, C, FEW))
    else:
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        I_ref = tl.load(I_ref_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_hat = tl.load(I_hat_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_prime = tl.load(I_prime_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.abs(I_ref - I_hat)))
        tl.store(partial_ptr + blocks + tl.program_id(0), tl.sum(tl.abs(I_ref - I_prime)))


@triton.jit
def _sum(ptr, size, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(ptr + i, mask=i < size, other=0)
    return tl.sum(total)


@triton.jit
def add_partial_losses(partial_ptr, L_G_ptr, parts_ptr, blocks, pixels, weights, BLOCK: tl.constexpr):
    """(2, blocks) sums, L_adv and L_cls -> L_G and its four parts. One program."""
    L_rec_hat = _sum(partial_ptr, blocks, BLOCK) / pixels
    L_rec_prime = _sum(partial_ptr + blocks, blocks, BLOCK) / pixels
    L_adv = tl.load(partial_ptr + 2 * blocks)
    L_cls = tl.load(partial_ptr + 2 * blocks + 1)
    tl.store(parts_ptr, L_rec_hat)
    tl.store(parts_ptr + 1, L_rec_prime)
    tl.store(parts_ptr + 2, L_adv)
    tl.store(parts_ptr + 3, L_cls)
    tl.store(L_G_ptr, weights[0] * (L_rec_hat + L_rec_prime) + weights[1] * L_adv + weights[2] * L_cls)


@triton.jit
def _slope(grad_ptr, grad_parts_ptr, weight, part: tl.constexpr):
    """Derivative by a part, which counts in L_G and alone; None for what has no gradient."""
    slope = 0.0
    if grad_ptr is not None:
        slope += weight * tl.load(grad_ptr)
    if grad_parts_ptr is not None:
        slope += tl.load(grad_parts_ptr + part)
    return slope


@triton.jit
def backward_program(
    grad_ptr, grad_parts_ptr, I_ref_ptr, I_hat_ptr, I_prime_ptr, D_ptr, logits_ptr, mask_ptr,
    dI_hat_ptr, dI_prime_ptr, dD_ptr, dlogits_ptr, pixels, patches, weights, lambdas, N,
    C: tl.constexpr, HINGE: tl.constexpr, BLOCK: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of pixels of both reconstructions; by the last program, of all logits."""
    if tl.program_id(0) == tl.num_programs(0) - 1:
        scale = _slope(grad_ptr, grad_parts_ptr, weights[1], 2) / patches
        for start in range(0, patches, FEW):
            i = start + tl.arange(0, FEW)
            x = tl.load(D_ptr + i, mask=i < patches, other=0).to(tl.float32)
            dD = scale * (x * 0 - 1 if HINGE else _cross_entropy_slope(x, 1.0))
            tl.store(dD_ptr + i, dD.to(dD_ptr.dtype.element_ty), mask=i < patches)
        grad = _slope(grad_ptr, grad_parts_ptr, weights[2], 3)
        for start in range(0, N * C * C, FEW):
            _classification_gradient(grad, logits_ptr, mask_ptr, dlogits_ptr, lambdas, start, N, C, FEW)
    else:
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        I_ref = tl.load(I_ref_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        I_hat = tl.load(I_hat_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        dI_hat = _sign(I_hat - I_ref) * (_slope(grad_ptr, grad_parts_ptr, weights[0], 0) / pixels)
        tl.store(dI_hat_ptr + i, dI_hat.to(dI_hat_ptr.dtype.element_ty), mask=i < pixels)
        I_prime = tl.load(I_prime_ptr + i, mask=i < pixels, other=0).to(tl.float32)
        dI_prime = _sign(I_prime - I_ref) * (_slope(grad_ptr, grad_parts_ptr, weights[0], 1) / pixels)
        tl.store(dI_prime_ptr + i, dI_prime.to(dI_prime_ptr.dtype.element_ty), mask=i < pixels)


def loss_head(
    I_ref: Tensor,
    I_hat: Tensor,
    I_prime: Tensor,
    D_mix: Tensor,
    logits: Tensor,
    mask: Tensor,
    weights: tuple[float, float, float],
    lambdas: Sequence[float],
    gan: Gan,
) -> Losses:
    """Five float32 scalars; documented at the package's function of this name. Differentiable once."""
    channels_last = I_hat.is_contiguous(memory_format=torch.channels_last) if I_hat.dim() == 4 else False
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = (image.contiguous(memory_format=layout) for image in (I_ref, I_hat, I_prime))
    others = (tensor.contiguous() for tensor in (D_mix, logits, mask))
    L_G, parts = losses(*images, *others, list(weights), list(lambdas), gan)
    L_rec_hat, L_rec_prime, L_adv, L_cls = parts.unbind()
    return L_G, L_rec_hat, L_rec_prime, L_adv, L_cls


@operation("loss_head")
def losses(
    I_ref: Tensor,
    I_hat: Tensor,
    I_prime: Tensor,
    D_mix: Tensor,
    logits: Tensor,
    mask: Tensor,
    weights: list[float],
    lambdas: list[float],
    gan: str,
) -> tuple[Tensor, Tensor]:
    """L_G and its parts, () and (4,), of three dense image batches in one memory layout and contiguous logits."""
    if I_ref.numel() >= 2**31:
        raise ValueError(f"{tuple(I_ref.shape)}: 2^31 values or more are not supported")
    C, N, _ = logits.shape
    blocks = triton.cdiv(I_ref.numel(), BLOCK)
    partial = I_ref.new_empty(2 * blocks + 2, dtype=torch.float32)
    L_G, parts = _empty_losses(I_ref)
    partial_losses[(blocks + 1,)](
        I_ref, I_hat, I_prime, D_mix, logits, mask, partial, I_ref.numel(), D_mix.numel(), tuple(lambdas), N,
        C, gan == "hinge", BLOCK, FEW, num_warps=8,
    )  # fmt: skip
    add_partial_losses[(1,)](partial, L_G, parts, blocks, I_ref.numel(), tuple(weights), 256)
    return L_G, parts


@operation("loss_head_backward")
def losses_backward(
    I_ref: Tensor,
    I_hat: Tensor,
    I_prime: Tensor,
    D_mix: Tensor,
    logits: Tensor,
    mask: Tensor,
    grad: Tensor | None,
    grad_parts: Tensor | None,
    weights: list[float],
    lambdas: list[float],
    gan: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of I_hat, I_prime, D_mix and the classifier's logits."""
    C, N, _ = logits.shape
    gradients = _empty_gradients(I_hat, I_prime, D_mix, logits)
    grad_parts = None if grad_parts is None else grad_parts.contiguous()
    backward_program[(triton.cdiv(I_ref.numel(), BLOCK) + 1,)](
        grad, grad_parts, I_ref, I_hat, I_prime, D_mix, logits, mask, *gradients, I_ref.numel(), D_mix.numel(),
        tuple(weights), tuple(lambdas), N, C, gan == "hinge", BLOCK, FEW, num_warps=8, maxnreg=REGISTERS,
    )  # fmt: skip
    return gradients


def _empty_losses(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_empty((), dtype=torch.float32), like.new_empty(4, dtype=torch.float32)


def _empty_gradients(
    I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(I_hat), torch.empty_like(I_prime), torch.empty_like(D_mix), torch.empty_like(logits)


@losses.register_fake
def _(I_ref, I_hat, I_prime, D_mix, logits, mask, weights, lambdas, gan):
    return _empty_losses(I_ref)


@losses_backward.register_fake
def _(I_ref, I_hat, I_prime, D_mix, logits, mask, grad, grad_parts, weights, lambdas, gan):
    return _empty_gradients(I_hat, I_prime, D_mix, logits)


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


@triton.jit
def classification_program(logits_ptr, mask_ptr, loss_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """L_cls of logits (C, N, C). One program."""
    tl.store(loss_ptr, _classification_loss(logits_ptr, mask_ptr, lambdas, N, C, BLOCK))


@triton.jit
def classification_backward_program(
    grad_ptr, logits_ptr, mask_ptr, dlogits_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradient of a block of logits."""
    start = tl.program_id(0) * BLOCK
    _classification_gradient(tl.load(grad_ptr), logits_ptr, mask_ptr, dlogits_ptr, lambdas, start, N, C, BLOCK)


@operation("classification_loss")
def classification_loss(logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """A float32 scalar; documented at the package's function of this name. Differentiable once."""
    C, N, _ = logits.shape
    loss = _empty_loss(logits)
    classification_program[(1,)](logits.contiguous(), mask.contiguous(), loss, tuple(lambdas), N, C, FEW)
    return loss


@operation("classification_loss_backward")
def classification_loss_backward(grad: Tensor, logits: Tensor, mask: Tensor, lambdas: list[float]) -> Tensor:
    """Gradient of the logits."""
    C, N, _ = logits.shape
    dlogits = _empty_logits(logits)
    classification_backward_program[(triton.cdiv(N * C * C, FEW),)](
        grad, logits.contiguous(), mask.contiguous(), dlogits, tuple(lambdas), N, C, FEW
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


@triton.jit
def discrimination_program(D_ptr, loss_ptr, half, HINGE: tl.constexpr, BLOCK: tl.constexpr):
    """L_D of `half` logits of I_ref and as many of I_mix. One program."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, 2 * half, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(D_ptr + i, mask=i < 2 * half, other=0).to(tl.float32)
        if HINGE:
            loss = tl.maximum(1 + tl.where(i < half, -x, x), 0.0)
        else:
            loss = _cross_entropy(x, tl.where(i < half, 1.0, 0.0))
        total += tl.where(i < 2 * half, loss, 0.0)
    tl.store(loss_ptr, tl.sum(total) / half)


@triton.jit
def discrimination_backward_program(grad_ptr, D_ptr, dD_ptr, half, HINGE: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient of a block of logits."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(D_ptr + i, mask=i < 2 * half, other=0).to(tl.float32)
    if HINGE:
        sign = tl.where(i < half, -1.0, 1.0)
        slope = tl.where(1 + sign * x > 0, sign, 0.0)
    else:
        slope = _cross_entropy_slope(x, tl.where(i < half, 1.0, 0.0))
    tl.store(dD_ptr + i, (tl.load(grad_ptr) / half * slope).to(dD_ptr.dtype.element_ty), mask=i < 2 * half)


@operation("discrimination_loss")
def discrimination_loss(D: Tensor, gan: str) -> Tensor:
    """A float32 scalar; documented at the package's function of this name. Differentiable once."""
    loss = _empty_loss(D)
    discrimination_program[(1,)](D.contiguous(), loss, D.numel() // 2, gan == "hinge", FEW)
    return loss


@operation("discrimination_loss_backward")
def discrimination_loss_backward(grad: Tensor, D: Tensor, gan: str) -> Tensor:
    """Gradient of the logits."""
    dD = _empty_logits(D)
    discrimination_backward_program[(triton.cdiv(D.numel(), FEW),)](
        grad, D.contiguous(), dD, D.numel() // 2, gan == "hinge", FEW
    )
    return dD


@discrimination_loss.register_fake
def _(D, gan):
    return _empty_loss(D)


@discrimination_loss_backward.register_fake
def _(grad, D, gan):
    return _empty_logits(D)


def _save_discrimination(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    D, ctx.gan = inputs
    ctx.save_for_backward(D)


def _discrimination_backward(ctx: Any, grad: Tensor) -> Any:
    return discrimination_loss_backward(grad, *ctx.saved_tensors, ctx.gan), None


discrimination_loss.register_autograd(_discrimination_backward, setup_context=_save_discrimination)
