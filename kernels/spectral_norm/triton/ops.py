"""Spectral normalization of all weights of a network in two launches, on weights packed one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels._common.operation import by_kernels
from lorbms_fast.kernels.spectral_norm.fused import as_matrix, as_weight
from lorbms_fast.kernels.spectral_norm.triton import kernels

BLOCK_O, BLOCK_K = 32, 128


def spectral_norm_all(weights: Sequence[Tensor], us: Sequence[Tensor]) -> list[Tensor]:
    """Every W / sigma, u' and v constants in the backward; documented at the package's function of this name."""
    W_bar, _, _, _ = normalize(_packed(weights), _packed(us).detach(), _sizes(weights))
    parts = W_bar.split([weight.numel() for weight in weights])
    return [as_weight(part, weight) for part, weight in zip(parts, weights, strict=True)]


def next_us(weights: Sequence[Tensor], us: Sequence[Tensor]) -> list[Tensor]:
    """Every u' (1, O)."""
    packed = power_step(_packed(weights), _packed(us), _sizes(weights))
    return [u.view(1, -1) for u in packed.split([u.numel() for u in us])]


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """One after the other, channels_last ones as they lie: the order of a matrix's columns is no matter to sigma."""
    return torch.cat([as_matrix(tensor).flatten() for tensor in tensors])


def _sizes(weights: Sequence[Tensor]) -> list[int]:
    """O and K of each weight."""
    return [size for weight in weights for size in (weight.shape[0], weight[0].numel())]


@dataclass(frozen=True)
class _Plan:
    """Tiles of packed weights; tensors on the weights' device."""

    table: Tensor
    of_tile: Tensor
    """The weight of each tile."""
    tiles: int
    most_tiles: int
    """Of one weight, as a power of 2."""
    v_size: int
    sums_size: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.table, self.of_tile


@lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...], block_k: int, device: torch.device) -> _Plan:
    """Made, and copied to the device, once for a list of shapes: call once before a CUDA graph is captured."""
    O, K = sizes[::2], sizes[1::2]
    blocks = [triton.cdiv(k, block_k) for k in K]

    def begins(lengths: Sequence[int]) -> list[int]:
        return list(accumulate(lengths, initial=0))

    W_at, u_at, v_at, first = begins([o * k for o, k in zip(O, K, strict=True)]), begins(O), begins(K), begins(blocks)
    sums_at = begins([o * b for o, b in zip(O, blocks, strict=True)])
    rows = list(zip(O, K, W_at, u_at, v_at, sums_at, first, first[1:], strict=False))
    return _Plan(
        torch.tensor(rows, dtype=torch.int64, device=device),
        torch.tensor([i for i, b in enumerate(blocks) for _ in range(b)], dtype=torch.int32, device=device),
        tiles=first[-1], most_tiles=triton.next_power_of_2(max(blocks)), v_size=v_at[-1], sums_size=sums_at[-1],
    )  # fmt: skip


