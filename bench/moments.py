"""What every checkpoint of a run knew, by numbers: `python -m bench.moments RUN STORE...`, for docs/learning.md.

A row for each checkpoint and store: PSNR of I_hat in dB, over up to 100 images; of up to 46 mixed scenes what
`lorbms_fast.engine.collapse` tells of the classifier and the discriminator, in training's arithmetic (the classifier
normalizes with the batch's own averages).
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from lorbms_fast.checkpoint import load
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.draws import generator
from lorbms_fast.engine.collapse import classifier_state, discriminator_state
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.evaluation.generation import MIXED_SCENES
from lorbms_fast.psnr import psnr
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import neighbour_batches
from lorbms_fast.types import Batch, Networks

IMAGES, SCENES = 100, 46
COLUMNS = ("PSNR", "classifier: spread", "gain", "discriminator: spread", "gap")


Measured = Callable[[Networks, Run, NeighbourBatches], Iterable[float]]
"""Function that measures the networks of a run, the classifier in training mode, on a store's images."""


def asked(about: str) -> tuple[Path, list[Path]]:
    """Read a run and stores from the command line, whose help says what the program is about."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("stores", type=Path, nargs="+")
    found = parser.parse_args()
    return found.run, found.stores


def table(folder: Path, stores: Sequence[Path], columns: Sequence[str], measured: Measured) -> None:
    """Print a row for each checkpoint of a run and each store with neighbours, of what is measured."""
    run = Run.open(folder)
    networks = load_networks(folder)
    networks.cls.train()
    sources = [neighbour_batches(run.config, run.open_store(store)) for store in stores]
    print("iteration", "store", *columns, sep=" | ")
    for checkpoint in run.checkpoints():
        load(networks, checkpoint)
        for source in sources:
            row = (f"{value:.2f}" for value in measured(networks, run, source))
            print(f"{int(checkpoint.name):,}", source.store.path.name, *row, sep=" | ", flush=True)


def mixed(source: NeighbourBatches, scenes: int) -> Batch:
    """Draw up to so many scenes to be mixed, the same whenever it is asked."""
    return next(source.each_image(generator(source.seed, MIXED_SCENES, 0), scenes))


@torch.no_grad()
def _measured(networks: Networks, run: Run, source: NeighbourBatches) -> list[float]:
    impl = implementation(run.config.model, run.config.impl)
    images = to_float_nchw(np.asarray(source.store.images[:IMAGES]))
    batch = mixed(source, SCENES)
    I_mix = impl.mixed_images(networks, batch)
    classifier = classifier_state(networks, impl, I_mix, batch)
    discriminator = discriminator_state(networks, batch.I_ref, I_mix)
    reached = psnr(networks.dec(networks.enc(images)), images).item()
    return [reached, classifier["spread"], classifier["gain"], *discriminator.values()]


if __name__ == "__main__":
    table(*asked(__doc__), COLUMNS, _measured)
