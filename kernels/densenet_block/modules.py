"""Torchvision's dense block as a layer, and the rule that makes one of a block of torchvision's."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.dispatch import Impl, checked_impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels.densenet_block import fused
from lorbms_fast.kernels.densenet_block.reference import Layer, Norm, Statistics
from lorbms_fast.kernels.winograd_conv import WinogradConv2d

_TYPES: dict[str, tuple[type[nn.Module], ...]] = {
    "norm1": (nn.BatchNorm2d,),
    "relu1": (nn.ReLU,),
    "conv1": (nn.Conv2d,),
    "norm2": (nn.BatchNorm2d,),
    "relu2": (nn.ReLU,),
    "conv2": (nn.Conv2d, WinogradConv2d),
}


class DenseNetLayer(nn.Module):
    """A layer as torchvision's `_DenseLayer` has it, with the same names; a block's definition calls it.

    >>> DenseNetLayer(8, growth_rate=4, bn_size=2, drop_rate=0)([torch.randn(2, 8, 5, 5)]).shape
    torch.Size([2, 4, 5, 5])

    Args:
        num_input_features: maps it reads.
        growth_rate: maps it makes.
        bn_size: maps between its convolutions, in multiples of growth_rate.
        drop_rate: share of its values that dropout makes 0 in training.
    """

    def __init__(self, num_input_features: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        between = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(num_input_features)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(num_input_features, between, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(between)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(between, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = float(drop_rate)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps (N, C_i, H, W) -> (N, growth_rate, H, W)."""
        bottleneck = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        y: Tensor = self.conv2(self.relu2(self.norm2(bottleneck)))
        if self.drop_rate > 0:
            y = F.dropout(y, p=self.drop_rate, training=self.training)
        return y


