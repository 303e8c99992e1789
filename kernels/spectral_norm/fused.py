"""Spectral normalization of a list of weights: C++ loops over all of them if there is a compiler, else torch's.

A weight (O, ...) is read as the matrix (O, K) that lies in memory: the order of its columns is no matter to sigma.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.of_torch import soon_applied
from lorbms_fast.kernels.spectral_norm import cpp

EPS = 1e-12


class Vectors(NamedTuple):
    """What the iteration found for several weights."""

    u: Tensor
    """Each weight's (O,), one after the other."""
    v: Tensor
    """Each weight's (K,), one after the other, as columns lie in memory."""
    sigma: Tensor
    """One a weight, `u^T W v`."""

    def each(self, weights: Sequence[Tensor]) -> list["Vectors"]:
        """Those of each weight."""
        us, vs = self.u.split([len(W) for W in weights]), self.v.split([W.numel() // len(W) for W in weights])
        return list(map(Vectors, us, vs, self.sigma.split(1)))


@torch.no_grad()
def power_iteration(
    weights: Sequence[Tensor], first: Sequence[Tensor], u_first: bool = True, iterations: int = 1, eps: float = EPS,
    added: bool = True,
) -> Vectors:  # fmt: skip
    """Iterate for each weight: `v = normalize(W^T u)` and `u = normalize(W v)`, or v before u.

    Args:
        weights: that lie as matrices, contiguous or channels_last.
        first: the vectors that are read, u or, as columns lie in memory, v.
        u_first: which of them.
        iterations: how many, one at least.
        eps: of `normalize`.
        added: whether it divides by `|a| + eps`, or by the larger of the two.
    """
    if cpp.take(weights, first):
        return Vectors(*cpp.power_iteration(list(weights), list(first), u_first, iterations, eps, added))
    with no_autocast(weights[0]):  # on CUDA it would lower products with a vector
        matrices = [as_matrix(W) for W in weights]
        of_side = {u_first: [a.flatten() for a in first]}
        for half in range(2 * iterations):
            is_u = u_first == (half % 2 == 0)
            products = [torch.mv(W.T if is_u else W, a) for W, a in zip(matrices, of_side[is_u], strict=True)]
            norms = torch._foreach_norm(products)
            divisors = torch._foreach_add(norms, eps) if added else torch._foreach_clamp_min(norms, eps)
            found = torch._foreach_div(products, divisors)
            of_side[not is_u] = [a.to(kept.dtype) for a, kept in zip(found, first, strict=True)]
        # sigma = a' . a with a' = a / divisor, of the last product a.
        sigma = torch.stack(torch._foreach_div(torch._foreach_mul(norms, norms), divisors))
        return Vectors(torch.cat(of_side[True]), torch.cat(of_side[False]), sigma)


def spectral_norm_all(weights: Sequence[Tensor], us: Sequence[Tensor]) -> list[Tensor]:
    """Every W / sigma, u' and v constants in the backward; documented at the package's function of this name."""
    return divide(weights, power_iteration(weights, us))


def divide(weights: Sequence[Tensor], vectors: Vectors) -> list[Tensor]:
    """Every W / sigma where `sigma = u^T W v`, u and v constants in the backward."""
    return list(_apply(*vectors, *weights))


class _Divide(torch.autograd.Function):
    """`W_bar = W / sigma` with `sigma = u'^T W v`, so that `dL/dW = (g - <g, W> / sigma u' v^T) / sigma`.

    The weights are kept, which are there anyway, and no copy of them.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, sigma: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(u, v, sigma, *weights)
        ctx.strides = [W.stride() for W in weights]
        if cpp.take(weights, (u, v, sigma)):
            return tuple(cpp.divide(list(weights), u, v, sigma))
        return tuple(torch._foreach_div(weights, list(sigma.unbind())))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        u, v, sigma, *weights = ctx.saved_tensors
        # v is in the order of the columns, which hooks on saved tensors may have changed: `save_on_cpu` can.
        with torch.enable_grad():  # a copy depends on its weight
            weights = [_lying(W, strides) for W, strides in zip(weights, ctx.strides, strict=True)]
        vectors = Vectors(u, v, sigma)
        if double_backward.asked_for(*grads):
            defined = [
                double_backward.by_definition(partial(_divided, of_weight), (W,), g)[0]
                for g, W, of_weight in zip(grads, weights, vectors.each(weights), strict=True)
            ]
            return None, None, None, *defined
        if cpp.take(weights, (*vectors, *grads)):
            return None, None, None, *cpp.divide_backward(list(grads), weights, *vectors)
        return None, None, None, *_through_division(grads, weights, vectors)


_apply = soon_applied(_Divide)


def _lying(weight: Tensor, strides: tuple[int, ...]) -> Tensor:
    return weight if weight.stride() == strides else weight.new_empty_strided(weight.shape, strides).copy_(weight)


def _through_division(grads: Sequence[Tensor], weights: Sequence[Tensor], vectors: Vectors) -> list[Tensor]:
    us, vs, sigmas = zip(*vectors.each(weights), strict=True)
    g = [as_matrix(grad, W) for grad, W in zip(grads, weights, strict=True)]
    inner = [torch.dot(g_i.flatten(), as_matrix(W).flatten()) for g_i, W in zip(g, weights, strict=True)]
    u_scaled = torch._foreach_mul(us, torch._foreach_div(inner, sigmas))
    with no_autocast(weights[0]):
        result = [torch.addr(g_i, u_i, v_i, alpha=-1) for g_i, u_i, v_i in zip(g, u_scaled, vs, strict=True)]
    torch._foreach_div_(result, sigmas)
    return [as_weight(matrix, W) for matrix, W in zip(result, weights, strict=True)]


def _divided(vectors: Vectors, weight: Tensor) -> Tensor:
    """W / sigma, by the definition."""
    return weight / torch.dot(vectors.u, torch.mv(as_matrix(weight), vectors.v))


def as_matrix(weight: Tensor, like: Tensor | None = None) -> Tensor:
    """A weight (O, ...) as a matrix (O, everything else), columns in the order in which it, or another one, lies."""
    return (weight.movedim(1, -1) if _channels_last(weight if like is None else like) else weight).flatten(1)


def as_weight(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `as_matrix` for a weight's shape and order: a view."""
    if not _channels_last(weight):
        return matrix.view(weight.shape)
    return matrix.view(len(weight), *weight.shape[2:], -1).movedim(-1, 1)


def _channels_last(weight: Tensor) -> bool:
    return weight.dim() > 2 and not weight.is_contiguous() and weight.movedim(1, -1).is_contiguous()
