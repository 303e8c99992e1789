"""The iteration of systems that are mixed or classified otherwise than the thesis's.

Any number of tiles, of which each may have several chunks; one candidate for each tile, or one for all; a classifier
that sees candidates one by one or all images at once. For networks of either implementation.
"""

import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import LossConfig
from lorbms_fast.engine.fast import Forward
from lorbms_fast.engine.iteration import IterationImpl
from lorbms_fast.kernels import Pass
from lorbms_fast.kernels.lorbms import mix_chunks
from lorbms_fast.reference.iteration import Reference
from lorbms_fast.tiles import replaced_chunks, tile_of_chunk
from lorbms_fast.types import Batch, Networks


class Tiled(Forward, Reference):
    """Iterations of systems of any tiles whose classifier sees candidates one by one; losses are the reference's.

    `pairs` runs such a classifier, which depends on the form of the networks.
    """

    def __init__(self, pairs: IterationImpl) -> None:
        self.pairs = pairs

    def mix(self, encode: Pass, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the reference images and the candidates in use in one batch, and mix them, as `Forward.mix` does."""
        tiles = batch.mask.shape[1]
        if len(batch.I_q) == 1:
            f_ref, f_q = encode(torch.cat([batch.I_ref, batch.I_q[0]])).chunk(2)
        else:
            tile, sample = batch.mask.T.nonzero(as_tuple=True)
            codes = encode(torch.cat([batch.I_ref, batch.I_q[tile, sample]]))
            f_ref, f_used = codes.split([len(batch.I_ref), len(sample)])
            of_chunk = tile_of_chunk(f_ref.shape[1], tiles, f_ref.device)
            f_all = f_ref.new_zeros(tiles, *f_ref.shape).index_put((tile, sample), f_used)
            f_q = f_all[of_chunk, :, torch.arange(len(of_chunk), device=f_ref.device)].transpose(0, 1)
        replaced = replaced_chunks(batch.mask, f_ref.shape[1])
        return f_ref, mix_chunks(f_ref, f_q, replaced), replaced

    def classifier_logits(self, networks: Networks, I_mix: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the classifier says of I_mix with each candidate, and what it should say, both (4, N, 4)."""
        return self.pairs.classifier_logits(networks, I_mix, batch)


class JointlyClassified(Tiled):
    """Iterations of systems whose classifier names a mixed image's replaced tiles from all images it was made of."""

    def classifier_logits(self, networks: Networks, I_mix: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the classifier says of I_mix and what it should say, both (1, N, tiles)."""
        mixed_and_reference = torch.cat([I_mix, batch.I_ref], dim=1)
        logits: Tensor = networks.cls(mixed_and_reference, batch.I_q.transpose(0, 1).flatten(1, 2))
        return logits[None], batch.mask[None].to(logits.dtype)

    def classifier_loss(self, networks: Networks, I_mix: Tensor, batch: Batch, config: LossConfig) -> Tensor:
        """Compute L_cls, in which no candidate has a weight of its own."""
        logits, _ = self.classifier_logits(networks, I_mix, batch)
        return losses.provenance(logits[0], batch.mask)
