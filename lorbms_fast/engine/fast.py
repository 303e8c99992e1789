"""The iteration with the reference's losses and gradients, for less work.

Candidates that no mask uses are not encoded, and those that are go through the encoder together with the reference
images; I_hat and I_mix are decoded together; the four classifier runs are one; I_ref and I_mix go through the
discriminator together; what of a network its parameters alone decide is made once per update.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import LossConfig
from lorbms_fast.engine.branches import concurrently
from lorbms_fast.kernels import Pass, lorbms, passes
from lorbms_fast.mixing import used_candidates
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes

T = TypeVar("T")


class Forward:
    """The forward graph, of systems whose images are mixed as the thesis's unless `mix` does otherwise."""

    def mix(self, encode: Pass, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the reference images and the candidates in use in one batch, and mix them.

        Returns f_ref and f_mix, both (N, chunks, chunk), and which chunks were replaced, (N, chunks) bool.
        """
        quadrant, sample = used_candidates(batch.mask) if batch.used is None else batch.used
        codes = encode(torch.cat([batch.I_ref, batch.I_q[quadrant, sample]]))
        return codes[: len(batch.I_ref)], lorbms.mix_used(codes, batch.mask), batch.mask

    def scenes(self, networks: Networks, batch: Batch) -> Scenes:
        """Compute the forward graph, from f_ref to I_prime."""
        return self.judged_scenes(networks, batch, lambda I_mix: None)[0]

    def judged_scenes(self, networks: Networks, batch: Batch, judged: Callable[[Tensor], T]) -> tuple[Scenes, T]:
        """Compute the forward graph, and what is `judged` of I_mix while that goes on from I_mix to I_prime."""
        encode, encode_mix = passes(networks.enc, 2)
        decode, decode_ref = passes(networks.dec, 2)
        f_ref, f_mix, replaced = self.mix(encode, batch)
        I_hat, I_mix = decode(torch.cat([f_ref, f_mix])).chunk(2)

        def unmixed() -> tuple[Tensor, Tensor, Tensor]:
            f_mix_hat = encode_mix(I_mix)
            f_ref_hat = lorbms.mix_chunks(f_mix_hat, f_ref, replaced)
            return f_mix_hat, f_ref_hat, decode_ref(f_ref_hat)

        (f_mix_hat, f_ref_hat, I_prime), verdict = concurrently(unmixed, lambda: judged(I_mix), I_mix.device)
        return Scenes(f_ref, f_mix, f_mix_hat, f_ref_hat, I_hat, I_mix, I_prime), verdict

    @torch.no_grad()
    def mixed_images(self, networks: Networks, batch: Batch) -> Tensor:
        """Compute I_mix alone, (N, 3, S, S), without gradients."""
        (encode,), (decode,) = passes(networks.enc, 1), passes(networks.dec, 1)
        return decode(self.mix(encode, batch)[1])


class Fast(Forward):
    """Iterations of systems whose images are mixed and classified as the thesis's: see `IterationImpl`."""

    def generator_losses(self, networks: Networks, batch: Batch, config: LossConfig) -> tuple[GeneratorLosses, Scenes]:
        """Compute L_G, its terms, and the scenes that they judge."""

        def judged(I_mix: Tensor) -> tuple[Tensor, Tensor]:
            return classify(networks, I_mix, batch.I_q), discriminate(networks, I_mix)

        s, (logits, D_mix) = self.judged_scenes(networks, batch, judged)
        weights = config.rec, config.adv, config.cls
        found = lorbms.loss_head(
            batch.I_ref, s.I_hat, s.I_prime, D_mix, logits, batch.mask, weights, config.lambdas, config.gan
        )
        return GeneratorLosses(*found), s

    def classifier_logits(self, networks: Networks, I_mix: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the classifier says of I_mix with each candidate, and what it should say, both (4, N, 4)."""
        logits = classify(networks, I_mix, batch.I_q)
        return logits, losses.classification_targets(batch.mask, logits.dtype)

    def classifier_loss(self, networks: Networks, I_mix: Tensor, batch: Batch, config: LossConfig) -> Tensor:
        """Compute L_cls."""
        return lorbms.classification_loss(classify(networks, I_mix, batch.I_q), batch.mask, config.lambdas)

    def discriminator_loss(self, networks: Networks, I_ref: Tensor, I_mix: Tensor, config: LossConfig) -> Tensor:
        """Compute L_D."""
        return lorbms.discrimination_loss(discriminate(networks, torch.cat([I_ref, I_mix])), config.gan)


def classify(networks: Networks, I_mix: Tensor, I_q: Tensor) -> Tensor:
    """Run the classifier for all candidates at once, each with its own batch statistics: logits (4, N, 4)."""
    (run,) = passes(networks.cls, 1)
    return run(I_mix, I_q)


def discriminate(networks: Networks, images: Tensor) -> Tensor:
    """Run the discriminator: logits (N, 1, S/16, S/16)."""
    (run,) = passes(networks.dsc, 1)
    return run(images)
