"""The dense block in two launches forward and two backward, as an operator torch.compile does not look into.

The triangular system of system.py, on channels_last maps and packed weights. Forward, with a norm: `activate` makes the
stack of activated maps of the block's input, `convolve` gives all layers what the input contributes, and of each image
its last program to finish substitutes forward, layer after layer. Backward: `solve_transposed` substitutes back, and
`gradients` turns the result into the gradients of the input and of all parameters. Where the activation is ReLU alone,
maps are rectified as they are read: there is no stack and nothing to activate, and `solve`, which substitutes, is a
launch of its own, as no launch before `convolve` could clear its counters.

One program per image leaves most of a GPU idle where images are large. There (`sizes.is_split`) a layer is a launch,
in which many programs share an image; with a norm the last of them makes the layer's activation, or takes its gradient
back.

What needs all that some programs have stored is thus done by the last of them (`kernels._last`) and not by a launch
that follows: nobody waits for anybody, totals are added in an order of their own, and results are the same every time.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.custom_op import input_precision, triton_op
from lorbms_fast.kernels._common.operation import by_kernels
from lorbms_fast.kernels.dense_block import reference
from lorbms_fast.kernels.dense_block.triton import kernels, sizes


def pack(blocks: Sequence[Sequence[Tensor]], dtype: torch.dtype) -> Sequence[Tensor]:
    """Each block's weights one after the other, each (map, row, column, channel): how channels_last parameters lie."""
    lengths = [sum(W_l.numel() for W_l in weights) for weights in blocks]
    packed = torch.cat([W_l.permute(0, 2, 3, 1).flatten() for weights in blocks for W_l in weights])
    return packed.to(dtype).split(lengths)


def unpack(w: Tensor, maps: int, layers: int, kernel_size: int) -> list[Tensor]:
    """A block's packed weights, which make so many new maps, as they were: views."""
    growth, k, C = maps // layers, kernel_size, in_channels(w, maps, layers, kernel_size)
    flat = w.split([growth * k * k * (C + growth * layer) for layer in range(layers)])
    return [of_layer.view(growth, k, k, -1).permute(0, 3, 1, 2) for of_layer in flat]


def in_channels(w: Tensor, maps: int, layers: int, kernel_size: int) -> int:
    """Count the maps that a block reads, whose packed weights make so many new ones."""
    return w.numel() // (maps * kernel_size * kernel_size) - maps // layers * (layers - 1) // 2


def maps(x: Tensor, w: Tensor, b: Tensor, layers: int, kernel_size: int, activation: str, eps: float) -> Tensor:
    """New maps (N, L * growth, H, W), channels_last, in the dtype of the packed weights."""
    y: Tensor = dense_block(x, w, b, layers, kernel_size, activation, eps)[0]
    return y


def activated(x: Tensor, w: Tensor, b: Tensor, layers: int, kernel_size: int, activation: str, eps: float) -> Tensor:
    """Activated stack (N, C + L * growth, H, W), channels_last, in the dtype of the packed weights."""
    y, stack, *_ = dense_block(x, w, b, layers, kernel_size, activation, eps)
    return torch.relu(torch.cat([x.to(y.dtype), y], 1)) if activation == "relu" else stack


