"""Layers of a dense block as somebody's modules have them: which can be computed on a stack, and how they are read."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.of_torch import modes_in_force
from lorbms_fast.kernels.densenet_block import fused
from lorbms_fast.kernels.densenet_block.reference import BatchNorm, Bottleneck, Layer, Statistics


class Modules(NamedTuple):
    """The modules of a layer."""

    norm: nn.BatchNorm2d
    bottleneck: tuple[nn.Conv2d, nn.BatchNorm2d] | None
    conv: nn.Conv2d
    drop_rate: float
    """Share of values that become 0 now."""
    of_maps: bool
    """Whole maps become 0."""

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """One norm, or with a bottleneck two."""
        return (self.norm,) if self.bottleneck is None else (self.norm, self.bottleneck[1])

    @property
    def convs(self) -> tuple[nn.Conv2d, ...]:
        """One convolution, or with a bottleneck two."""
        return (self.conv,) if self.bottleneck is None else (self.bottleneck[0], self.conv)


def why_not(layers: Iterable[tuple[str, Modules]]) -> str | None:
    """Say what keeps layers, each with its name, from being computed on a stack; None if nothing does."""
    C = growth = None
    norms: set[nn.Module] = set()
    for name, layer in layers:
        if norms.intersection(layer.norms) or len({*layer.norms}) != len(layer.norms):
            return f"{name}: a norm is another layer's, or both of its own: it moves twice a step"
        norms.update(layer.norms)
        if not all(norm.affine for norm in layer.norms):
            return f"{name}: a norm has no weight and bias"
        for conv, size in zip(layer.convs[::-1], (3, 1), strict=False):
            moves = conv.kernel_size, conv.stride, conv.padding, conv.dilation
            others = conv.groups, conv.padding_mode, size == 3 or conv.bias is None
            if (moves, others) != (((size, size), (1, 1), (size // 2, size // 2), (1, 1)), (1, "zeros", True)):
                return f"{name}: {conv} is another convolution than a dense layer's"
        C, growth = C or layer.norm.num_features, growth or layer.conv.out_channels
        between = layer.norms[-1].num_features
        numbers = [layer.norm.num_features, *(n for conv in layer.convs for n in conv.weight.shape[:2])]
        narrowed = [between, C] if layer.bottleneck else []
        if numbers != [C, *narrowed, growth, between]:
            return f"{name}: its numbers of maps do not follow from those of the layers before"
        C += growth
    return None


def watched(module: nn.Module) -> bool:
    """Say whether a module has a hook or a forward of its own. Asked at every step, and of hundreds of modules."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return bool(hooks or module._backward_hooks or module._backward_pre_hooks or "forward" in module.__dict__)


def fit(x: Tensor, layers: Sequence[Modules]) -> bool:
    """Say whether a stack would hold what the layers compute of this input."""
    # FlopCounterMode knows the layers' operations, and not ours, and make_fx records no others. Other modes, which may
    # count memory, see what runs.
    if any(type(mode).__name__ in ("_FlopCounterMode", "ProxyTorchDispatchMode") for mode in modes_in_force()):
        return False
    plain = type(x) in (Tensor, nn.Parameter) and x.dim() == 4 and x.is_floating_point() and not x.is_meta
    if not plain or not layers or compute_dtype(x) != x.dtype or x.shape[1] != layers[0].norm.num_features:
        return False
    # Of one position there is no variance, of none nothing: torch knows what to say.
    if x.numel() <= x.shape[1]:
        return False
    exact = torch.promote_types(x.dtype, torch.float32)
    of_convs = {x.dtype, exact} if torch.is_autocast_enabled(x.device.type) else {x.dtype}
    return all(
        part.weight.device == x.device and part.weight.dtype in dtypes
        for layer in layers
        for parts, dtypes in ((layer.norms, {x.dtype, exact}), (layer.convs, of_convs))
        for part in parts
    )


def stacked(x: Tensor, layers: Sequence[Modules], new_alone: bool = False) -> Tensor:
    """Compute the layers on a stack, and move their norms' running statistics."""
    result, used = fused.densenet_block(x, [_read(layer, x) for layer in layers], new_alone)
    norms = [norm for layer in layers for norm in layer.norms]
    _track(norms, [statistics for of_layer in used for statistics in of_layer], x.numel() // x.shape[1])
    return result


def _read(layer: Modules, x: Tensor) -> Layer:
    """What the layer computes with, dropout drawn."""
    dropout, p = None, layer.drop_rate
    if p > 0:
        shape = (len(x), layer.conv.out_channels, *((1, 1) if layer.of_maps else x.shape[2:]))
        layout = torch.contiguous_format if layer.of_maps else fused.memory_format(x)
        kept = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).bernoulli_(1 - p)
        dropout = kept.div_(1 - p) if p < 1 else kept
    dtype = torch.promote_types(x.dtype, torch.float32)
    bottleneck = None
    if layer.bottleneck is not None:
        conv, norm = layer.bottleneck
        bottleneck = Bottleneck(conv.weight, _norm(norm, dtype))
    return Layer(_norm(layer.norm, dtype), bottleneck, layer.conv.weight, layer.conv.bias, dropout)


def _norm(norm: nn.BatchNorm2d, dtype: torch.dtype) -> BatchNorm:
    mean, var = norm.running_mean, norm.running_var
    statistics = None
    if not norm.training and mean is not None and var is not None:
        # Copies: running statistics may change before the backward.
        statistics = mean.to(dtype, copy=True), var.to(dtype, copy=True)
    return BatchNorm(norm.weight, norm.bias, norm.eps, statistics)


@torch.no_grad()
def _track(norms: list[nn.BatchNorm2d], statistics: list[Statistics], count: int) -> None:
    """Move running statistics as torch does, towards those of a batch of so many positions; many in one operation."""
    counted, moved = [], defaultdict(list)
    for norm, (mean, var) in zip(norms, statistics, strict=True):
        if not (norm.training and norm.track_running_stats):
            continue
        momentum = 0.0 if norm.momentum is None else norm.momentum
        if norm.num_batches_tracked is not None:
            counted.append(norm.num_batches_tracked)
            if norm.momentum is None:
                momentum = 1.0 / (float(norm.num_batches_tracked) + 1)
        if norm.running_mean is not None and norm.running_var is not None:
            moved[momentum].append((norm.running_mean, norm.running_var, mean, var))
    if counted:
        torch._foreach_add_(counted, 1)
    for momentum, of_norms in moved.items():
        means, variances, new_means, new_variances = map(list, zip(*of_norms, strict=True))
        torch._foreach_mul_(means + variances, 1 - momentum)
        torch._foreach_add_(means, new_means, alpha=momentum)
        torch._foreach_add_(variances, new_variances, alpha=momentum * count / (count - 1))
