"""The generator of a run in plain operations, with its spectral normalization folded into the weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lorbms_fast.checkpoint import MODEL, load_weights
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import spectral_norm
from lorbms_fast.kernels.spectral_norm.modules import spectral_layers, unnormalized
from lorbms_fast.models import build
from lorbms_fast.run import Run
from lorbms_fast.tiles import tile_of_chunk


@dataclass(frozen=True)
class Generator:
    """Enc and Dec as they were after an iteration."""

    enc: nn.Module
    dec: nn.Module
    config: ModelConfig
    iteration: int
    of_chunk: Tensor
    """Tile of each chunk, (chunks,) int64."""

    def tensors(self) -> dict[str, Tensor]:
        """Parameters by name, prefixed by `enc.` or `dec.`, without the u vectors."""
        networks = nn.ModuleDict({"enc": self.enc, "dec": self.dec})
        return {name: values.detach() for name, values in networks.named_parameters()}


class Transfer(nn.Module):
    """Object transfer as one network."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.enc, self.dec = generator.enc, generator.dec
        self.of_chunk: Tensor
        self.register_buffer("of_chunk", generator.of_chunk, persistent=False)

    def forward(self, I_obj: Tensor, I_ref: Tensor, mask: Tensor) -> Tensor:
        """Compute I_mix (N, 3, S, S) from images (N, 3, S, S) in [-1, 1] and a mask (N, tiles) bool."""
        replaced = mask[:, self.of_chunk].unsqueeze(-1)
        return self.dec(torch.where(replaced, self.enc(I_obj), self.enc(I_ref)))


@torch.no_grad()
def plain_generator(folder: Path) -> Generator:
    """Load Enc and Dec of a run's newest whole checkpoint, W / sigma in W's place; UserError without one."""
    run = Run.open(folder)
    networks = build(run.config.model, "reference", normalize=unnormalized)
    path = run.latest()
    load_weights(networks, path / MODEL)
    for layer in spectral_layers(networks.dec):
        layer.weight.copy_(spectral_norm(layer.weight, layer.u)[0])
    networks.eval()
    model = run.config.model
    chunks = networks.enc(torch.zeros(1, 3, model.image_size, model.image_size)).shape[1]
    return Generator(networks.enc, networks.dec, model, int(path.name), tile_of_chunk(chunks, model.tiles))
