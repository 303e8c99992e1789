"""Triton kernels of the loss head."""

import triton
import triton.language as tl


@triton.jit
def _rectified(x):
    """ReLU; NaN stays, of which a GPU's maximum would make 0."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def _cross_entropy(x, target):
    return _rectified(x) - x * target + tl.log(1 + tl.exp(-tl.abs(x)))


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
def backward(
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


@triton.jit
def classification(logits_ptr, mask_ptr, loss_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """L_cls of logits (C, N, C). One program."""
    tl.store(loss_ptr, _classification_loss(logits_ptr, mask_ptr, lambdas, N, C, BLOCK))


@triton.jit
def classification_backward(
    grad_ptr, logits_ptr, mask_ptr, dlogits_ptr, lambdas, N, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradient of a block of logits."""
    start = tl.program_id(0) * BLOCK
    _classification_gradient(tl.load(grad_ptr), logits_ptr, mask_ptr, dlogits_ptr, lambdas, start, N, C, BLOCK)


@triton.jit
def discrimination(D_ptr, loss_ptr, half, HINGE: tl.constexpr, BLOCK: tl.constexpr):
    """L_D of `half` logits of I_ref and as many of I_mix. One program."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, 2 * half, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(D_ptr + i, mask=i < 2 * half, other=0).to(tl.float32)
        margin = 1 + tl.where(i < half, -x, x)
        loss = _rectified(margin) if HINGE else _cross_entropy(x, tl.where(i < half, 1.0, 0.0))
        total += tl.where(i < 2 * half, loss, 0.0)
    tl.store(loss_ptr, tl.sum(total) / half)


@triton.jit
def discrimination_backward(grad_ptr, D_ptr, dD_ptr, half, HINGE: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient of a block of logits."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(D_ptr + i, mask=i < 2 * half, other=0).to(tl.float32)
    if HINGE:
        sign = tl.where(i < half, -1.0, 1.0)
        slope = tl.where(1 + sign * x > 0, sign, 0.0)
    else:
        slope = _cross_entropy_slope(x, tl.where(i < half, 1.0, 0.0))
    tl.store(dD_ptr + i, (tl.load(grad_ptr) / half * slope).to(dD_ptr.dtype.element_ty), mask=i < 2 * half)
