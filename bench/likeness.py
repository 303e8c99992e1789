"""`python -m bench.likeness`: are 2,000 iterations of the fast form like 2,000 of the reference, in float32?

Rounding makes two runs of a GAN go separate ways within some hundred iterations, so single losses cannot be compared:
their averages over many iterations are. A pair is one run of each form with the same initial values and the same
batches. If both forms draw their runs from one distribution, the two of a pair could as well be swapped: `likeness`
counts how many of all 2^S swappings of S pairs give averages as far apart as those seen.

Losses are kept in bench/.likeness as they come, the averages in bench/likeness.json; a wrong form beside the right
ones shows what the test would have noticed.
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
from tqdm import tqdm

from lorbms_fast.config import LossConfig, ModelConfig, OptimConfig, TrainConfig
from lorbms_fast.dataloader.batches import Batch
from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.pixels import to_network
from lorbms_fast.dataloader.square import central_square
from lorbms_fast.engine.forms import FORMS, Form
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.pages import keep_pages
from lorbms_fast.engine.report import Report
from lorbms_fast.files import whole_file
from lorbms_fast.models import build
from lorbms_fast.photos import shipped

AVERAGES = Path(__file__).parent / "likeness.json"
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
    """A way to train: a form of the iteration and its settings."""

    form: Form
    impl: str
    loss: LossConfig
    optim: OptimConfig


def _changed(loss: dict[str, object] | None = None, optim: dict[str, object] | None = None) -> Trained:
    changed_loss = replace(CONFIG.loss, **(loss or {}))  # type: ignore[arg-type]
    changed_optim = replace(CONFIG.optim, **(optim or {}))  # type: ignore[arg-type]
    return Trained(FORMS["torch"], "torch", changed_loss, changed_optim)


WAYS: dict[str, Callable[[], Trained]] = {
    "reference": lambda: Trained(FORMS["reference"], "reference", CONFIG.loss, CONFIG.optim),
    "fast": _changed,
    "lambda_1 of L_cls 5% larger": lambda: _changed(loss={"lambdas": (1.05, 1.0, 1.0, 1.0)}),
    "lambda_rec 5% larger": lambda: _changed(loss={"rec": 1.05 * CONFIG.loss.rec}),
    "lambda_adv 10% larger": lambda: _changed(loss={"adv": 1.1 * CONFIG.loss.adv}),
    "u never advanced": lambda: _changed()._replace(
        form=replace(FORMS["torch"], advance_u=lambda networks, config: None)
    ),
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
    options = parser.parse_args(arguments)
    KEPT.mkdir(exist_ok=True)
    keep_pages()
    images = photographs()
    parts = range(PART, options.iterations + 1, PART)
    runs = list(product(parts, options.seeds, options.ways))
    for until, seed, way in tqdm(runs, unit="part", desc=f"parts of {PART} iterations"):
        train(way, seed, images, until)


def photographs() -> Tensor:
    """(M, 3, 64, 64): shipped photographs."""
    squares = [
        central_square(read_rgb(photo.path), CONFIG.model.image_size) for photo in shipped.scenes()[:PHOTOGRAPHS]
    ]
    return to_network(np.stack(squares))


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
    form, impl, loss, optim = WAYS[way]()
    networks = build(CONFIG.model, impl, seed).train()  # type: ignore[arg-type]
    optimizers = Optimizers.of(networks, optim)
    path = KEPT / f"{list(WAYS).index(way)}-{seed}.pt"
    losses: list[Tensor] = []
    if path.exists():
        state = torch.load(path, weights_only=True)
        losses = list(state["losses"])
        networks.load_state_dict(state["networks"])
        for name, optimizer in vars(optimizers).items():
            optimizer.load_state_dict(state[name])
    columns = [Report.names().index(name) for name in LOSSES]
    for number in range(len(losses), until):
        report = form.iterate(networks, optimizers, [batch(images, seed, number)] * 4, loss)
        form.advance_u(networks, optim)
        losses.append(report.stacked()[columns])
    state = {"losses": torch.stack(losses), "networks": networks.state_dict()}
    state |= {name: optimizer.state_dict() for name, optimizer in vars(optimizers).items()}
    with whole_file(path) as partial:
        torch.save(state, partial)
    return state["losses"].numpy()


if __name__ == "__main__":
    main()
