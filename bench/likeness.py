"""`python -m bench.likeness`: are 2,000 iterations of the fast form like 2,000 of the reference, in float32?

Rounding makes two runs of a GAN go separate ways within some hundred iterations, so single losses cannot be compared:
their averages over many iterations are. A pair is one run of each form with the same initial values and the same
batches. If both forms draw their runs from one distribution, the two of a pair could as well be swapped: `likeness`
counts how many of all 2^S swappings of S pairs give averages as far apart as those seen.

Losses and states are kept in bench/.likeness as they come, so that it goes on where it was interrupted. `--report`
prints the test of what is there, `--ways` trains forms with a mistake in them: what would the test have noticed?
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.config import Impl, LossConfig, ModelConfig, OptimConfig, TrainConfig
from lorbms_fast.dataloader.center_crop import center_crop
from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import IterationImpl, iterate
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.photos import shipped
from lorbms_fast.progress import tqdm
from lorbms_fast.types import Batch, StepMetrics

KEPT = Path(__file__).parent / ".likeness"
CONFIG = TrainConfig(
    model=ModelConfig(
        stem=3,
        growth=2,
        layers=(1, 1, 1, 1, 1),
        chunk=4,
        discriminator_width=2,
        classifier_widths=(4, 4, 4, 4, 4),
        classifier_hidden=8,
    ),
    optim=OptimConfig(generator_lr=1e-3),
    batch_size=3,
)
PHOTOGRAPHS = 300
ITERATIONS = 2000
LOSSES = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls_G", "L_cls", "L_D")
"""L_G is a sum of some of them."""
PART = 200
"""Iterations that are trained at a time."""
BLOCKS = 2
"""Averages are over halves of a run."""


class Trained(NamedTuple):
    """A way to train: an implementation of the iteration, whose networks it takes, and its settings."""

    impl: IterationImpl
    networks: Impl
    loss: LossConfig
    optim: OptimConfig


def _changed(loss: dict[str, object] | None = None, optim: dict[str, object] | None = None) -> Trained:
    changed_loss = replace(CONFIG.loss, **(loss or {}))  # type: ignore[arg-type]
    changed_optim = replace(CONFIG.optim, **(optim or {}))  # type: ignore[arg-type]
    return Trained(IMPLS["fast"], "fast", changed_loss, changed_optim)


def _standing_u() -> Trained:
    trained = _changed()._replace(optim=replace(CONFIG.optim))
    object.__setattr__(trained.optim, "sn_power_iterations", (0, 0))  # which settings are not allowed to say
    return trained


WAYS: dict[str, Callable[[], Trained]] = {
    "reference": lambda: Trained(IMPLS["reference"], "reference", CONFIG.loss, CONFIG.optim),
    "fast": _changed,
    "lambda_1 of L_cls 5% larger": lambda: _changed(loss={"lambdas": (1.05, 1.0, 1.0, 1.0)}),
    "lambda_rec 5% larger": lambda: _changed(loss={"rec": 1.05 * CONFIG.loss.rec}),
    "lambda_adv 10% larger": lambda: _changed(loss={"adv": 1.1 * CONFIG.loss.adv}),
    "u never advanced": _standing_u,
    "rate of the discriminator 5% larger": lambda: _changed(
        optim={"discriminator_lr": 1.05 * CONFIG.optim.discriminator_lr}
    ),
}
"""The two that are compared, and forms with a mistake in them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on from what is there, all runs a part at a time."""
    parser = argparse.ArgumentParser(prog="python -m bench.likeness", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["reference", "fast"])
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--report", action="store_true", help="train nothing, print the tests of what is there")
    options = parser.parse_args(arguments)
    if options.report:
        print(report(options.seeds))
        return
    KEPT.mkdir(exist_ok=True)
    retain_freed_memory()
    images = photographs()
    parts = range(PART, options.iterations + 1, PART)
    runs = list(product(parts, options.seeds, options.ways))
    for until, seed, way in tqdm(runs, unit="part", desc=f"parts of {PART} iterations"):
        train(way, seed, images, until)


def kept(way: str, seed: int) -> Path:
    """Where a run lies."""
    return KEPT / f"{list(WAYS).index(way)}-{seed}.pt"


def differences(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages over blocks of one form's losses less those of the reference.

    Args:
        losses: (S, iterations, L), of S seeds.
        reference: the same of the reference.

    Returns:
        (S, L, BLOCKS).
    """
    blocks = np.array_split(losses - reference, BLOCKS, axis=1)
    return np.stack([block.mean(1) for block in blocks], axis=-1)


