"""A folder of golden numbers: reading it, and rebuilding the networks and images it speaks of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.atomic_io import read_json
from lorbms_fast.config import Impl, ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import build
from lorbms_fast.types import Batch, Networks
from lorbms_fast.verification.check import to_torch_layout

SHIPPED = Path(__file__).parent / "golden"
IMAGES = ("I_ref", "I_q1", "I_q2", "I_q3", "I_q4")


def fill(name: str, shape: tuple[int, ...], scale: float, shift: float) -> NDArray[np.float32]:
    """Draw `shift + scale * z`, z standard normal from a Philox generator keyed by the CRC-32 of the prefixed name.

    Shapes are in TensorFlow's order: HWIO for convolutions, in x out for dense layers, NHWC for images.
    """
    z = np.random.Generator(np.random.Philox(key=crc32(name.encode()))).standard_normal(shape)
    return (shift + scale * z).astype(np.float32)


def fill_image(name: str, n: int) -> NDArray[np.float32]:
    """Draw test images in [-1, 1], (n, 64, 64, 3): a coarse 8x8 pattern with fine noise."""
    coarse = fill(f"{name}.coarse", (n, 8, 8, 3), 1, 0).repeat(8, axis=1).repeat(8, axis=2)
    return np.tanh(coarse + np.float32(0.2) * fill(f"{name}.fine", (n, 64, 64, 3), 1, 0))


class Arrays(dict[str, NDArray[Any]]):
    """Arrays of one file; a missing one is an error that names the file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise UserError(f"{self.path} has no array '{name}': it is no file of this format")


@dataclass(frozen=True)
class Golden:
    """The content of a golden folder."""

    forward: Arrays
    """Tensors and losses of one forward pass."""
    gradients: Arrays
    """Four summary numbers of every parameter's gradient."""
    operations: Arrays
    """Outputs and gradients of single operations."""
    parameters: Any
    """Name, shape, scale, shift and check sums of every parameter."""
    prefix: str
    """Beginning of all filled names."""
    dtype: torch.dtype
    """Dtype that is computed in."""

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype) -> "Golden":
        """Read a folder, whose prefix is in `prefix.txt` or empty; UserError where it holds no golden numbers."""
        files = {"forward.npz": Arrays, "grads.npz": Arrays, "ops.npz": Arrays, "params.json": read_json}
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder} holds no golden numbers: {', '.join(missing)} missing")
        content: list[Any] = []
        for name, read in files.items():
            try:
                content.append(read(folder / name))
            except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
                raise UserError(f"{folder / name} cannot be read: {error}") from error
        prefix_file = folder / "prefix.txt"
        prefix = prefix_file.read_text().strip() if prefix_file.exists() else ""
        forward, gradients, operations, parameters = content
        return cls(forward, gradients, operations, parameters, prefix, dtype)

    def fill(self, name: str, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """Draw the values of `name` in TensorFlow's layout, in this set's dtype."""
        return torch.from_numpy(fill(self.prefix + name, shape, scale, shift)).to(self.dtype)

    def image(self, name: str) -> Tensor:
        """Draw one of the five images, (N, 3, 64, 64) in [-1, 1]."""
        n = self.forward["dist"].shape[0]
        return torch.from_numpy(fill_image(self.prefix + name, n)).permute(0, 3, 1, 2).to(self.dtype)

    def batch(self) -> Batch:
        """Assemble the five images and the stored mask."""
        I_ref, *I_q = (self.image(name) for name in IMAGES)
        return Batch(I_ref, torch.stack(I_q), torch.from_numpy(self.forward["mask"]).bool())

    def networks(self, impl: Impl, normalize: Normalize) -> Networks:
        """Build the thesis's networks with every parameter filled."""
        networks = build(ModelConfig(), impl, normalize=normalize)
        state = {
            row["name"]: to_torch_layout(self.fill(row["name"], tuple(row["shape"]), row["scale"], row["shift"]))
            for row in self.parameters
        }
        networks.load_state_dict(networks.state_dict() | state)
        return networks.to(self.dtype)
