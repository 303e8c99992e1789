"""Take a model with our layers to a program without this library.

    python examples/export.py program.pt2

Inside `use_impl("reference")` the layers are plain PyTorch operations, which torch.export, ONNX and C++ know. A run of
LORBMS itself is exported by `lorbms-fast export`.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from lorbms_fast.kernels import DenseBlock, InstanceNorm2d, use_impl


def main(path: Path) -> None:
    """Export a small model for any batch size, read it back, compare."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), InstanceNorm2d(8), DenseBlock(8, num_layers=2, growth_rate=4)).eval()
    example = torch.rand(2, 3, 18, 18)
    with torch.no_grad(), use_impl("reference"):
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
    assert not any("lorbms_fast" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, path)

    images = torch.rand(5, 3, 18, 18)
    there, here = torch.export.load(path).module()(images), model(images)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)
    print(f"{path}: {len(program.graph.nodes)} operations; differs from the model by {(there - here).abs().max():.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1])) if len(sys.argv) == 2 else sys.exit(__doc__)
