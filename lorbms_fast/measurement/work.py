"""Work of a launch by its arguments: operations and bytes; where nothing is said here, all its tensors, once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_leaves

from lorbms_fast.measurement.launches import Array, Launch

_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "i32": 4, "i64": 8, "u8": 1, "i1": 1}


@dataclass(frozen=True)
class Work:
    """Floating point operations of matrix products (a multiply-add counts two), and bytes read and written at least."""

    flops: float
    bytes: float


def work(launch: Launch) -> Work:
    """Work of one launch."""
    if launch.name in MATRIX:
        return MATRIX[launch.name](launch.arguments)
    return Work(0, _size(launch.arguments))


def arithmetic(launch: Launch) -> str:
    """Name of the dtype in which its first half-precision tensor lies, else fp32."""
    found = [array.dtype for array in _arrays(launch.arguments)]
    return next((dtype for dtype in found if dtype in ("bf16", "fp16")), "fp32")


def _arrays(arguments: Any) -> list[Array]:
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Array)]


def _size(arguments: Any) -> float:
    return sum(array.bytes for array in _arrays(arguments))


def _convolve(a: dict[str, Any]) -> Work:
    """Work on the input's part of all new maps; and, of whole images with a norm, on all that layers then do."""
    item, C, MAPS = _BYTES[a["y"].dtype], a["C"], a["MAPS"]
    weights = a["KERNEL"] ** 2 * C * MAPS
    positions = _positions(a)
    own = Work(2 * positions * weights, item * (positions * (C + MAPS) + weights))
    if not a["NORM"]:
        return own
    layers = range(1 if a["SPLIT"] else MAPS // a["G"])
    then = _solve(a | {"first": layers.start, "last": layers.stop})
    return Work(own.flops + then.flops, own.bytes + then.bytes)


def _positions(a: dict[str, Any]) -> int:
    """Number of positions in all images together."""
    return int(a["y"].bytes // _BYTES[a["y"].dtype] // a["MAPS"])


def _solve(a: dict[str, Any]) -> Work:
    """Work of layers, forward or back: each reads the maps of all before (after) it, in all images."""
    item, G, MAPS = _BYTES[a["y"].dtype], a["G"], a["MAPS"]
    positions = _positions(a)
    layers = range(a["first"], a["last"])
    forward = "grad_y" not in a
    pairs = sum(layer if forward else MAPS // G - 1 - layer for layer in layers)
    weights = pairs * a["KERNEL"] ** 2 * G * G
    # A layer's sums in, its maps and their activations out; back, its maps and two gradients in, one out. What a layer
    # reads of others counts only where the launch did not make it.
    own = len(layers) * (3 if forward else 4)
    others = 0 if len(layers) > 1 else pairs
    return Work(2 * positions * weights, item * (positions * G * (own + others) + weights))


def _gradients(a: dict[str, Any]) -> Work:
    """Work on gradients: of the input, all pairs of its maps and new ones; of weights, of a map and one it read."""
    positions, taps = _positions(a), a["KERNEL"] ** 2
    C, MAPS, G = a["C"], a["MAPS"], a["G"]
    read = sum(C + layer * G for layer in range(MAPS // G)) * G
    of_x, of_weights = C * MAPS if a["of_x"] else 0, read if a["of_parameters"] else 0
    moved = _size(a)
    return Work(2 * positions * taps * (of_x + of_weights), moved)


def _pooled_conv(a: dict[str, Any]) -> Work:
    """Work on four positions a window, which give one result and one byte."""
    windows, C, O, item = a["windows"], a["C"], a["O"], _BYTES[a["y"].dtype]
    return Work(8 * windows * C * O, windows * (4 * C * item + O * (item + 1)) + a["weight"].bytes)


def _pooled_conv_gradients(a: dict[str, Any]) -> Work:
    """Work on the gradients of all positions, and of parameters over them, as far as either is wanted."""
    wanted = sum(a[of].bytes > 0 for of in ("dx", "partial"))
    moved = _size([a[of] for of in ("grad", "which", "x", "weight", "dx", "partial")])
    return Work(wanted * 2 * a["N"] * a["H"] * a["W"] * a["C"] * a["O"], moved)


def _output_conv(a: dict[str, Any]) -> Work:
    """Forward, or the gradients of the stack and of the weight."""
    times = 2 if "grad" in a else 1
    return Work(times * 2 * a["positions"] * (a["C"] + a["D"]) * a["O"], _size(a))


def _resize(a: dict[str, Any]) -> Work:
    """Forward or both gradients: nine folded taps at every position of the smaller maps, each time."""
    times = a["of_x"] + (a["parts"] > 0) if "of_x" in a else 1
    return Work(times * 2 * 9 * a["positions"] * a["C"] * a["O"], _size(a))


MATRIX: dict[str, Callable[[dict[str, Any]], Work]] = {
    "dense_block.convolve": _convolve,
    "dense_block.solve": _solve,
    "dense_block.solve_transposed": _solve,
    "dense_block.gradients": _gradients,
    "output_conv.forward": _output_conv,
    "output_conv.gradients": _output_conv,
    "pooled_conv.forward": _pooled_conv,
    "pooled_conv.gradients": _pooled_conv_gradients,
    "resize_conv.forward": _resize,
    "resize_conv.gradients": _resize,
}
"""Kernels that must use tensor cores."""
