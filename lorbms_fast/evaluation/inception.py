"""The Inception network of 2015 that FID and IS are defined by (Szegedy et al., CVPR 2016; Heusel et al., 2017).

Its layers are named as in the published PyTorch conversions of TensorFlow's graph `inception-2015-12-05`
(`pt_inception-2015-12-05-6726825d.pth`, `weights-inception-2015-12-05-6726825d.pth`), which load by path. It differs
from the later Inception v3 of model libraries: average pooling does not count padding, the last block pools by
maximum, and there are 1,008 classes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.weights import fill, read_checkpoint

SIDE, CLASSES = 299, 1008
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Checksum of the published conversions, one file under two names that carry the first eight digits."""

Kernel = tuple[int, int]


def conv(inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: Kernel = (0, 0)) -> nn.Module:
    """Make a convolution without bias, batch norm and ReLU, in a row."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs, eps=0.001), relu=nn.ReLU()))


class Block(nn.Module):
    """Several chains of convolutions on the same maps, their results put together.

    A chain is a list of (name, outputs, kernel, stride); a name ending in `a` and the next in `b` read the same maps
    and are put together. The last branch pools by `mean`, `max`, or `stride`, a maximum over 3x3 at stride 2 that no
    convolution of `pool_outputs` maps follows.
    """

    def __init__(
        self, inputs: int, chains: Sequence[Sequence[tuple[str, int, Kernel, int]]], pool: str, pool_outputs: int = 0
    ) -> None:
        super().__init__()
        self.pool, self.chains = pool, [[name for name, *_ in chain] for chain in chains]
        for chain in chains:
            width = inputs
            for name, outputs, kernel, stride in chain:
                padding = (0, 0) if stride == 2 else (kernel[0] // 2, kernel[1] // 2)
                self.add_module(name, conv(width, outputs, kernel, stride, padding))
                width = outputs
        if pool_outputs:
            self.branch_pool = conv(inputs, pool_outputs, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, sum of the outputs, H', W') from (N, inputs, H, W)."""
        branches = [self._chain(names, x) for names in self.chains]
        if self.pool == "stride":
            return torch.cat([*branches, F.max_pool2d(x, 3, stride=2)], 1)
        if self.pool == "max":
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*branches, self.branch_pool(pooled)], 1)

    def _chain(self, names: list[str], x: Tensor) -> Tensor:
        if names and names[-1].endswith("b"):
            x = self._chain(names[:-2], x)
            return torch.cat([self.get_submodule(name)(x) for name in names[-2:]], 1)
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _block_a(inputs: int, pool_outputs: int) -> Block:
    chains = [
        [("branch1x1", 64, (1, 1), 1)],
        [("branch5x5_1", 48, (1, 1), 1), ("branch5x5_2", 64, (5, 5), 1)],
        [("branch3x3dbl_1", 64, (1, 1), 1), ("branch3x3dbl_2", 96, (3, 3), 1), ("branch3x3dbl_3", 96, (3, 3), 1)],
    ]
    return Block(inputs, chains, "mean", pool_outputs)


def _block_b() -> Block:
    chains = [
        [("branch3x3", 384, (3, 3), 2)],
        [("branch3x3dbl_1", 64, (1, 1), 1), ("branch3x3dbl_2", 96, (3, 3), 1), ("branch3x3dbl_3", 96, (3, 3), 2)],
    ]
    return Block(288, chains, "stride")


def _block_c(width: int) -> Block:
    wide, tall = (1, 7), (7, 1)
    double = [(f"branch7x7dbl_{i}", width, kernel, 1) for i, kernel in enumerate(((1, 1), tall, wide, tall), start=1)]
    chains = [
        [("branch1x1", 192, (1, 1), 1)],
        [("branch7x7_1", width, (1, 1), 1), ("branch7x7_2", width, wide, 1), ("branch7x7_3", 192, tall, 1)],
        [*double, ("branch7x7dbl_5", 192, wide, 1)],
    ]
    return Block(768, chains, "mean", 192)


def _block_d() -> Block:
    seven = [(f"branch7x7x3_{i}", 192, kernel, 1) for i, kernel in enumerate(((1, 1), (1, 7), (7, 1)), start=1)]
    chains = [
        [("branch3x3_1", 192, (1, 1), 1), ("branch3x3_2", 320, (3, 3), 2)],
        [*seven, ("branch7x7x3_4", 192, (3, 3), 2)],
    ]
    return Block(768, chains, "stride")


def _block_e(inputs: int, pool: str) -> Block:
    chains = [
        [("branch1x1", 320, (1, 1), 1)],
        [("branch3x3_1", 384, (1, 1), 1), ("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)],
        [
            *[("branch3x3dbl_1", 448, (1, 1), 1), ("branch3x3dbl_2", 384, (3, 3), 1)],
            *[("branch3x3dbl_3a", 384, (1, 3), 1), ("branch3x3dbl_3b", 384, (3, 1), 1)],
        ],
    ]
    return Block(inputs, chains, pool, 192)


class Inception(nn.Module):
    """Inception of 2015: pooled features (N, 2048) and class probabilities (N, 1008) from (N, 3, H, W) in 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = conv(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = conv(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = conv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = conv(80, 192, (3, 3))
        blocks = {
            "5b": _block_a(192, 32), "5c": _block_a(256, 64), "5d": _block_a(288, 64),
            "6a": _block_b(), "6b": _block_c(128), "6c": _block_c(160), "6d": _block_c(160), "6e": _block_c(192),
            "7a": _block_d(), "7b": _block_e(1280, "mean"), "7c": _block_e(2048, "max"),
        }  # fmt: skip
        self.blocks = [f"Mixed_{name}" for name in blocks]
        for name, block in blocks.items():
            self.add_module(f"Mixed_{name}", block)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Resize to 299 px, then compute; IS takes the logits without bias, as its authors' program does."""
        x = (resize_as_tensorflow(images, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        return features, F.linear(features, self.fc.weight).softmax(1)


def load_inception(weights: Path, device: torch.device) -> Inception:
    """Load the network for evaluation; UserError where the file of weights is missing or of another network."""
    network = Inception()
    fill(network, read_checkpoint(weights), weights)
    return network.to(device).eval()


def resize_as_tensorflow(images: Tensor, side: int) -> Tensor:
    """Resize float (N, C, H, W) bilinearly as TensorFlow 1: output pixel i reads from i * (input side / output side).

    >>> resize_as_tensorflow(torch.tensor([[[[0.0, 4], [0, 4]]]]), 4)[0, 0, 0]
    tensor([0., 2., 4., 4.])
    """
    for dim in (2, 3):
        length = images.shape[dim]
        position = torch.arange(side, device=images.device, dtype=images.dtype) * (length / side)
        low = position.floor().long()
        high = (low + 1).clamp_max(length - 1)
        weight = (position - low).view([side if d == dim else 1 for d in range(4)])
        images = torch.lerp(images.index_select(dim, low), images.index_select(dim, high), weight)
    return images