def likeness(D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p-values of paired differences, by all 2^S swappings of pairs (max-T: Westfall and Young, 1993).

    The smallest of them is at most alpha with probability alpha, if both forms draw from one distribution.

    Args:
        D: (S, L, B), of S pairs.

    Returns:
        (L, B): the part of all swappings whose largest T is at least this one's T, `T = |mean_s D| / rms_s D`.
    """
    rms = np.sqrt((D**2).mean(0))
    signs = np.array(list(product((1.0, -1.0), repeat=len(D))))
    means = np.abs(np.einsum("ps,slb->plb", signs, D)) / len(D)
    T = np.divide(means, rms, out=np.zeros_like(means), where=rms > 0)
    largest = T.reshape(len(signs), -1).max(1)
    p: NDArray[np.float64] = (largest[:, None, None] >= T[0] - 1e-12).mean(0)
    return p


def report(seeds: Sequence[int]) -> str:
    """The tests of every way that has runs, over the iterations that all its pairs have, as a Markdown table."""
    lines = ["| form | pairs | iterations | smallest adjusted p | loss |", "|---|---|---|---|---|"]
    for way in WAYS:
        pairs = [seed for seed in seeds if kept(way, seed).exists() and kept("reference", seed).exists()]
        if way == "reference" or not pairs:
            continue
        runs = [[_losses(form, seed) for seed in pairs] for form in (way, "reference")]
        length = min(len(losses) for form in runs for losses in form)
        ours, reference = (np.stack([losses[:length] for losses in form]) for form in runs)
        p = likeness(differences(ours, reference))
        loss = LOSSES[int(np.argmin(p.min(1)))]
        lines.append(f"| {way} | {len(pairs)} | {length:,} | {p.min():.3f} | {loss} |")
    return "\n".join(lines)


def _losses(way: str, seed: int) -> NDArray[np.float64]:
    losses: NDArray[np.float64] = torch.load(kept(way, seed), weights_only=True)["losses"].numpy()
    return losses


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


def train(way: str, seed: int, images: Tensor, until: int) -> NDArray[np.float64]:
    """Take a run up to an iteration; what it was before and is then lies in `KEPT`.

    Returns:
        Losses of every iteration, (iterations, len(LOSSES)).
    """
    impl, whose, loss, optim = WAYS[way]()
    networks = build(CONFIG.model, whose, seed).train()
    optimizers = Optimizers.of(networks, optim)
    path = kept(way, seed)
    losses: list[Tensor] = []
    if path.exists():
        state = torch.load(path, weights_only=True)
        losses = list(state["losses"])
        networks.load_state_dict(state["networks"])
        for name, optimizer in vars(optimizers).items():
            optimizer.load_state_dict(state[name])
    columns = [StepMetrics.names().index(name) for name in LOSSES]
    for number in range(len(losses), until):
        metrics = iterate(impl, networks, optimizers, [batch(images, seed, number)], loss, optim)
        losses.append(metrics.stacked()[columns])
    state = {"losses": torch.stack(losses), "networks": networks.state_dict()}
    state |= {name: optimizer.state_dict() for name, optimizer in vars(optimizers).items()}
    with atomic_write(path) as partial:
        torch.save(state, partial)
    return state["losses"].numpy()


if __name__ == "__main__":
    main()
