"""One training iteration of LORBMS (thesis, Figure 3.2 and Section 3.4).

I_ref is an image, I_q1 to I_q4 are others, one candidate for each of its quadrants; m_i = 1 where quadrant i is to be
replaced; chunk i of a code f belongs to quadrant i.

    f_ref     = Enc(I_ref)        f_mix[i]     = m_i ? Enc(I_qi)[i] : f_ref[i]        mix (Algorithm 1)
    I_hat     = Dec(f_ref)        I_mix        = Dec(f_mix)
    f_mix_hat = Enc(I_mix)        f_ref_hat[i] = m_i ? f_ref[i] : f_mix_hat[i]        unmix
    I_prime   = Dec(f_ref_hat)

    L_rec = mean |I_ref - I_hat| + mean |I_ref - I_prime|
    L_adv = bce(D(I_mix), 1)
    L_cls = sum_j lambda_j bce(Cls(I_mix, I_qj), y_j)          y_j is 1 at j if m_j = 1, else 0 throughout
    L_G   = w_rec L_rec + w_adv L_adv + w_cls L_cls
    L_D   = bce(D(I_ref), 1) + bce(D(I_mix), 0)

    Enc, Dec <- Adam(L_G)  twice;   Cls <- Adam(L_cls);   D <- Adam(L_D);   u <- power iteration, for every u

Each update sees the parameters that the one before left. `iterate` is the last line; the others are an
`IterationImpl`, of which there are three: `reference.iteration.Reference`, `engine.fast.Fast`, `engine.tiled.Tiled`.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from lorbms_fast.config import LossConfig, OptimConfig, Precision, TrainConfig
from lorbms_fast.engine.precision import precision
from lorbms_fast.kernels import advance_all_u
from lorbms_fast.kernels.passes import constant
from lorbms_fast.optimizers import Optimizers, frozen, update
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes, StepMetrics

UPDATES = 4
"""Number of updates in an iteration: generator, generator, classifier, discriminator."""


def batches_of(config: TrainConfig) -> int:
    """Count the different batches that an iteration takes."""
    return UPDATES if config.optim.batches == "fresh" else 1


class IterationImpl(Protocol):
    """A way to compute the equations."""

    def scenes(self, networks: Networks, batch: Batch) -> Scenes:
        """Compute the forward graph, from f_ref to I_prime."""

    def generator_losses(self, networks: Networks, batch: Batch, config: LossConfig) -> tuple[GeneratorLosses, Scenes]:
        """Compute L_G, its terms, and the scenes that they judge."""

    def mixed_images(self, networks: Networks, batch: Batch) -> Tensor:
        """Compute I_mix alone, (N, 3, S, S), without gradients."""

    def classifier_logits(self, networks: Networks, I_mix: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the classifier says of I_mix, logits, and what it should, 0 or 1, both (runs, N, tiles)."""

    def classifier_loss(self, networks: Networks, I_mix: Tensor, batch: Batch, config: LossConfig) -> Tensor:
        """Compute L_cls."""

    def discriminator_loss(self, networks: Networks, I_ref: Tensor, I_mix: Tensor, config: LossConfig) -> Tensor:
        """Compute L_D."""


def iterate(
    impl: IterationImpl, networks: Networks, optimizers: Optimizers, batches: Sequence[Batch], loss: LossConfig,
    optim: OptimConfig, arithmetic: Precision = "float32",
) -> StepMetrics:  # fmt: skip
    """Update generator, generator, classifier and discriminator, then move every u on.

    There is one batch for all four updates, as in the thesis, or four. The networks are in training mode, the learning
    rates this iteration's.
    """
    *for_generator, for_classifier, for_discriminator = [*batches] * (UPDATES // len(batches))

    with precision(batches[0].I_ref.device, arithmetic), constant(networks.dsc, networks.cls):
        with frozen(networks.dsc, networks.cls):
            for batch in for_generator:
                losses, scenes = impl.generator_losses(networks, batch, loss)
                update(optimizers.generator, losses.L_G)

        I_mix = impl.mixed_images(networks, for_classifier)
        L_cls = impl.classifier_loss(networks, I_mix, for_classifier, loss)
        update(optimizers.classifier, L_cls)

        if for_discriminator is not for_classifier:
            I_mix = impl.mixed_images(networks, for_discriminator)
        L_D = impl.discriminator_loss(networks, for_discriminator.I_ref, I_mix, loss)
        update(optimizers.discriminator, L_D)

        metrics = StepMetrics.of(losses, for_generator[-1].I_ref, scenes.I_hat, L_cls, L_D)

    for network, steps in zip((networks.dec, networks.dsc), optim.sn_power_iterations, strict=True):
        advance_all_u(network, steps)
    return metrics