@triton_op("dense_block")
def dense_block(
    x: Tensor, w: Tensor, b: Tensor, layers: int, kernel_size: int, activation: str, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New maps; with a norm also the activated stack, means and 1 / deviations, which are empty without.

    w are the layers' weights as `pack` gives them, in whose dtype products are computed, b their biases, one after the
    other; the activation is `relu`, or `instance_norm_relu` with its eps.
    """
    N, C, H, W = x.shape
    L, MAPS, NORM = layers, len(b), activation != "relu"
    G, STACK = MAPS // L, C + MAPS
    if G > sizes.WIDEST:
        raise NotImplementedError(f"layers of {G} maps: there are kernels for {sizes.WIDEST} at most")
    y, stack, mean, rstd = _results(x, w, b, layers, kernel_size, activation, eps)
    split = sizes.is_split(N, H * W, C, MAPS, NORM)
    arrived = x.new_empty((L if split else 1, N), dtype=torch.int32)
    if NORM:
        few = sizes.activating_block(C, H * W)
        kernels.activate[(N * triton.cdiv(C, few["BLOCK_C"]),)](
            x, x.stride(), stack, mean, rstd, arrived, arrived.numel(), H * W, C, eps, W=W, STACK=STACK, **few,
            num_warps=8 if few["BLOCK_M"] > 256 else 4,
        )  # fmt: skip
    maps = (y, stack, w, mean, rstd)
    arguments: dict[str, Any] = {"H": H, "W": W, "KERNEL": kernel_size, "C": C, "G": G, "MAPS": MAPS}
    arguments |= {"NORM": NORM, "SPLIT": split, "PRECISION": input_precision(w.dtype)}
    big, tile = sizes.convolving_block(H * W, MAPS, w.dtype), sizes.solving_tile(H * W, G, w.dtype, split, NORM)
    of_solve = sizes.warps_and_stages(tile["TILE_M"], w.dtype)
    of_solve |= sizes.registers(tile, of_solve["num_warps"], not (split and NORM)) | tile
    of_convolve = sizes.warps_and_stages(max(64, 2 * big["BLOCK_M"]), w.dtype)
    if NORM and not split:
        of_convolve |= sizes.registers(tile, of_convolve["num_warps"], True)
    kernels.convolve[N * triton.cdiv(H * W, big["BLOCK_M"]), triton.cdiv(MAPS, big["BLOCK_N"])](
        None if NORM else _channels_last(x), b, *maps, arrived, eps,
        **arguments, **big, **tile, **of_convolve,
    )  # fmt: skip
    if split:
        grid = N, triton.cdiv(H * W, tile["TILE_M"])
        for layer in range(1, L):
            kernels.solve[grid](*maps, arrived[layer], layer, layer + 1, eps, **arguments, **of_solve)
    elif not NORM:
        kernels.solve[N, 1](*maps, arrived, 0, L, eps, **arguments, **of_solve)
    return y, stack, mean, rstd


@dense_block.register_fake
def _results(
    x: Tensor, w: Tensor, b: Tensor, layers: int, kernel_size: int, activation: str, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    N, C, H, W = x.shape
    MAPS, STACK = len(b), C + len(b) if activation != "relu" else 0
    return (
        x.new_empty((N, H, W, MAPS), dtype=w.dtype).permute(0, 3, 1, 2),
        x.new_empty((N, H, W, STACK), dtype=w.dtype).permute(0, 3, 1, 2),
        x.new_empty((N, STACK), dtype=torch.float32),
        x.new_empty((N, STACK), dtype=torch.float32),
    )


@triton_op("dense_block_backward")
def dense_block_backward(
    x: Tensor, grad_y: Tensor | None, grad_stack: Tensor | None, w: Tensor, b: Tensor,
    y: Tensor, stack: Tensor, mean: Tensor, rstd: Tensor,
    layers: int, kernel_size: int, activation: str, needs_x: bool, needs_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of packed weights and of biases; empty where not needed."""
    N, C, H, W = x.shape
    L, MAPS, k, NORM = layers, len(b), kernel_size, activation != "relu"
    G, STACK = MAPS // L, C + MAPS
    grad_x, grad_w, grad_b = _gradients(
        x, grad_y, grad_stack, w, b, y, stack, mean, rstd, layers, kernel_size, activation, needs_x, needs_parameters
    )
    grad_y = None if grad_y is None else _channels_last(grad_y)
    grad_stack = None if grad_stack is None else _channels_last(grad_stack)

    blocks = sizes.gradients_blocks(H * W, C, MAPS, NORM, y.dtype)
    columns = triton.cdiv(C, blocks["BLOCK_X"])
    of_x = N * triton.cdiv(H * W, blocks["BLOCK_M"]) * columns if needs_x else 0
    of_parameters, parts, part, w_parts, b_parts = 0, 0, 0, None, None
    if needs_parameters:
        of_parameters, parts, part = sizes.parameters_division(N * H * W, STACK, MAPS, k * k, blocks)
        if parts > 1:
            w_parts, b_parts = (x.new_empty((parts, len(total)), dtype=torch.float32) for total in (w, b))

    arrived = x.new_empty(N * L + N * columns + of_parameters, dtype=torch.int32)
    g = torch.empty_like(y)
    arguments: dict[str, Any] = {"H": H, "W": W, "KERNEL": k, "C": C, "G": G, "MAPS": MAPS}
    arguments["PRECISION"] = input_precision(w.dtype)
    split = sizes.is_split(N, H * W, C, MAPS, NORM)
    tile = sizes.solving_tile(H * W, G, y.dtype, split, NORM)
    of_solve = sizes.warps_and_stages(tile["TILE_M"], y.dtype)
    maps = (grad_y, grad_stack, g, y, w, mean, rstd)
    # The last layer reads no other's gradients: with a norm, which needs whole images, one program each does it.
    of_layers = [(layer, layer + 1, not (NORM and layer == L - 1)) for layer in reversed(range(L))]
    for i, (first, last, shared) in enumerate(of_layers if split else [(0, L, False)]):
        kernels.solve_transposed[N, triton.cdiv(H * W, tile["TILE_M"]) if shared else 1](
            *maps, arrived, 0 if i else len(arrived), N * first, first, last,
            **arguments, NORM=NORM, SPLIT=shared,
            **tile, **of_solve, **sizes.registers(tile, of_solve["num_warps"], not shared),
        )  # fmt: skip
    if of_x + parts * of_parameters:
        kernels.gradients[(of_x + parts * of_parameters,)](
            g, x if NORM else _channels_last(x), x.stride() if NORM else None, y, stack if NORM else None, mean, rstd,
            w, grad_stack, x.new_empty((N, H, W, C), dtype=y.dtype) if needs_x and NORM else None,
            grad_x, grad_x.stride() if needs_x and NORM else None, w_parts, b_parts, grad_w, grad_b, arrived[N * L :],
            N, parts, part, len(w), of_x, of_parameters,
            **arguments, **blocks, num_warps=8, num_stages=3 if y.dtype.itemsize == 2 else 2,
        )  # fmt: skip
    return grad_x, grad_w, grad_b


@dense_block_backward.register_fake
def _gradients(
    x: Tensor, grad_y: Tensor | None, grad_stack: Tensor | None, w: Tensor, b: Tensor,
    y: Tensor, stack: Tensor, mean: Tensor, rstd: Tensor,
    layers: int, kernel_size: int, activation: str, needs_x: bool, needs_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grad_x = torch.empty_like(x) if needs_x else x.new_empty(0)
    if needs_x and activation == "relu":
        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    of_w, of_b = (w, b) if needs_parameters else (w[:0], b[:0])
    return grad_x, torch.empty_like(of_w), torch.empty_like(of_b)


def _defined(
    layers: int, kernel_size: int, activation: str, eps: float, x: Tensor, w: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """New maps and activated stack, by the definition."""
    activate = reference.activation_of(activation != "relu", eps)
    weights, biases = unpack(w, len(b), layers, kernel_size), b.to(w.dtype).split(len(b) // layers)
    stack = reference.dense_block(x.to(w.dtype), weights, biases, activate)
    return stack[:, x.shape[1] :], activate(stack)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, w, b, *ctx.how, ctx.eps = inputs
    ctx.save_for_backward(x, w, b, *output)
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_stack: Tensor | None, *_: Any) -> Any:
    if grad_y is None and grad_stack is None:
        return (None,) * 7
    x, *saved = ctx.saved_tensors
    needs_x, needs_w, needs_b, *_ = ctx.needs_input_grad
    grad_stack = grad_stack if ctx.how[2] != "relu" else None

    def by_definition() -> Any:
        options = (*ctx.how, ctx.eps)
        definition = partial(_defined, *options)
        return double_backward.by_definition(definition, (x, *saved[:2]), (grad_y, grad_stack))

    def gradients() -> Any:
        found = dense_block_backward(x, grad_y, grad_stack, *saved, *ctx.how, needs_x, needs_w or needs_b)
        return [grad if need else None for grad, need in zip(found, (needs_x, needs_w, needs_b), strict=True)]

    return *by_kernels(gradients, by_definition), *[None] * 4


dense_block.register_autograd(_backward, setup_context=_setup)


def _channels_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
