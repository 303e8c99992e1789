"""Spectral normalization of a list of weights with few dispatched operations."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward

EPS = 1e-12


def power_steps(weights: Sequence[Tensor], us: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """One step of the power iteration for each weight: u' (O,), v (everything else, as `_matrix` has it) and sigma."""
    matrices = [_matrix(weight.detach()) for weight in weights]
    v, _ = _normalize([torch.mv(W.T, u.detach().flatten()) for W, u in zip(matrices, us, strict=True)])
    u_next, norms = _normalize([torch.mv(W, v_i) for W, v_i in zip(matrices, v, strict=True)])
    # sigma = u' . W v with u' = W v / (|W v| + 1e-12), which is |W v|^2 / (|W v| + 1e-12).
    return u_next, v, list(torch._foreach_div(torch._foreach_mul(norms, norms), torch._foreach_add(norms, EPS)))


def spectral_norm_all(weights: Sequence[Tensor], us: Sequence[Tensor]) -> list[Tensor]:
    """Every W / sigma, u' and v constants in the backward; documented at the package's function of this name."""
    u_next, v, sigma = power_steps(weights, us)
    return divide(weights, u_next, v, sigma)


def divide(
    weights: Sequence[Tensor], u: Sequence[Tensor], v: Sequence[Tensor], sigma: Sequence[Tensor]
) -> list[Tensor]:
    """Every W / sigma where `sigma = u^T W v`, u and v constants in the backward."""
    return list(_Divide.apply(len(weights), *weights, *u, *v, *sigma))


class _Divide(torch.autograd.Function):
    """`W_bar = W / sigma` with `sigma = u'^T W v`, so that `dL/dW = g / sigma - <g, W> / sigma^2 u' v^T`.

    The weights are kept, which are there anyway, and no copy of them.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, u, v, sigma = (tensors[i * count : (i + 1) * count] for i in range(4))
        ctx.save_for_backward(*weights, *u, *v, *sigma)
        ctx.count = count
        return tuple(torch._foreach_div(weights, sigma))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        n = ctx.count
        weights, u, v, sigma = (ctx.saved_tensors[i * n : (i + 1) * n] for i in range(4))
        if double_backward.asked_for():
            defined = [
                double_backward.by_definition(partial(_divided, u_i, v_i), (W,), g)[0]
                for g, W, u_i, v_i in zip(grads, weights, u, v, strict=True)
            ]
            return None, *defined, *([None] * 3 * n)
        inner = [torch.dot(_matrix(g).flatten(), _matrix(W).flatten()) for g, W in zip(grads, weights, strict=True)]
        u_scaled = torch._foreach_mul(u, torch._foreach_div(inner, torch._foreach_mul(sigma, sigma)))
        scaled = torch._foreach_div(grads, sigma)
        result = [
            _restored(torch.addr(_matrix(g), u_i, v_i, alpha=-1), W)
            for g, u_i, v_i, W in zip(scaled, u_scaled, v, weights, strict=True)
        ]
        return None, *result, *([None] * 3 * n)


def _divided(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """W / sigma, by the definition."""
    return weight / torch.dot(u, torch.mv(_matrix(weight), v))


def _matrix(weight: Tensor) -> Tensor:
    """A weight (O, ...) as a matrix (O, everything else): kernels in the order of channels_last, which they lie in."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten(1)


def _restored(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_matrix` for a weight's shape."""
    if weight.dim() != 4:
        return matrix.view_as(weight)
    o, i, height, width = weight.shape
    return matrix.view(o, height, width, i).permute(0, 3, 1, 2)


def _normalize(vectors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """`a / (|a| + 1e-12)` and `|a|` of every vector a."""
    norms = list(torch._foreach_norm(vectors))
    return list(torch._foreach_div(vectors, torch._foreach_add(norms, EPS))), norms
