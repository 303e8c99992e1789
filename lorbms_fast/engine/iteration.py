"""One training iteration with the same losses and gradients as the reference's, for less work.

Against `lorbms_fast.reference.iteration`: candidates that no mask uses are not encoded, and those that are go through
the encoder together with the reference images; I_hat and I_mix are decoded together; the four classifier runs are
one; I_ref and I_mix go through the discriminator together; classifier and discriminator share one gradient-free pass
of the generator; what of a network its parameters alone decide is made once per update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.config import LossConfig, OptimConfig
from lorbms_fast.engine.freezing import frozen
from lorbms_fast.engine.optimizers import Optimizers, update
from lorbms_fast.kernels import lorbms
from lorbms_fast.mixing import used_candidates
from lorbms_fast.models.passes import Pass, passes
from lorbms_fast.models.spectral import spectral_layers
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes, StepMetrics


def mix(encode: Pass, batch: Batch) -> tuple[Tensor, Tensor]:
    """Encode the reference images and the candidates in use, in one batch: f_ref and f_mix, both (N, 4, chunk)."""
    quadrant, sample = used_candidates(batch.mask) if batch.used is None else batch.used
    codes = encode(torch.cat([batch.I_ref, batch.I_q[quadrant, sample]]))
    return codes[: len(batch.I_ref)], lorbms.mix_used(codes, batch.mask)


def scenes(networks: Networks, batch: Batch) -> Scenes:
    """The whole forward graph up to the images."""
    encode, encode_mix = passes(networks.enc, 2)
    decode, decode_ref = passes(networks.dec, 2)
    f_ref, f_mix = mix(encode, batch)
    I_hat, I_mix = decode(torch.cat([f_ref, f_mix])).chunk(2)
    f_mix_hat = encode_mix(I_mix)
    f_ref_hat = lorbms.mix_chunks(f_mix_hat, f_ref, batch.mask)
    return Scenes(f_ref, f_mix, f_mix_hat, f_ref_hat, I_hat, I_mix, I_prime=decode_ref(f_ref_hat))


def classifier_logits(networks: Networks, I_mix: Tensor, I_q: Tensor) -> Tensor:
    """(4, N, 4): all candidates in one run, each with its own batch statistics."""
    (classify,) = passes(networks.cls, 1)
    return classify(I_mix, I_q)


def discriminator_logits(networks: Networks, images: Tensor) -> Tensor:
    """(N, 1, S/16, S/16)."""
    (discriminate,) = passes(networks.dsc, 1)
    return discriminate(images)


def generator_losses(networks: Networks, batch: Batch, config: LossConfig) -> tuple[GeneratorLosses, Scenes]:
    """The parts of L_G and what they were computed from."""
    s = scenes(networks, batch)
    logits, D_mix = classifier_logits(networks, s.I_mix, batch.I_q), discriminator_logits(networks, s.I_mix)
    weights = config.rec, config.adv, config.cls
    found = lorbms.loss_head(
        batch.I_ref, s.I_hat, s.I_prime, D_mix, logits, batch.mask, weights, config.lambdas, config.gan
    )
    return GeneratorLosses(*found), s


def iterate(networks: Networks, optimizers: Optimizers, batches: Sequence[Batch], config: LossConfig) -> StepMetrics:
    """Update generator, generator, classifier, discriminator; documented at the reference's function of this name."""
    for batch in batches[:2]:
        with frozen(networks.dsc, networks.cls):
            parts, s = generator_losses(networks, batch, config)
            update(optimizers.generator, parts.L_G)

    for_classifier, for_discriminator = batches[2:]
    with torch.no_grad():
        I_mix = networks.dec(mix(networks.enc, for_classifier)[1])
    logits = classifier_logits(networks, I_mix, for_classifier.I_q)
    L_cls = lorbms.classification_loss(logits, for_classifier.mask, config.lambdas)
    update(optimizers.classifier, L_cls)

    if for_discriminator is not for_classifier:
        with torch.no_grad():
            I_mix = networks.dec(mix(networks.enc, for_discriminator)[1])
    D = discriminator_logits(networks, torch.cat([for_discriminator.I_ref, I_mix]))
    L_D = lorbms.discrimination_loss(D, config.gan)
    update(optimizers.discriminator, L_D)

    return StepMetrics.of(parts, batches[1].I_ref, s.I_hat, L_cls, L_D)


def advance_u(networks: Networks, config: OptimConfig) -> None:
    """Move every u on; documented at the reference's function of this name."""
    for network, steps in zip((networks.dec, networks.dsc), config.sn_power_iterations, strict=True):
        layers = list(spectral_layers(network).values())
        for _ in range(steps):
            kernels.advance_u([layer.weight for layer in layers], [layer.u for layer in layers])
