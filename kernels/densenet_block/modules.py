"""Torchvision's dense block as a layer, and the rule that makes one of a block of torchvision's."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels.densenet_block.layers import Modules, fit, stacked, watched, why_not
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
    torch compiles or transforms what runs, where `FlopCounterMode` counts, and inside `use_impl("reference")`, the
    layers are called as torchvision calls them. So it is with a dtype of the input that is not the one computed in.

    Args:
        num_layers: how many layers.
        num_input_features: maps of the input.
        bn_size: maps between a layer's convolutions, in multiples of growth_rate.
        growth_rate: maps each layer appends.
        drop_rate: share of a layer's values that dropout makes 0 in training.
        impl: form to run; None takes the one in force.

    Raises:
        ValueError: fewer than no layers, no maps, a drop rate that is no share, or no such form; calling it, what
            torch's own layers raise.
    """

    impl: Impl | None = None
    __jit_ignored_attributes__ = ["impl"]  # noqa: RUF012

    def __init__(
        self, num_layers: int, num_input_features: int, bn_size: int = 4, growth_rate: int = 32, drop_rate: float = 0.0,
        *, impl: Impl | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_layers < 0 or min(bn_size, growth_rate) < 1:
            raise ValueError(f"num_layers {num_layers}, bn_size {bn_size}, growth_rate {growth_rate}: 0, 1, 1 at least")
        if not 0 <= drop_rate <= 1:
            raise ValueError(f"drop_rate {drop_rate} is no share: choose 0 to 1")
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
        by_definition = select_impl(self.impl, x) == "reference" or torch.compiler.is_compiling()
        if by_definition or _changed(self.items()) or not fit(x, layers := [*map(_modules, self.values())]):
            features = [x]
            for layer in self.values():
                features.append(layer(features))
            return torch.cat(features, 1)
        return stacked(x, layers)


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
    """Say in what the layers differ from what torchvision makes; None if in nothing that matters."""
    found = []
    for name, layer in layers:
        parts: dict[str, Any] = {part: layer._modules.get(part) for part in _TYPES}
        for part, module in parts.items():
            if type(module) not in _TYPES[part]:
                return f"{name}.{part} is a {type(module).__name__}, not a {_TYPES[part][0].__name__}"
        for part, module in {"": layer, **parts}.items():
            if watched(module):
                return f"{name}.{part} has a hook or a forward of its own".replace(". ", " ")
        if getattr(layer, "memory_efficient", False):
            return f"{name} is memory_efficient: it moves norm1's running statistics twice a step; set that to False"
        found.append((name, _modules(layer)))
    return why_not(found)


def _modules(layer: Any) -> Modules:
    drop_rate = layer.drop_rate if layer.training else 0.0
    return Modules(layer.norm1, (layer.conv1, layer.norm2), layer.conv2, drop_rate, False)
