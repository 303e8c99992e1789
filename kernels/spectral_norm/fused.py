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
    """`W_bar = W / sigma` with `sigma = u'^T W v`, so that `dL/dW = (g - <g, W> / sigma u' v^T) / sigma`.

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
        n, saved = ctx.count, ctx.saved_tensors  # once: a checkpoint unpacks them no second time
        weights, u, v, sigma = (saved[i * n : (i + 1) * n] for i in range(4))
        if double_backward.asked_for(*grads):
            defined = [
                double_backward.by_definition(partial(_divided, u_i, v_i), (W,), g)[0]
                for g, W, u_i, v_i in zip(grads, weights, u, v, strict=True)
            ]
            return None, *defined, *([None] * 3 * n)
        g = [_matrix(grad, W) for grad, W in zip(grads, weights, strict=True)]
        inner = [torch.dot(g_i.flatten(), _matrix(W).flatten()) for g_i, W in zip(g, weights, strict=True)]
        u_scaled = torch._foreach_mul(u, torch._foreach_div(inner, sigma))
        result = [torch.addr(g_i, u_i, v_i, alpha=-1) for g_i, u_i, v_i in zip(g, u_scaled, v, strict=True)]
        torch._foreach_div_(result, sigma)
        return None, *(_restored(matrix, W) for matrix, W in zip(result, weights, strict=True)), *([None] * 3 * n)


def _divided(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """W / sigma, by the definition."""
    return weight / torch.dot(u, torch.mv(_matrix(weight), v))


def _matrix(weight: Tensor, like: Tensor | None = None) -> Tensor:
    """A weight (O, ...) as a matrix (O, everything else), columns in the order in which it, or another one, lies."""
    return (weight.movedim(1, -1) if _channels_last(weight if like is None else like) else weight).flatten(1)


def _restored(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_matrix` for a weight's shape and order."""
    if not _channels_last(weight):
        return matrix.view(weight.shape)
    return matrix.view(len(weight), *weight.shape[2:], -1).movedim(-1, 1)


def _channels_last(weight: Tensor) -> bool:
    return weight.dim() > 2 and not weight.is_contiguous() and weight.movedim(1, -1).is_contiguous()


def _normalize(vectors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """`a / (|a| + 1e-12)` and `|a|` of every vector a."""
    norms = list(torch._foreach_norm(vectors))
    return list(torch._foreach_div(vectors, torch._foreach_add(norms, EPS))), norms
