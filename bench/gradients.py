"""What asks for the fine detail of mixed scenes: `python -m bench.gradients RUN STORE...`, for docs/learning.md.

A row for each checkpoint and store, of up to 24 mixed scenes. For each term of L_G, weighted: the norm of its gradient
at I_mix, times 1,000, and the share of that norm's square that is finer than 4x4 pixels. Then the root mean square of
what is finer in I_mix, I_hat and I_ref; the classifier's gain in nats a logit (it normalizes with the batch's own
averages) on I_mix, on I_mix averaged over 4x4 pixels and on pasted pixels; how real the discriminator calls I_mix,
I_hat and I_ref.
"""

import torch
from torch import Tensor

from bench.moments import asked, mixed, table
from lorbms_fast import losses
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.engine.collapse import gain
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.optimizers import frozen
from lorbms_fast.psnr import blurred
from lorbms_fast.rendering.scenes import collage
from lorbms_fast.run import Run
from lorbms_fast.types import Networks

SCENES = 24
TERMS = ("L_rec_prime", "L_adv", "L_cls")
COLUMNS = (
    *(f"{of} of {term}" for term in TERMS for of in ("norm", "fine share")),
    *(f"fine in {image}" for image in ("I_mix", "I_hat", "I_ref")),
    *(f"gain on {image}" for image in ("I_mix", "averages", "collages")),
    *(f"{image} called real" for image in ("I_mix", "I_hat", "I_ref")),
)


def measured(networks: Networks, run: Run, source: NeighbourBatches) -> list[float]:
    """Measure the columns of the table on a store's images."""
    impl, loss = implementation(run.config.model, run.config.impl), run.config.loss
    batch = mixed(source, SCENES)
    with frozen(networks.dsc, networks.cls):
        scenes = impl.scenes(networks, batch)
        L_rec_prime = losses.reconstruction(batch.I_ref, scenes.I_prime)
        L_adv = losses.deception(networks.dsc(scenes.I_mix), loss.gan)
        L_cls = impl.classifier_loss(networks, scenes.I_mix, batch, loss)
        values: list[float] = []
        for term in (loss.rec * L_rec_prime, loss.adv * L_adv, loss.cls * L_cls):
            (gradient,) = torch.autograd.grad(term, scenes.I_mix, retain_graph=True)
            norm = gradient.norm().item()
            values += [1000 * norm, (_fine(gradient).norm().item() / norm) ** 2 if norm else 0.0]
        with torch.no_grad():
            images = scenes.I_mix, scenes.I_hat, batch.I_ref
            values += [_fine(image).square().mean().sqrt().item() for image in images]
            for judged in (scenes.I_mix, _coarse(scenes.I_mix), collage(batch.I_ref, batch.I_q, batch.mask)):
                values.append(gain(*impl.classifier_logits(networks, judged, batch)).item())
            values += [networks.dsc(image).sigmoid().mean().item() for image in images]
    return values


def _coarse(images: Tensor) -> Tensor:
    return blurred(images, images.shape[-1] // 4)


def _fine(images: Tensor) -> Tensor:
    return images - _coarse(images)


if __name__ == "__main__":
    table(*asked(__doc__), COLUMNS, measured)
