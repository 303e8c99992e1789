"""Single operations and their gradients against the golden numbers."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from lorbms_fast.config import INSTANCE_NORM_EPS, Impl
from lorbms_fast.kernels import instance_norm, resize_conv, use_impl
from lorbms_fast.kernels.coord_conv.reference import append_coordinates
from lorbms_fast.kernels.spectral_norm.reference import power_step, spectral_norm, spectral_norm_through
from lorbms_fast.mixing import TAU, author_mixing_mask, mixing_mask
from lorbms_fast.verification.check import Check, distance, hwio, nhwc, to_torch_layout
from lorbms_fast.verification.golden import Golden

# Relative to the largest stored entry: a few dozen float32 roundings.
ROUNDING = 3e-6


def operation_checks(golden: Golden, impl: Impl) -> Iterator[Check]:
    """Check instance norm, resize convolution, spectral norm, CoordConv and mixing."""
    with use_impl("reference" if impl == "reference" else "fused"):
        for key in _keys(golden, "instance_norm"):
            x = _maps(golden, f"ops.{key}.x", golden.operations[f"{key}.y"].shape, scale=2, shift=0.5)
            yield from _compare(golden, key, nhwc(instance_norm(x, INSTANCE_NORM_EPS)), {"grad_x": (x, nhwc)})
        for key in _keys(golden, "resize_conv"):
            yield from _resize_conv_checks(golden, key)
        for key in _keys(golden, "spectral_norm"):
            yield from _spectral_norm_checks(golden, key)
    for key in _keys(golden, "coord_conv"):
        n, height, width, channels = golden.operations[f"{key}.y"].shape
        x = _maps(golden, f"ops.{key}.x", (n, height, width, channels - 2))
        yield from _compare(golden, key, nhwc(append_coordinates(x)), {})
    distances = torch.from_numpy(golden.operations["mixing.dist"])
    author = golden.operations["mixing.mask_author"]
    yield Check("mixing.mask_author", distance(author_mixing_mask(distances, TAU), author), 0)
    default = np.where(author.all(axis=1, keepdims=True), [[1, 1, 1, 0]], author)
    yield Check("mixing mask, last quadrant kept", distance(mixing_mask(distances, TAU), default), 0)


def _resize_conv_checks(golden: Golden, key: str) -> Iterator[Check]:
    x = _maps(golden, f"ops.{key}.x", golden.operations[f"{key}.grad_x"].shape)
    W = _weight(golden, f"ops.{key}.weight", golden.operations[f"{key}.grad_weight"].shape)
    u = golden.fill(f"ops.{key}.u", (1, W.shape[0]))
    inputs: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {"grad_x": (x, nhwc), "grad_weight": (W, hwio)}
    yield from _compare(golden, key, nhwc(resize_conv(x, W)), inputs)
    W_bar, _ = spectral_norm_through(W, u)
    yield from _compare(golden, f"{key}_sn_through", nhwc(resize_conv(x, W_bar)), inputs)


def _spectral_norm_checks(golden: Golden, key: str) -> Iterator[Check]:
    stored = golden.operations
    shape = stored[f"{key}.W_bar"].shape
    W = _weight(golden, f"ops.{key}.weight", shape)
    u = golden.fill(f"ops.{key}.u", (1, shape[-1]))
    W_bar, sigma = spectral_norm(W, u)
    yield _check(golden, f"{key}.W_bar", hwio(W_bar))
    yield _check(golden, f"{key}.sigma", sigma)
    probe = golden.fill(f"ops.probe.{key}", shape)
    for convention, normalize in (("const", spectral_norm), ("through", spectral_norm_through)):
        (gradient,) = torch.autograd.grad((hwio(normalize(W, u)[0]) * probe).sum(), W)
        yield _check(golden, f"{key}.grad_weight_{convention}", hwio(gradient))
    with torch.no_grad():
        yield _check(golden, f"{key}.u_new", power_step(W, u)[0])
        for _ in range(9):
            u, _ = power_step(W, u)
        yield _check(golden, f"{key}.u_after_9", u)


def _compare(
    golden: Golden, key: str, y: Tensor, inputs: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]]
) -> Iterator[Check]:
    """Check the output and the gradients of its product with the probe, each in TensorFlow's layout."""
    yield _check(golden, f"{key}.y", y)
    if not inputs:
        return
    probe = golden.fill(f"ops.probe.{key}", tuple(y.shape))
    gradients = torch.autograd.grad((y * probe).sum(), [x for x, _ in inputs.values()], retain_graph=True)
    for (name, (_, layout)), gradient in zip(inputs.items(), gradients, strict=True):
        yield _check(golden, f"{key}.{name}", layout(gradient))


def _check(golden: Golden, name: str, computed: Tensor) -> Check:
    stored = golden.operations[name]
    return Check(name, distance(computed, stored), ROUNDING * max(1.0, float(abs(stored).max())))


def _keys(golden: Golden, operation: str) -> list[str]:
    """List `operation0`, `operation1`, ... as far as the golden set goes."""
    found = {name.split(".")[0] for name in golden.operations}
    return sorted(key for key in found if key.removeprefix(operation).isdigit())


def _maps(golden: Golden, name: str, shape: tuple[int, ...], scale: float = 1, shift: float = 0) -> Tensor:
    return golden.fill(name, shape, scale, shift).permute(0, 3, 1, 2).requires_grad_()


def _weight(golden: Golden, name: str, shape: tuple[int, ...]) -> Tensor:
    return to_torch_layout(golden.fill(name, shape, scale=0.3)).requires_grad_()
