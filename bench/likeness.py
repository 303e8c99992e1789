"""`python -m bench.likeness`: are 2,000 iterations of the fast form like 2,000 of the reference, in float32?

Rounding makes two runs of a GAN go separate ways within some hundred iterations, so single losses cannot be compared:
their averages over many iterations are. A pair is one run of each form with the same initial values and the same
batches. If both forms draw their runs from one distribution, the two of a pair could as well be swapped: `likeness`
counts how many of all 2^S swappings of S pairs give averages as far apart as those seen.

Losses and states are kept in bench/.likeness as they come, so that it goes on where it was interrupted. The test of
what is there is printed at the end.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.gpu.setting import SMALL
from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.config import Impl, OptimConfig, TrainConfig
from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.photos import shipped
from lorbms_fast.progress import tqdm
from lorbms_fast.types import Batch, StepMetrics

KEPT = Path(__file__).parent / ".likeness"
CONFIG = TrainConfig(model=SMALL, optim=OptimConfig(generator_lr=1e-3), batch_size=3)
PHOTOGRAPHS = 300
LOSSES = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls_G", "L_cls", "L_D")
"""L_G is a sum of some of them."""
PART = 200
"""Iterations that are trained at a time."""
BLOCKS = 2
"""Averages are over halves of a run."""
FORMS: tuple[Impl, ...] = ("reference", "fast")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on from what is there, all runs a part at a time, and print the test."""
    parser = argparse.ArgumentParser(prog="python -m bench.likeness", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--iterations", type=int, default=2000, help="0 trains nothing more")
    options = parser.parse_args(arguments)
    KEPT.mkdir(exist_ok=True)
    retain_freed_memory()
    images = photographs()
    runs = list(product(range(PART, options.iterations + 1, PART), options.seeds, FORMS))
    for until, seed, form in tqdm(runs, unit="part", desc=f"parts of {PART} iterations"):
        train(form, seed, images, until)
    print(report([seed for seed in options.seeds if all(kept(form, seed).exists() for form in FORMS)]))


def kept(form: Impl, seed: int) -> Path:
    """Folder of a run."""
    return KEPT / f"{form}-{seed}.pt"


def differences(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, L, BLOCKS): averages over blocks of losses (S, iterations, L), of S seeds, less those of the reference."""
    blocks = np.array_split(losses - reference, BLOCKS, axis=1)
    return np.stack([block.mean(1) for block in blocks], axis=-1)


def likeness(D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p-values of paired differences, by all 2^S swappings of pairs (max-T: Westfall and Young, 1993).

    The smallest of them is at most alpha with probability alpha, if both forms draw from one distribution. For D
    (S, L, B), of S pairs, they are (L, B): the part of all swappings whose largest T is at least this one's T,
    `T = |mean_s D| / rms_s D`.
    """
    rms = np.sqrt((D**2).mean(0))
    signs = np.array(list(product((1.0, -1.0), repeat=len(D))))
    means = np.abs(np.einsum("ps,slb->plb", signs, D)) / len(D)
    T = np.divide(means, rms, out=np.zeros_like(means), where=rms > 0)
    largest = T.reshape(len(signs), -1).max(1)
    p: NDArray[np.float64] = (largest[:, None, None] >= T[0] - 1e-12).mean(0)
    return p


def report(seeds: Sequence[int]) -> str:
    """The test of these seeds' pairs, over the iterations that all have."""
    if not seeds:
        return "no pairs yet"
    runs = [[torch.load(kept(form, seed), weights_only=True)["losses"] for seed in seeds] for form in FORMS]
    length = min(len(losses) for form in runs for losses in form)
    reference, ours = (torch.stack([losses[:length] for losses in form]).numpy() for form in runs)
    p = likeness(differences(ours, reference))
    loss = LOSSES[int(np.argmin(p.min(1)))]
    return f"{len(seeds)} pairs of {length:,} iterations: smallest adjusted p {p.min():.3f}, of {loss}"


def photographs() -> Tensor:
    """(M, 3, 64, 64): shipped photographs."""
    squares = [center_crop(read_rgb(photo.path), CONFIG.model.image_size) for photo in shipped.scenes()[:PHOTOGRAPHS]]
    return to_float_nchw(np.stack(squares))


def batch(images: Tensor, seed: int, number: int) -> Batch:
    """A batch of a run: images at random, one to three quadrants replaced."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + number)
    n = CONFIG.batch_size
    drawn = images[torch.randint(len(images), (5, n), generator=generator)]
    replaced = torch.randint(1, 4, (n, 1), generator=generator)
    return Batch(drawn[0], drawn[1:], torch.rand((n, 4), generator=generator).argsort(1) < replaced)


def train(form: Impl, seed: int, images: Tensor, until: int) -> NDArray[np.float64]:
    """Take a run, kept in `KEPT`, up to an iteration; returns all iterations' losses, (iterations, len(LOSSES))."""
    networks = build(CONFIG.model, form, seed).train()
    optimizers = Optimizers.of(networks, CONFIG.optim)
    path = kept(form, seed)
    losses: list[Tensor] = []
    if path.exists():
        state = torch.load(path, weights_only=True)
        losses = list(state["losses"])
        networks.load_state_dict(state["networks"])
        for name, optimizer in vars(optimizers).items():
            optimizer.load_state_dict(state[name])
    columns = [StepMetrics.names().index(name) for name in LOSSES]
    for number in range(len(losses), until):
        metrics = iterate(IMPLS[form], networks, optimizers, [batch(images, seed, number)], CONFIG.loss, CONFIG.optim)
        losses.append(metrics.stacked()[columns])
    state = {"losses": torch.stack(losses), "networks": networks.state_dict()}
    state |= {name: optimizer.state_dict() for name, optimizer in vars(optimizers).items()}
    with atomic_write(path) as partial:
        torch.save(state, partial)
    return state["losses"].numpy()


if __name__ == "__main__":
    main()