class DenseNetBlock(nn.ModuleDict):
    """Torchvision's dense block with less memory: BatchNorm, ReLU, 1x1, BatchNorm, ReLU and 3x3 convolution per layer.

    >>> block = DenseNetBlock(3, num_input_features=8, bn_size=2, growth_rate=4)
    >>> block(torch.randn(2, 8, 10, 10)).shape
    torch.Size([2, 20, 10, 10])

    Names, parameters, buffers and state dict are torchvision's `_DenseBlock`'s: `denselayer1.norm1.weight`, ... For the
    backward it keeps its input, the stack of maps and each layer's result of the 1x1 convolution, and no concatenation
    or normalized copy.

    Where a layer is no longer what torchvision made (a hook on it or a part of it, another module in its place), where
    torch compiles or transforms what runs, and inside `use_impl("reference")`, the layers are called as torchvision
    calls them. So it is with a dtype of the input that is not the one computed in.

    Args:
        num_layers: how many layers.
        num_input_features: maps of the input.
        bn_size: maps between a layer's convolutions, in multiples of growth_rate.
        growth_rate: maps each layer appends.
        drop_rate: share of a layer's values that dropout makes 0 in training.
        impl: form to run; None takes the one in force.
    """

    impl: Impl | None = None
    __jit_ignored_attributes__ = ["impl"]  # noqa: RUF012

    def __init__(
        self,
        num_layers: int,
        num_input_features: int,
        bn_size: int = 4,
        growth_rate: int = 32,
        drop_rate: float = 0.0,
        *,
        impl: Impl | None = None,
    ) -> None:
        super().__init__()
        self.impl = checked_impl(impl)
        for i in range(num_layers):
            layer = DenseNetLayer(num_input_features + i * growth_rate, growth_rate, bn_size, drop_rate)
            self.add_module(f"denselayer{i + 1}", layer)

    @classmethod
    def from_torchvision(cls, block: nn.Module, impl: Impl | None = None) -> "DenseNetBlock":
        """Make a block of torchvision's `_DenseBlock`: its layers are the same objects, and so are their parameters.

        Raises:
            ValueError: it is no such block, or was changed; says in what.
        """
        reason = why_no_densenet_block(block)
        if reason is not None:
            raise ValueError(reason)
        ours = cls(0, 0, impl=impl)
        for name, layer in block.named_children():
            ours.add_module(name, layer)
        ours.training = block.training
        return ours

    def forward(self, init_features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + num_layers * growth_rate, H, W): the input, then each layer's maps."""
        # TorchScript reads the first branch alone.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            features = [init_features]
            for _name, layer in self.items():
                features.append(layer(features))
            return torch.cat(features, 1)
        else:
            return self._recorded(init_features)

    @leaf
    def _recorded(self, x: Tensor) -> Tensor:
        layers: list[Any] = list(self.values())
        form = select_impl(self.impl, x)
        if form == "reference" or torch.compiler.is_compiling() or _changed(self.items()) or not _fits(x, layers):
            features = [x]
            for layer in layers:
                features.append(layer(features))
            return torch.cat(features, 1)
        stack, used = fused.densenet_block(x, [_read(layer, x) for layer in layers])
        norms = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
        _track(norms, [statistics for of_layer in used for statistics in of_layer], x.numel() // x.shape[1])
        return stack


def why_no_densenet_block(module: nn.Module) -> str | None:
    """Say why a module is no block of torchvision's whose layers a `DenseNetBlock` can take over; None if it is.

    >>> why_no_densenet_block(nn.ReLU())
    'ReLU is not torchvision.models.densenet._DenseBlock'
    """
    if _name(type(module)) != "torchvision.models.densenet._DenseBlock":
        return f"{type(module).__name__} is not torchvision.models.densenet._DenseBlock"
    for name, layer in module.named_children():
        if _name(type(layer)) != "torchvision.models.densenet._DenseLayer":
            return f"{name} is a {type(layer).__name__}, not torchvision's _DenseLayer"
    return _changed(module.named_children())


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _changed(layers: Iterable[tuple[str, Any]]) -> str | None:
    """Say in what the layers differ from what torchvision makes; None if in nothing."""
    C = growth = None
    norms: set[nn.Module] = set()
    for name, layer in layers:
        parts: dict[str, Any] = {part: layer._modules.get(part) for part in _TYPES}
        for part, module in parts.items():
            if type(module) not in _TYPES[part]:
                return f"{name}.{part} is a {type(module).__name__}, not a {_TYPES[part][0].__name__}"
        for part, module in {"": layer, **parts}.items():
            # Asked at every step, and of hundreds of modules.
            hooks = module._forward_hooks or module._forward_pre_hooks
            if hooks or module._backward_hooks or module._backward_pre_hooks or "forward" in module.__dict__:
                return f"{name}.{part} has a hook or a forward of its own".replace(". ", " ")
        if getattr(layer, "memory_efficient", False):
            return f"{name} is memory_efficient: it moves norm1's running statistics twice a step; set that to False"
        norm1, _, conv1, norm2, _, conv2 = parts.values()
        if norm1 in norms or norm2 in norms or norm1 is norm2:
            return f"{name}: a norm is another layer's, or both of its own: it moves twice a step"
        norms |= {norm1, norm2}
        if not (norm1.affine and norm2.affine):
            return f"{name}: a norm has no weight and bias"
        for conv, size in ((conv1, 1), (conv2, 3)):
            moves = conv.kernel_size, conv.stride, conv.padding, conv.dilation
            others = conv.groups, conv.padding_mode, conv.bias
            if (moves, others) != (((size, size), (1, 1), (size // 2, size // 2), (1, 1)), (1, "zeros", None)):
                return f"{name}: {conv} is another convolution than torchvision's"
        C, growth = C or norm1.num_features, growth or conv2.out_channels
        between = norm2.num_features
        numbers = [norm1.num_features, *conv1.weight.shape[:2], *conv2.weight.shape[:2]]
        if numbers != [C, between, C, growth, between]:
            return f"{name}: its numbers of maps do not follow from those of the layers before"
        C += growth
    return None


def _fits(x: Tensor, layers: list[Any]) -> bool:
    """Say whether the fused form computes what the layers would of this input."""
    plain = type(x) in (Tensor, nn.Parameter) and x.dim() == 4 and x.is_floating_point() and not x.is_meta
    if not plain or not layers or compute_dtype(x) != x.dtype or x.shape[1] != layers[0].norm1.num_features:
        return False
    # Of one position there is no variance, of none nothing: torch knows what to say.
    if x.numel() <= x.shape[1]:
        return False
    exact = torch.promote_types(x.dtype, torch.float32)
    of_convs = {x.dtype, exact} if torch.is_autocast_enabled(x.device.type) else {x.dtype}
    return all(
        part.weight.device == x.device and part.weight.dtype in dtypes
        for layer in layers
        for parts, dtypes in (((layer.norm1, layer.norm2), {x.dtype, exact}), ((layer.conv1, layer.conv2), of_convs))
        for part in parts
    )


def _read(layer: Any, x: Tensor) -> Layer:
    """What the layer computes with, dropout drawn."""
    dropout, p = None, layer.drop_rate
    if p > 0 and layer.training:
        shape = (len(x), layer.conv2.out_channels, *x.shape[2:])
        empty = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=fused.memory_format(x))
        kept = empty.bernoulli_(1 - p)
        dropout = kept.div_(1 - p) if p < 1 else kept
    dtype = torch.promote_types(x.dtype, torch.float32)
    return Layer(_norm(layer.norm1, dtype), layer.conv1.weight, _norm(layer.norm2, dtype), layer.conv2.weight, dropout)


def _norm(norm: nn.BatchNorm2d, dtype: torch.dtype) -> Norm:
    mean, var = norm.running_mean, norm.running_var
    statistics = None
    if not norm.training and mean is not None and var is not None:
        # Copies: running statistics may change before the backward.
        statistics = mean.to(dtype, copy=True), var.to(dtype, copy=True)
    return Norm(norm.weight, norm.bias, norm.eps, statistics)


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
