"""Spectral normalisation of a list of weights with few dispatched operations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def power_steps(weights: Sequence[Tensor], us: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """One step of the power iteration for each weight: u' (O,), v (everything else, as `_matrix` has it) and sigma."""
    matrices = [_matrix(weight.detach()) for weight in weights]
    v = _normalise([torch.mv(W.T, u.detach().flatten()) for W, u in zip(matrices, us, strict=True)])
    W_v = [torch.mv(W, v_i) for W, v_i in zip(matrices, v, strict=True)]
    u_next = _normalise(W_v)
    sigma = [torch.dot(a, b) for a, b in zip(W_v, u_next, strict=True)]
    return u_next, v, sigma


def spectral_norm_all(weights: Sequence[Tensor], us: Sequence[Tensor]) -> list[Tensor]:
    """Every W / sigma, u' and v constants in the backward; documented at the package's function of this name."""
    u_next, v, sigma = power_steps(weights, us)
    return list(_Divide.apply(len(weights), *weights, *u_next, *v, *sigma))


class _Divide(torch.autograd.Function):
    """`W_bar = W / sigma` with `sigma = u'^T W v`, so that `dL/dW = (g - <g, W_bar> u' v^T) / sigma`."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, u, v, sigma = (tensors[i * count : (i + 1) * count] for i in range(4))
        W_bar = torch._foreach_mul(weights, [1 / s for s in sigma])
        ctx.save_for_backward(*W_bar, *u, *v, *sigma)
        ctx.count = count
        return tuple(W_bar)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        n = ctx.count
        W_bar, u, v, sigma = (ctx.saved_tensors[i * n : (i + 1) * n] for i in range(4))
        result = []
        for g, W, u_i, v_i, s in zip(grads, W_bar, u, v, sigma, strict=True):
            inner = torch.dot(_matrix(g).flatten(), _matrix(W).flatten())
            result.append(_restored(torch.addr(_matrix(g), u_i * -inner, v_i).div_(s), W))
        return None, *result, *([None] * 3 * n)


def _matrix(weight: Tensor) -> Tensor:
    """A weight (O, ...) as a matrix (O, everything else): kernels in the order of channels_last, which they lie in."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten(1)


def _restored(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_matrix` for a weight's shape."""
    if weight.dim() != 4:
        return matrix.view_as(weight)
    o, i, height, width = weight.shape
    return matrix.view(o, height, width, i).permute(0, 3, 1, 2)


def _normalise(vectors: list[Tensor]) -> list[Tensor]:
    norms = torch._foreach_norm(vectors)
    torch._foreach_add_(norms, 1e-12)
    return list(torch._foreach_div(vectors, norms))
