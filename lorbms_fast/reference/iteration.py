"""One training iteration, as the thesis (Figure 3.2, Section 3.4) describes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import LossConfig, OptimConfig
from lorbms_fast.engine.freezing import frozen
from lorbms_fast.engine.optimizers import Optimizers, update
from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.reference.layers import SpectralWeight
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes, StepMetrics


def mix(networks: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
    """Encode the reference images and all candidates, and mix: f_ref and f_mix, both (N, 4, chunk)."""
    f_ref = networks.enc(batch.I_ref)
    f_q = torch.stack([networks.enc(I_qi)[:, i] for i, I_qi in enumerate(batch.I_q)], dim=1)
    return f_ref, mix_chunks(f_ref, f_q, batch.mask)


def scenes(networks: Networks, batch: Batch) -> Scenes:
    """The whole forward graph up to the images."""
    f_ref, f_mix = mix(networks, batch)
    I_hat = networks.dec(f_ref)
    I_mix = networks.dec(f_mix)
    f_mix_hat = networks.enc(I_mix)
    f_ref_hat = mix_chunks(f_mix_hat, f_ref, batch.mask)
    return Scenes(f_ref, f_mix, f_mix_hat, f_ref_hat, I_hat, I_mix, I_prime=networks.dec(f_ref_hat))


def classifier_logits(networks: Networks, I_mix: Tensor, I_q: Tensor) -> Tensor:
    """(4, N, 4): the classifier run once for each candidate, each run with its own batch statistics."""
    return torch.stack([networks.cls(I_mix, I_qj) for I_qj in I_q])


def generator_losses(networks: Networks, batch: Batch, config: LossConfig) -> tuple[GeneratorLosses, Scenes]:
    """The parts of L_G and what they were computed from."""
    s = scenes(networks, batch)
    logits = classifier_logits(networks, s.I_mix, batch.I_q)
    return losses.generation(batch.I_ref, s, networks.dsc(s.I_mix), logits, batch.mask, config), s


def iterate(networks: Networks, optimizers: Optimizers, batches: Sequence[Batch], config: LossConfig) -> StepMetrics:
    """Update generator, generator, classifier, discriminator, each with the parameters that the last one left.

    Args:
        networks: in training mode.
        optimizers: one for each of generator, classifier and discriminator.
        batches: four, one for each update; the thesis gives all four the same.
        config: weights of the losses.
    """
    for batch in batches[:2]:
        with frozen(networks.dsc, networks.cls):
            parts, s = generator_losses(networks, batch, config)
            update(optimizers.generator, parts.L_G)

    batch = batches[2]
    with torch.no_grad():
        I_mix = networks.dec(mix(networks, batch)[1])
    L_cls = losses.classification(classifier_logits(networks, I_mix, batch.I_q), batch.mask, config.lambdas)
    update(optimizers.classifier, L_cls)

    batch = batches[3]
    with torch.no_grad():
        I_mix = networks.dec(mix(networks, batch)[1])
    L_D = losses.discrimination(networks.dsc(batch.I_ref), networks.dsc(I_mix), config.gan)
    update(optimizers.discriminator, L_D)

    return StepMetrics.of(parts, batches[1].I_ref, s.I_hat, L_cls, L_D)


def advance_u(networks: Networks, config: OptimConfig) -> None:
    """Move every u on by the configured steps of the power iteration: once all updates of an iteration are made."""
    for network, steps in zip((networks.dec, networks.dsc), config.sn_power_iterations, strict=True):
        for layer in network.modules():
            if isinstance(layer, SpectralWeight):
                for _ in range(steps):
                    layer.advance_u()
