"""What every checkpoint of a run knew, by numbers: `python -m bench.moments RUN STORE...`, for docs/learning.md.

A row for each checkpoint and store: PSNR of I_hat in dB, over up to 100 images; of up to 46 mixed scenes what
`lorbms_fast.engine.collapse` tells of the classifier and the discriminator, in training's arithmetic (the classifier
normalizes with the batch's own averages).

Then, of up to 24 mixed scenes, what asks for their fine detail. For each term of L_G, weighted: the norm of its
gradient at I_mix, times 1,000, and the share of that norm's square that is finer than 4x4 pixels. The root mean square
of what is finer in I_mix, I_hat and I_ref; the classifier's gain in nats a logit on I_mix, on I_mix averaged over 4x4
pixels and on pasted pixels; how real the discriminator calls I_mix, I_hat and I_ref.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.checkpoint import load
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.draws import generator
from lorbms_fast.engine.collapse import classifier_state, discriminator_state, gain
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.evaluation.generation import MIXED_SCENES
from lorbms_fast.optimizers import frozen
from lorbms_fast.psnr import blurred, psnr
from lorbms_fast.rendering.scenes import collage
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import neighbour_batches
from lorbms_fast.types import Batch, Networks

IMAGES, SCENES, DIFFERENTIATED = 100, 46, 24
TERMS = ("L_rec_prime", "L_adv", "L_cls")
COLUMNS = (
    *("PSNR", "classifier: spread", "gain", "discriminator: spread", "gap"),
    *(f"{of} of {term}" for term in TERMS for of in ("norm", "fine share")),
    *(f"fine in {image}" for image in ("I_mix", "I_hat", "I_ref")),
    *(f"gain on {image}" for image in ("I_mix", "averages", "collages")),
    *(f"{image} called real" for image in ("I_mix", "I_hat", "I_ref")),
)


def table(folder: Path, stores: Sequence[Path]) -> None:
    """Print a row for each checkpoint of a run and each store with neighbours."""
    run = Run.open(folder)
    networks = load_networks(folder)
    networks.cls.train()
    sources = [neighbour_batches(run.config, run.open_store(store)) for store in stores]
    print("iteration", "store", *COLUMNS, sep=" | ")
    for checkpoint in run.checkpoints():
        load(networks, checkpoint)
        for source in sources:
            row = (f"{value:.2f}" for value in (*_known(networks, run, source), *_gradients(networks, run, source)))
            print(f"{int(checkpoint.name):,}", source.store.path.name, *row, sep=" | ", flush=True)


def _mixed(source: NeighbourBatches, scenes: int) -> Batch:
    """Draw up to so many scenes to be mixed, the same whenever it is asked."""
    return next(source.each_image(generator(source.seed, MIXED_SCENES, 0), scenes))


@torch.no_grad()
def _known(networks: Networks, run: Run, source: NeighbourBatches) -> list[float]:
    impl = implementation(run.config.model, run.config.impl)
    images = to_float_nchw(np.asarray(source.store.images[:IMAGES]))
    batch = _mixed(source, SCENES)
    I_mix = impl.mixed_images(networks, batch)
    classifier = classifier_state(networks, impl, I_mix, batch)
    discriminator = discriminator_state(networks, batch.I_ref, I_mix)
    reached = psnr(networks.dec(networks.enc(images)), images).item()
    return [reached, classifier["spread"], classifier["gain"], *discriminator.values()]


def _gradients(networks: Networks, run: Run, source: NeighbourBatches) -> list[float]:
    """Measure the columns of the table from the first gradient on."""
    impl, loss = implementation(run.config.model, run.config.impl), run.config.loss
    batch = _mixed(source, DIFFERENTIATED)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("stores", type=Path, nargs="+")
    table(*vars(parser.parse_args()).values())