def _power_step(W: Tensor, u: Tensor, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
    """t, parts of |t|^2, and parts of W t."""
    t, norms, sums = (_float32(W, size) for size in (plan.v_size, plan.tiles, plan.sums_size))
    kernels.power_step[(plan.tiles,)](W, u, *plan.tensors, t, norms, sums, BLOCK_O, BLOCK_K)
    return t, norms, sums


@triton_op("spectral_norm")
def normalize(W: Tensor, u: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Divide packed weights by their sigma; `sizes` are O and K of each, a matrix (O, K).

    Returns `W / sigma`, packed as W; u' packed as u; every v (K,), packed; every sigma; the last three float32.
    """
    plan = _plan(tuple(sizes), BLOCK_K, W.device)
    t, norms, sums = _power_step(W, u, plan)
    W_bar, u_next, v, sigma = _empty_results(W, u, sizes)
    kernels.divide[(plan.tiles,)](
        W, *plan.tensors, norms, sums, t, W_bar, u_next, v, sigma, BLOCK_O, BLOCK_K, plan.most_tiles
    )
    return W_bar, u_next, v, sigma


@triton_op("spectral_norm_backward")
def backward(grad: Tensor, W_bar: Tensor, u_next: Tensor, v: Tensor, sigma: Tensor, sizes: list[int]) -> Tensor:
    """Gradient of the packed weights: `(g - <g, W_bar> u' v^T) / sigma`."""
    plan = _plan(tuple(sizes), BLOCK_K, grad.device)
    grad = grad.contiguous()
    inner, dW = _float32(grad, plan.tiles), torch.empty_like(W_bar)
    kernels.inner_products[(plan.tiles,)](grad, W_bar, *plan.tensors, inner, BLOCK_O, BLOCK_K)
    kernels.backward[(plan.tiles,)](grad, *plan.tensors, inner, u_next, v, sigma, dW, BLOCK_O, BLOCK_K, plan.most_tiles)
    return dW


@triton_op("spectral_norm_power_step")
def power_step(W: Tensor, u: Tensor, sizes: list[int]) -> Tensor:
    """u' of packed weights, packed as u. Arguments as of `normalize`."""
    plan = _plan(tuple(sizes), BLOCK_K, W.device)
    _, norms, sums = _power_step(W, u, plan)
    u_next = torch.empty_like(u)
    kernels.next_u[(plan.tiles,)](*plan.tensors, norms, sums, u_next, BLOCK_O, plan.most_tiles)
    return u_next


def _float32(like: Tensor, size: int) -> Tensor:
    return like.new_empty((size,), dtype=torch.float32)


@normalize.register_fake
def _empty_results(W: Tensor, u: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(W), _float32(u, len(u)), _float32(W, sum(sizes[1::2])), _float32(W, len(sizes) // 2)


@backward.register_fake
def _(grad, W_bar, u_next, v, sigma, sizes):
    return torch.empty_like(W_bar)


@power_step.register_fake
def _(W, u, sizes):
    return torch.empty_like(u)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, list[int]], output: tuple[Tensor, ...]) -> None:
    ctx.sizes = inputs[2]
    ctx.save_for_backward(*output)
    ctx.mark_non_differentiable(*output[1:3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _u: None, _v: None, grad_sigma: Tensor | None) -> Any:
    if grad is None and grad_sigma is None:
        return None, None, None
    W_bar, u_next, v, sigma = ctx.saved_tensors
    by_definition = partial(_defined_backward, grad, grad_sigma, W_bar, u_next, v, sigma, ctx.sizes)
    if grad is None or grad_sigma is not None:
        return by_definition(), None, None
    return by_kernels(lambda: backward(grad, W_bar, u_next, v, sigma, ctx.sizes), by_definition), None, None


def _defined_backward(
    grad: Tensor | None, grad_sigma: Tensor | None, W_bar: Tensor, u_next: Tensor, v: Tensor, sigma: Tensor,
    sizes: list[int],
) -> Tensor:  # fmt: skip
    """`backward` in operations of torch's, which can be differentiated: W_bar and sigma know how they depend on W."""
    O, K = sizes[::2], sizes[1::2]
    areas = [o * k for o, k in zip(O, K, strict=True)]
    zeros = torch.zeros_like(W_bar)
    of_weights = []
    for i, (g, W, u_i, v_i) in enumerate(
        zip(
            (zeros if grad is None else grad).split(areas), W_bar.split(areas), u_next.split(O), v.split(K), strict=True
        )
    ):
        along = torch.outer(u_i, v_i).flatten()
        dW = (g - (g * W).sum() * along) / sigma[i]
        of_weights.append((dW if grad_sigma is None else dW + grad_sigma[i] * along).to(W_bar.dtype))
    return torch.cat(of_weights)


normalize.register_autograd(_backward, setup_context=_save)
