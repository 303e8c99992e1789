"""The equations of `lorbms_fast.engine.iteration`, one after the other, in torch's own operations: the yardstick."""

import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import LossConfig
from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes


class Reference:
    """Iterations of systems whose images are mixed and classified as the thesis's: see `IterationImpl`."""

    def scenes(self, networks: Networks, batch: Batch) -> Scenes:
        """Compute the forward graph, from f_ref to I_prime."""
        f_ref, f_mix = mix(networks, batch)
        I_hat = networks.dec(f_ref)
        I_mix = networks.dec(f_mix)
        f_mix_hat = networks.enc(I_mix)
        f_ref_hat = mix_chunks(f_mix_hat, f_ref, batch.mask)
        return Scenes(f_ref, f_mix, f_mix_hat, f_ref_hat, I_hat, I_mix, I_prime=networks.dec(f_ref_hat))

    def generator_losses(self, networks: Networks, batch: Batch, config: LossConfig) -> tuple[GeneratorLosses, Scenes]:
        """Compute L_G, its terms, and the scenes that they judge."""
        s = self.scenes(networks, batch)
        D_mix = networks.dsc(s.I_mix)
        L_cls = self.classifier_loss(networks, s.I_mix, batch, config)
        return losses.generation(batch.I_ref, s, D_mix, L_cls, config), s

    @torch.no_grad()
    def mixed_images(self, networks: Networks, batch: Batch) -> Tensor:
        """Compute I_mix alone, (N, 3, S, S), without gradients."""
        _, f_mix = mix(networks, batch)
        return networks.dec(f_mix)

    def classifier_logits(self, networks: Networks, I_mix: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the classifier says of I_mix with each candidate, and what it should say, both (4, N, 4)."""
        logits = torch.stack([networks.cls(I_mix, I_qj) for I_qj in batch.I_q])
        return logits, losses.classification_targets(batch.mask, logits.dtype)

    def classifier_loss(self, networks: Networks, I_mix: Tensor, batch: Batch, config: LossConfig) -> Tensor:
        """Compute L_cls."""
        logits, _ = self.classifier_logits(networks, I_mix, batch)
        return losses.classification(logits, batch.mask, config.lambdas)

    def discriminator_loss(self, networks: Networks, I_ref: Tensor, I_mix: Tensor, config: LossConfig) -> Tensor:
        """Compute L_D."""
        return losses.discrimination(networks.dsc(I_ref), networks.dsc(I_mix), config.gan)


def mix(networks: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
    """Encode the reference images and all candidates, and mix (Algorithm 1): f_ref and f_mix, both (N, 4, chunk)."""
    f_ref = networks.enc(batch.I_ref)
    f_qi = networks.enc(batch.I_q.flatten(0, 1)).chunk(len(batch.I_q))
    f_q = torch.stack([f_qi[i][:, i] for i in range(len(f_qi))], dim=1)
    return f_ref, mix_chunks(f_ref, f_q, batch.mask)
