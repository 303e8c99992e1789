"""The dense block in three launches forward and five backward, as an operator torch.compile does not look into.

The triangular system of fused.py, on channels_last maps. Forward: `prepare` activates the block's input into the stack
of activated maps and packs the weights, `convolve` gives all layers what the input contributes, `solve` substitutes
forward, layer after layer, one program per image. Backward: `solve_transposed` substitutes back, `convolve` turns the
result into the gradient of the input's activation, `activate_backward` into that of the input, `weight_gradient` and
`unpack` make the gradients of all parameters.

One program per image leaves most of a GPU idle where images are large. There (`_split`) a layer is a launch of its
own, or two with a norm, in which many programs share an image.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels.autocast import product_dtype
from lorbms_fast.kernels.dense_block.triton import programs
from lorbms_fast.kernels.operation import operation

# A tile has at most this many positions. An image with more than `_ON_ONE_SM` of them is split, unless there are so
# many images that they fill a large GPU twice. From counting a program's steps (bench/STATIC.md), not measured.
_TILE = 256
_ON_ONE_SM = 1024
_MANY = 264


def maps_and_activated(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str, eps: float
) -> tuple[Tensor, Tensor]:
    """New maps (N, L * growth, H, W) and activated stack (N, C + L * growth, H, W), both channels_last.

    Under autocast, both have autocast's dtype; parameters and their gradients keep theirs.
    """
    y, stack, *_ = dense_block(x, weights, biases, activation, eps, product_dtype(x))
    return y, stack


@operation("dense_block")
def dense_block(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """New maps, activated stack, and what the backward needs: means, 1 / deviations, packed weights."""
    N, C, H, W = x.shape
    L, G, k, NORM = len(weights), weights[0].shape[0], weights[0].shape[-1], activation != "relu"
    STACK, MAPS = C + L * G, L * G
    y, stack, mean, rstd, packed = _results(x, weights, biases, activation, eps, dtype)
    bias = torch.empty(MAPS, dtype=torch.float32, device=x.device)
    channels_last = _channels_last_weights(weights)
    if not channels_last:
        weights = [W_l.contiguous() for W_l in weights]
    biases = [b_l.contiguous() for b_l in biases]
    precision = _precision(dtype)

    few = _few_channels(C, H * W)
    rows = {"BLOCK_R": 128, "BLOCK_G": triton.next_power_of_2(G)}
    activating = N * triton.cdiv(C, few["BLOCK_C"])
    packing = L * triton.cdiv(STACK * k * k, rows["BLOCK_R"])
    programs.prepare[(activating + packing,)](
        x, x.stride(), stack, mean, rstd, tuple(weights), tuple(biases), packed, bias, H * W, C, eps, activating,
        W=W, TAPS=k * k, L=L, G=G, STACK=STACK, NORM=NORM, CHANNELS_LAST=channels_last, **few, **rows,
    )  # fmt: skip
    big = _matrix(N * H * W, MAPS, C)
    programs.convolve[triton.cdiv(N * H * W, big["BLOCK_M"]), triton.cdiv(MAPS, big["BLOCK_N"])](
        stack, packed, bias, None, y, N, C, MAPS, H=H, W=W, KERNEL=k, X_WIDTH=STACK, ADD_WIDTH=0, Y_WIDTH=MAPS,
        W_TAP=STACK * MAPS, W_IN=MAPS, W_OUT=1, FLIP=False, PRECISION=precision, **big,
    )  # fmt: skip
    sizes: dict[str, Any] = {"H": H, "W": W, "KERNEL": k, "C": C, "G": G, "MAPS": MAPS}
    sizes |= {"NORM": NORM, "PRECISION": precision}
    tile = _tile(H * W, G, dtype)
    if not _split(N, H * W):
        programs.solve[N, 1](y, stack, packed, mean, rstd, 0, L, eps, SPLIT=False, **sizes, **tile)
        return y, stack, mean, rstd, packed
    for layer in range(L):
        if layer > 0 or not NORM:
            programs.solve[N, triton.cdiv(H * W, tile["BLOCK_M"])](
                y, stack, packed, mean, rstd, layer, layer + 1, eps, SPLIT=True, **sizes, **tile
            )
        if NORM:
            at, few = C + layer * G, _few_channels(G, H * W)
            programs.activate[(N * triton.cdiv(G, few["BLOCK_C"]),)](
                y[:, layer * G :], y.stride(), stack[:, at:], mean[:, at:], rstd[:, at:], H * W, G, eps,
                W=W, STACK=STACK, NORM=True, **few,
            )  # fmt: skip
    return y, stack, mean, rstd, packed


@dense_block.register_fake
def _results(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    N, C, H, W = x.shape
    MAPS, k = len(weights) * weights[0].shape[0], weights[0].shape[-1]
    statistics = (N, C + MAPS) if activation != "relu" else (0, 0)
    return (
        x.new_empty((N, H, W, MAPS), dtype=dtype).permute(0, 3, 1, 2),
        x.new_empty((N, H, W, C + MAPS), dtype=dtype).permute(0, 3, 1, 2),
        x.new_empty(statistics, dtype=torch.float32),
        x.new_empty(statistics, dtype=torch.float32),
        x.new_empty((k * k, C + MAPS, MAPS), dtype=dtype),
    )


@operation("dense_block_backward")
def dense_block_backward(
    x: Tensor,
    grad_y: Tensor | None,
    grad_stack: Tensor | None,
    y: Tensor,
    stack: Tensor,
    mean: Tensor,
    rstd: Tensor,
    packed: Tensor,
    layers: int,
    parameters_dtype: torch.dtype,
    channels_last: bool,
    activation: str,
    needs_x: bool,
    needs_parameters: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of x, of the L weights and of the L biases; empty where not needed."""
    N, C, H, W = x.shape
    STACK, MAPS, k = stack.shape[1], y.shape[1], round(packed.shape[0] ** 0.5)
    L, G, NORM, precision = layers, MAPS // layers, activation != "relu", _precision(y.dtype)
    grad_x, grad_W, grad_b = _gradients(
        x, grad_y, grad_stack, y, stack, mean, rstd, packed, layers, parameters_dtype, channels_last, activation,
        needs_x, needs_parameters,
    )  # fmt: skip
    grad_y, grad_stack = _channels_last(grad_y), _channels_last(grad_stack)

    g = torch.empty_like(y)
    sizes: dict[str, Any] = {"H": H, "W": W, "KERNEL": k, "C": C, "G": G, "MAPS": MAPS}
    sizes |= {"NORM": NORM, "PRECISION": precision}
    tile = _tile(H * W, G, y.dtype)
    if not _split(N, H * W):
        programs.solve_transposed[N, 1](
            grad_y, grad_stack, g, y, packed, mean, rstd, 0, L, SPLIT=False, **sizes, **tile
        )  # fmt: skip
    else:
        for layer in reversed(range(L)):
            programs.solve_transposed[N, triton.cdiv(H * W, tile["BLOCK_M"])](
                grad_y, grad_stack, g, y, packed, mean, rstd, layer, layer + 1, SPLIT=True, **sizes, **tile
            )
            if NORM:
                at, few, own = C + layer * G, _few_channels(G, H * W), slice(layer * G, None)
                programs.activate_backward[(N * triton.cdiv(G, few["BLOCK_C"]),)](
                    g[:, own], y[:, own], y.stride(), mean[:, at:], rstd[:, at:],
                    None if grad_y is None else grad_y[:, own], g[:, own], g.stride(), H * W, G,
                    W=W, WIDTH=MAPS, ADD_WIDTH=MAPS, STACK=STACK, NORM=True, **few,
                )  # fmt: skip
    if needs_x:
        grad_a0 = x.new_empty((N, H, W, C), dtype=y.dtype)
        big = _matrix(N * H * W, C, MAPS)
        programs.convolve[triton.cdiv(N * H * W, big["BLOCK_M"]), triton.cdiv(C, big["BLOCK_N"])](
            g, packed, None, grad_stack, grad_a0, N, MAPS, C, H=H, W=W, KERNEL=k, X_WIDTH=MAPS, ADD_WIDTH=STACK,
            Y_WIDTH=C, W_TAP=STACK * MAPS, W_IN=1, W_OUT=MAPS, FLIP=True, PRECISION=precision, **big,
        )  # fmt: skip
        few = _few_channels(C, H * W)
        programs.activate_backward[(N * triton.cdiv(C, few["BLOCK_C"]),)](
            grad_a0, x, x.stride(), mean, rstd, None, grad_x, grad_x.stride(), H * W, C,
            W=W, WIDTH=C, ADD_WIDTH=0, STACK=STACK, NORM=NORM, **few,
        )  # fmt: skip
    if needs_parameters:
        blocks = {"BLOCK_C": _at_least_16(STACK, 64), "BLOCK_N": _at_least_16(MAPS, 64), "BLOCK_K": 64}
        in_blocks = triton.cdiv(STACK, blocks["BLOCK_C"]) * triton.cdiv(MAPS, blocks["BLOCK_N"])
        parts = max(1, min(triton.cdiv(512, in_blocks * k * k), triton.cdiv(N * H * W, 4 * blocks["BLOCK_K"])))
        part = triton.cdiv(triton.cdiv(N * H * W, parts), blocks["BLOCK_K"]) * blocks["BLOCK_K"]
        partial = x.new_empty((parts, k * k + 1, STACK, MAPS), dtype=torch.float32)
        programs.weight_gradient[in_blocks, k * k + 1, parts](
            g, stack, partial, N, part, H=H, W=W, KERNEL=k, C=C, G=G, MAPS=MAPS, PRECISION=precision, **blocks,
            num_warps=8, num_stages=3 if y.dtype.itemsize == 2 else 2,
        )  # fmt: skip
        rows = {"BLOCK_R": 128, "BLOCK_G": triton.next_power_of_2(G)}
        programs.unpack[(L * triton.cdiv((STACK - G) * k * k, rows["BLOCK_R"]),)](
            partial, tuple(grad_W), tuple(grad_b), parts, C, TAPS=k * k, L=L, G=G, STACK=STACK,
            CHANNELS_LAST=channels_last, **rows,
        )  # fmt: skip
    return grad_x, grad_W, grad_b


