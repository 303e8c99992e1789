"""Instance norm that stays in channels_last, in a CycleGAN generator.

    python examples/instance_norm_in_a_cyclegan_generator.py

`torch.nn.InstanceNorm2d` copies a channels_last map to contiguous memory, so a convolutional network that is kept in
channels_last changes layout at every norm. `lorbms_fast.kernels.InstanceNorm2d` has the same arguments, parameters and
state dict, and keeps the layout.
"""

import torch
from torch import Tensor, nn

from lorbms_fast.kernels import InstanceNorm2d


class Residual(nn.Module):
    """Two convolutions with instance norm, and the input added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width, nn.ReLU()), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        return x + self.layers(x)


def _convolution(inputs: int, outputs: int, *after: nn.Module, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.InstanceNorm2d(outputs, affine=True), *after]


def generator(width: int = 16, residuals: int = 3) -> nn.Sequential:
    """A small CycleGAN generator (Zhu et al., 2017): down, residual blocks, up."""
    return nn.Sequential(
        *_convolution(3, width, nn.ReLU()),
        *_convolution(width, 2 * width, nn.ReLU(), stride=2),
        *(Residual(2 * width) for _ in range(residuals)),
        nn.Upsample(scale_factor=2),
        *_convolution(2 * width, width, nn.ReLU()),
        nn.Conv2d(width, 3, 3, 1, 1),
        nn.Tanh(),
    )


def swap_instance_norms(module: nn.Module) -> None:
    """Replace every `torch.nn.InstanceNorm2d` inside a module by ours, with its parameters."""
    for name, child in module.named_children():
        if type(child) is nn.InstanceNorm2d:
            ours = InstanceNorm2d(
                child.num_features, child.eps, child.momentum or 0.0, child.affine, child.track_running_stats
            )
            ours.load_state_dict(child.state_dict())
            setattr(module, name, ours)
        else:
            swap_instance_norms(child)


def layouts(module: nn.Module, x: Tensor) -> list[bool]:
    """Check of every instance norm, in order, that what comes out is channels_last."""
    found: list[bool] = []
    hooks = [
        part.register_forward_hook(
            lambda _module, _inputs, y: found.append(y.is_contiguous(memory_format=torch.channels_last))
        )
        for part in module.modules()
        if isinstance(part, nn.InstanceNorm2d)
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    """Compare images and memory layouts before and after the swap."""
    torch.manual_seed(0)
    model = generator().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    before, theirs = model(images), layouts(model, images)
    swap_instance_norms(model)
    after, ours = model(images), layouts(model, images)

    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert all(ours)
    print(f"norms that keep channels_last: {sum(theirs)} of {len(theirs)} before, {sum(ours)} after")
    print(f"images differ by {(after - before).abs().max():.1e}")


if __name__ == "__main__":
    main()
