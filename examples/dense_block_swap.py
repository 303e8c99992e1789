"""Swap the dense block of somebody's model for ours: the same numbers and gradients, each map activated once.

    python examples/dense_block_swap.py

A plain DenseNet block normalizes and rectifies all earlier maps again for every layer. Where norm and activation have
no parameters (instance norm without affine parameters, then ReLU) the result is the same every time, and `DenseBlock`
computes it once. Learned weights are kept.
"""

import torch
from torch import Tensor, nn

from lorbms_fast.kernels import DenseBlock


class PlainDenseBlock(nn.Module):
    """A DenseNet block with instance norm, as it is usually written."""

    def __init__(self, channels: int, num_layers: int, growth_rate: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth_rate, 3, padding=1))
            for width in range(channels, channels + num_layers * growth_rate, growth_rate)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + num_layers * growth_rate, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def swapped(plain: PlainDenseBlock) -> DenseBlock:
    """Our block with the weights of theirs."""
    convolutions = [layer[2] for layer in plain.layers]
    first = convolutions[0]
    ours = DenseBlock(
        first.in_channels,
        num_layers=len(convolutions),
        growth_rate=first.out_channels,
        activation="instance_norm_relu",
        eps=plain.layers[0][0].eps,
    )
    ours.load_state_dict(
        {f"layer{i}.{name}": value for i, conv in enumerate(convolutions) for name, value in conv.state_dict().items()}
    )
    return ours


def main() -> None:
    """Compare outputs and gradients of a small model before and after."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), PlainDenseBlock(16, num_layers=6, growth_rate=8), nn.Conv2d(64, 1, 1))
    images = torch.randn(2, 3, 34, 34, requires_grad=True)
    before = model(images)
    (grad_before,) = torch.autograd.grad(before.square().mean(), images)

    model[1] = swapped(model[1])
    after = model(images)
    (grad_after,) = torch.autograd.grad(after.square().mean(), images)

    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad_after, grad_before, rtol=1e-3, atol=1e-6)
    print(f"outputs differ by {(after - before).abs().max():.1e}")
    print(f"gradients differ by {(grad_after - grad_before).abs().max():.1e}")


if __name__ == "__main__":
    main()
