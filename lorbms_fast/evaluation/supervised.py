"""Training networks on labelled pictures: the pretrainings and the finetuned rows of Table 4.3."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.dataloader.prefetch import ahead
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import central_crops, row_batches, shuffled_batch, training_crops
from lorbms_fast.evaluation.datasets.labelled import Labelled
from lorbms_fast.evaluation.probe import BETAS, BIAS, WEIGHT_STD
from lorbms_fast.kernels import advance_all_u
from lorbms_fast.optimizers import Adam
from lorbms_fast.progress import tqdm
from lorbms_fast.weights import read_checkpoint

SAVE_EVERY = 1_000
"""Number of iterations between two states on disk."""
TEST_BATCH = 64


@dataclass(frozen=True)
class Schedule:
    """Length, batches and learning rate of a training: Adam at one rate, or momentum 0.9 at one that falls in steps."""

    iterations: int
    batch_size: int
    side: int
    """Side of the views in pixels."""
    lr: float
    seed: int
    falls: tuple[float, int] | None = None
    """Factor on the rate of momentum, and number of iterations after each of which it counts; None: Adam."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer of some parameters."""
        return Adam(parameters, self.lr, BETAS) if self.falls is None else SGD(parameters, self.lr, momentum=0.9)

    def rate(self, iteration: int) -> float:
        """Compute the learning rate of an iteration, counted from 0.

        >>> schedule = Schedule(30, batch_size=1, side=96, lr=1.0, seed=0, falls=(0.5, 10))
        >>> [schedule.rate(iteration) for iteration in (0, 9, 10, 25)]
        [1.0, 1.0, 0.5, 0.25]
        """
        factor, every = self.falls or (1.0, 1)
        return self.lr * factor ** (iteration // every)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the softmax cross entropy of class numbers (N,), the mean sigmoid one of zeros and ones (N, C)."""
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


class WithLinear(nn.Module):
    """A backbone, images to (N, D), and a linear classifier on its features; the images' side decides D."""

    def __init__(self, backbone: nn.Module, side: int, classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = nn.Linear(feature_size(backbone, side), classes)
        nn.init.normal_(self.linear.weight, 0, WEIGHT_STD, generator=torch.Generator().manual_seed(seed))
        nn.init.constant_(self.linear.bias, BIAS)

    def forward(self, images: Tensor) -> Tensor:
        """Compute (N, classes) logits from (N, 3, S, S) in [-1, 1]."""
        return self.linear(self.backbone(images))


@torch.no_grad()
def feature_size(backbone: nn.Module, side: int) -> int:
    """Find D of a backbone's features (N, D) for images of a side."""
    device = next(backbone.parameters()).device
    training = backbone.training
    size = int(backbone.eval()(torch.zeros(1, 3, side, side, device=device)).shape[1])
    backbone.train(training)
    return size


def train_supervised(
    network: nn.Module, data: Labelled, rows: NDArray[np.int64], schedule: Schedule, device: torch.device, *,
    title: str, state: Path,
) -> float:  # fmt: skip
    """Train a network, in place, on random views of some rows' pictures, and return the last iteration's loss.

    The network takes images (N, 3, S, S) in [-1, 1] to logits, on the device; labels decide the loss, see
    `classification_loss`. An interrupted training goes on from its file `state`, which is removed at the end.
    """
    if len(rows) < schedule.batch_size:
        raise UserError(f"{title}: {len(rows)} pictures do not fill a batch of {schedule.batch_size}: lower it")
    network.train()
    optimizer = schedule.optimizer(network.parameters())
    setting = {"schedule": asdict(schedule), "pictures": data.fingerprint(), "rows": sha256(rows.tobytes()).hexdigest()}
    start = restore_state(state, setting, network, [optimizer])
    numbers = range(start, schedule.iterations)
    loss = torch.tensor(float("nan"))

    def make(iteration: int) -> tuple[Tensor, Tensor]:
        epoch, chosen = shuffled_batch(rows, schedule.batch_size, iteration, schedule.seed, 1 << 32)
        views = training_crops(data, chosen, schedule.side, schedule.seed, epoch)
        return views, torch.from_numpy(np.ascontiguousarray(data.labels[chosen]))

    with tqdm(total=schedule.iterations, initial=start, desc=title, unit="it", disable=not numbers) as bar:
        for iteration, (images, labels) in zip(numbers, ahead(make, numbers), strict=True):
            if schedule.falls is not None:  # Adam's rate is a tensor, which kernels may read
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(iteration)
            loss = classification_loss(network(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            advance_all_u(network)
            bar.update()
            done = iteration + 1
            if done % SAVE_EVERY == 0 and done < schedule.iterations:
                save_state(state, setting, done, network, [optimizer])
    network.eval()
    state.unlink(missing_ok=True)
    return float(loss.detach())


@torch.inference_mode()
def predictions(network: nn.Module, data: Labelled, side: int, device: torch.device) -> Tensor:
    """Predict the class of every picture's central view, (N,) int64 on the CPU."""
    views = ahead(lambda rows: central_crops(data, rows, side), row_batches(len(data), TEST_BATCH))
    return torch.cat([network(x.to(device)).argmax(1).cpu() for x in views])


def epochs(count: int, pictures: int, batch_size: int) -> int:
    """Count the iterations of so many passes over so many pictures.

    >>> epochs(60, pictures=1000, batch_size=128)
    420
    """
    return count * max(1, pictures // batch_size)


def save_state(
    path: Path, setting: Mapping[str, Any], iteration: int, network: nn.Module, optimizers: Sequence[Optimizer]
) -> None:
    """Write what a training needs to go on after `iteration` iterations, and the setting, in plain values, it is of."""
    content = {"setting": setting, "iteration": iteration, "network": network.state_dict()}
    with atomic_write(path) as partial:
        torch.save(content | {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}, partial)


def restore_state(path: Path, setting: Mapping[str, Any], network: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Load a state and return its iteration, 0 without one; UserError where it is damaged or of another setting."""
    if not path.exists():
        return 0
    content = read_checkpoint(path)
    try:
        if content["setting"] != setting:
            raise ValueError("its setting differs")
        network.load_state_dict(content["network"])
        for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(content["iteration"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path} is the state of another training: remove it") from error
