"""The training iteration for systems that are mixed or classified otherwise than the thesis's.

Any number of tiles, of which each may have several chunks; one candidate for each tile, or one for all; a classifier
that sees candidates one by one or all images at once. Written plainly, as the reference is, for networks of any form:
`lorbms_fast.engine.iteration` is for the thesis's system alone.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import LossConfig
from lorbms_fast.engine.freezing import frozen
from lorbms_fast.engine.optimizers import Optimizers, update
from lorbms_fast.kernels.lorbms import mix_chunks
from lorbms_fast.models.passes import Pass, passes
from lorbms_fast.reference.classifier import PAIR
from lorbms_fast.tiles import replaced_chunks, tile_of_chunk
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes, StepMetrics

Logits = Callable[[Networks, Tensor, Tensor], Tensor]
"""`(networks, I_mix, I_q) -> (4, N, 4)`: a form's `classifier_logits`, for classifiers of pairs."""


def mix(encode: Pass, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Encode the reference images and the candidates in use, in one batch, and mix.

    Returns:
        f_ref and f_mix, both (N, chunks, chunk); (N, chunks) bool, True where the chunk was replaced.
    """
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


def scenes(networks: Networks, batch: Batch) -> Scenes:
    """The whole forward graph up to the images."""
    encode, encode_mix = passes(networks.enc, 2)
    decode, decode_ref = passes(networks.dec, 2)
    f_ref, f_mix, replaced = mix(encode, batch)
    I_hat, I_mix = decode(torch.cat([f_ref, f_mix])).chunk(2)
    f_mix_hat = encode_mix(I_mix)
    f_ref_hat = mix_chunks(f_mix_hat, f_ref, replaced)
    return Scenes(f_ref, f_mix, f_mix_hat, f_ref_hat, I_hat, I_mix, I_prime=decode_ref(f_ref_hat))


def classification(networks: Networks, I_mix: Tensor, batch: Batch, config: LossConfig, pairs: Logits) -> Tensor:
    """L_cls of a classifier of either kind."""
    if networks.cls.images > PAIR:
        return losses.provenance(networks.cls.all_at_once(I_mix, batch.I_ref, batch.I_q), batch.mask)
    return losses.classification(pairs(networks, I_mix, batch.I_q), batch.mask, config.lambdas)


def generator_losses(
    networks: Networks, batch: Batch, config: LossConfig, *, pairs: Logits
) -> tuple[GeneratorLosses, Scenes]:
    """The parts of L_G and what they were computed from."""
    s = scenes(networks, batch)
    return losses.weighted(
        L_rec_hat=losses.reconstruction(batch.I_ref, s.I_hat),
        L_rec_prime=losses.reconstruction(batch.I_ref, s.I_prime),
        L_adv=losses.deception(networks.dsc(s.I_mix), config.gan),
        L_cls=classification(networks, s.I_mix, batch, config, pairs),
        config=config,
    ), s


def iterate(
    networks: Networks, optimizers: Optimizers, batches: Sequence[Batch], config: LossConfig, *, pairs: Logits
) -> StepMetrics:
    """Update generator, generator, classifier, discriminator; documented at the reference's function of this name."""
    for batch in batches[:2]:
        with frozen(networks.dsc, networks.cls):
            parts, s = generator_losses(networks, batch, config, pairs=pairs)
            update(optimizers.generator, parts.L_G)

    for_classifier, for_discriminator = batches[2:]
    I_mix = mixed_images(networks, for_classifier)
    L_cls = classification(networks, I_mix, for_classifier, config, pairs)
    update(optimizers.classifier, L_cls)

    if for_discriminator is not for_classifier:
        I_mix = mixed_images(networks, for_discriminator)
    L_D = losses.discrimination(networks.dsc(for_discriminator.I_ref), networks.dsc(I_mix), config.gan)
    update(optimizers.discriminator, L_D)

    return StepMetrics.of(parts, batches[1].I_ref, s.I_hat, L_cls, L_D)


@torch.no_grad()
def mixed_images(networks: Networks, batch: Batch) -> Tensor:
    """I_mix without gradients, (N, 3, S, S)."""
    I_mix: Tensor = networks.dec(mix(networks.enc, batch)[1])
    return I_mix