@dense_block_backward.register_fake
def _gradients(
    x: Tensor,
    grad_y: Tensor | None,
    grad_stack: Tensor | None,
    y: Tensor,
    stack: Tensor,
    mean: Tensor,
    rstd: Tensor,
    packed: Tensor,
    layers: int,
    parameters_dtype: torch.dtype,
    channels_last: bool,
    activation: str,
    needs_x: bool,
    needs_parameters: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    C, G, k = x.shape[1], y.shape[1] // layers, round(packed.shape[0] ** 0.5)
    grad_x = torch.empty_like(x) if needs_x else x.new_empty(0)
    if not needs_parameters:
        return grad_x, [], []
    # In the weights' own layout, so that autograd keeps them and copies nothing.
    kind: Any = {"dtype": parameters_dtype, "device": x.device}
    layout = torch.channels_last if channels_last else torch.contiguous_format
    grad_W = [torch.empty((G, C + layer * G, k, k), memory_format=layout, **kind) for layer in range(layers)]
    return grad_x, grad_W, [torch.empty(G, **kind) for _ in range(layers)]


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weights, _, ctx.activation, _, _ = inputs
    ctx.layers, ctx.parameters_dtype = len(weights), weights[0].dtype
    ctx.channels_last = _channels_last_weights(weights)
    ctx.save_for_backward(x, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_stack: Tensor | None, *_: Any) -> Any:
    x, y, stack, mean, rstd, packed = ctx.saved_tensors
    needs_x, needs_W, needs_b = (_any(need) for need in ctx.needs_input_grad[:3])
    if grad_y is None and grad_stack is None:
        return None, None, None, None, None, None
    grad_x, grad_W, grad_b = dense_block_backward(
        x, grad_y, grad_stack, y, stack, mean, rstd, packed, ctx.layers, ctx.parameters_dtype, ctx.channels_last,
        ctx.activation, needs_x, needs_W or needs_b,
    )  # fmt: skip
    nothing = [None] * ctx.layers
    return grad_x if needs_x else None, grad_W if needs_W else nothing, grad_b if needs_b else nothing, None, None, None


dense_block.register_autograd(_backward, setup_context=_setup)


def _any(need: Any) -> bool:
    return any(need) if isinstance(need, list | tuple) else bool(need)


def _channels_last_weights(weights: list[Tensor]) -> bool:
    """All weights lie (map, row, column, channel), and not all (map, channel, row, column)."""
    if all(weight.is_contiguous() for weight in weights):
        return False
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def _channels_last(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _precision(dtype: torch.dtype) -> str:
    """Of float32 products: what torch's own convolutions are allowed."""
    return "ieee" if dtype == torch.float32 and not torch.backends.cudnn.allow_tf32 else "tf32"


def _split(images: int, positions: int) -> bool:
    return positions > _ON_ONE_SM and images < _MANY


def _at_least_16(size: int, most: int) -> int:
    """A power of two that covers `size` if it may, and that a matrix product can have."""
    return int(min(most, max(16, triton.next_power_of_2(size))))


def _tile(positions: int, growth: int, dtype: torch.dtype) -> dict[str, int]:
    """Block sizes of the kernels that solve: small images take more channels at a step."""
    block = _at_least_16(positions, _TILE)
    return {
        "BLOCK_M": block,
        "BLOCK_G": _at_least_16(growth, 256),
        "BLOCK_K": 64 if block <= 64 else 32,
        "num_warps": max(1, block // 32),
        "num_stages": 3 if dtype.itemsize == 2 else 2,
    }


def _matrix(rows: int, columns: int, inner: int) -> dict[str, int]:
    """Block sizes of a convolution as a matrix product."""
    return {
        "BLOCK_M": _at_least_16(rows, 128),
        "BLOCK_N": _at_least_16(columns, 64),
        "BLOCK_K": _at_least_16(inner, 32),
        "num_warps": 4,
        "num_stages": 3,
    }


def _few_channels(channels: int, positions: int) -> dict[str, int]:
    """Block sizes of the kernels that activate: 32 bytes or more of every position."""
    return {
        "BLOCK_M": int(min(256, triton.next_power_of_2(positions))),
        "BLOCK_C": int(min(16, triton.next_power_of_2(channels))),
    }
