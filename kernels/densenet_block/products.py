"""The 1x1 convolution of `ReLU(norm(x))` and its gradients: as one loop, or as products of some rows at a time.

Maps are columns of matrices (M, C). Nothing of what is normalized is kept. There is no autograd here.
"""

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from lorbms_fast.kernels.densenet_block import cpp, norms
from lorbms_fast.kernels.densenet_block.norms import Norm
from lorbms_fast.kernels.densenet_block.reference import Statistics

# Bytes of what a layer reads that each thread makes at once: about a core's own cache. With half of it a step takes as
# long in float32 and 2% longer in bfloat16, for more calls.
_CHUNK = 1 << 20


def form_for(matrix: Tensor) -> ModuleType:
    """Choose the form of norms: `cpp`, loops, or torch's operations."""
    return cpp if cpp.take(matrix) else norms


def convolution(form: ModuleType, x: Tensor, norm: Norm, W: Tensor, out: Tensor, of_out: Statistics | None) -> None:
    """Write `out = ReLU(norm(x)) W^T`, and its columns' statistics into `of_out`.

    Args:
        form: of norms that takes x, `cpp` or `norms`.
        x: (M, C).
        norm: of its columns.
        W: (B, C), in float32 or x's dtype, which it is rounded to.
        out: (M, B), without gaps.
        of_out: means and variances, (B,) each; None leaves them out.
    """
    if form is cpp and cpp.multiplies(x.dtype, len(W)):
        cpp.convolution(x, norm, W, out, of_out)
        return
    W = W.to(x.dtype)
    for rows, a in _chunks(x):
        form.norm_relu(x[rows], norm, a)
        torch.mm(a, W.t(), out=out[rows])
    if of_out is not None:
        form.statistics(out, *of_out)


def convolution_backward(
    form: ModuleType, grad: Tensor, x: Tensor, norm: Norm, W: Tensor, wanted: bool, sum_g: Tensor, sum_along: Tensor,
    add_to: Tensor,
) -> Tensor | None:  # fmt: skip
    """Return the gradient of W, if it is wanted, and add the rest as `norms.sums` does.

    Args:
        form: of norms that takes x, `cpp` or `norms`.
        grad: (M, B), of `convolution`'s result, without gaps.
        x: (M, C).
        norm: of its columns.
        W: (B, C), in float32 or x's dtype, which it is rounded to.
        wanted: whether its gradient is.
        sum_g: (C,).
        sum_along: (C,).
        add_to: (M, C).
    """
    if form is cpp and cpp.multiplies(x.dtype, len(W)):
        return cpp.convolution_backward(grad, x, norm, W, wanted, sum_g, sum_along, add_to)
    W, to_W = W.to(x.dtype), None
    for rows, a in _chunks(x):
        if wanted:
            form.norm_relu(x[rows], norm, a)
            to_W = _plus_product(to_W, grad[rows].t(), a)
        torch.mm(grad[rows], W, out=a)
        form.sums(a, x[rows], norm, sum_g, sum_along, add_to[rows])
    return to_W


def _chunks(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a matrix, some at a time, and a matrix of their shape that is used again for each."""
    count, width = matrix.shape
    most = count
    if matrix.is_cpu:
        most = min(count, max(256, torch.get_num_threads() * _CHUNK // (width * matrix.element_size())))
    space = matrix.new_empty(most, width)
    for begin in range(0, count, most):
        rows = slice(begin, min(begin + most, count))
        yield rows, space[: rows.stop - begin]


def _plus_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """`total + a b`, whose sum of several is of float32 where a and b have 16 bits."""
    if total is None:
        return a @ b
    exact = torch.promote_types(a.dtype, torch.float32)
    return total.addmm_(a, b) if a.dtype == exact else total.to(exact).add_(a @ b)
