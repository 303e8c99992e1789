"""Linear classification of frozen features (thesis, Table 4.3): all folds at once as one batched linear problem."""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from lorbms_fast.config import STRICT, Count, Natural, Rate
from lorbms_fast.draws import generator
from lorbms_fast.evaluation.alexnet import HIDDEN, WIDTHS
from lorbms_fast.optimizers import Adam, update
from lorbms_fast.progress import tqdm

BETAS = (0.9, 0.999)
WEIGHT_STD, BIAS = 0.02, 0.02


@dataclass(frozen=True, config=STRICT)
class ProbeConfig:
    """Training of a linear classifier; the defaults are the thesis's."""

    epochs: Count = 200
    """Passes over a fold."""
    batch_size: Count = 100
    """Batch size; the thesis does not say."""
    lr: Rate = 1e-3
    """Adam's learning rate."""
    seed: Natural = 0
    """Seed of initial values, order and views."""


@dataclass(frozen=True, config=STRICT)
class LinearConfig:
    """The protocol of Table 4.3."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """The linear classifier."""
    views: Count | None = None
    """Random views of each training picture, taken in turn; by default a new one each epoch, as in the thesis. Fewer
    take less time and disk."""
    side: Annotated[int, Field(ge=64, multiple_of=32)] = 96
    """Side of the pictures in pixels."""
    finetune_batch: Count = 100
    """Batch size where the backbone is trained too; the thesis does not say."""
    stl10_epochs: Count = 150
    """Passes over STL-10's training set in the pretrainings on it."""
    stl10_batch: Count = 100
    """Batch size there; the thesis does not say."""
    pascal_iterations: Count = 80_000
    """Steps of the pretraining on PASCAL."""
    pascal_batch: Count = 16
    """Batch size there; the thesis does not say."""
    alexnet_epochs: Count = 60
    """Passes of AlexNet over ImageNet or over clustered images."""
    alexnet_batch: Count = 128
    """Batch size there."""
    large_side: Annotated[int, Field(ge=64, multiple_of=32)] = 224
    """Side of the pictures in the pretrainings on PASCAL, ImageNet and clusters."""
    clusters: Count = 2_000
    """Number of clusters in knowledge transfer."""
    alexnet_widths: tuple[Count, Count, Count, Count, Count] = WIDTHS
    """Maps of AlexNet's convolutions."""
    alexnet_hidden: Count = HIDDEN
    """Units of its hidden layers."""


def initial_classifier(features: int, classes: int, seed: int, fold: int) -> tuple[Tensor, Tensor]:
    """Draw weights (features, classes) from N(0, 0.02), with biases (classes,) of 0.02, for one fold."""
    of_fold = Generator().manual_seed(1_000 * seed + fold)
    return torch.empty(features, classes).normal_(0, WEIGHT_STD, generator=of_fold), torch.full((classes,), BIAS)


def train_folds(
    epoch_features: Callable[[int], Tensor], labels: Tensor, folds: Mapping[int, NDArray[np.int64]], classes: int,
    config: ProbeConfig, device: torch.device,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Train one linear classifier a fold, softmax cross entropy, all together.

    The classifiers share nothing: the gradient of the sum of their losses is each one's own, and Adam works number by
    number. A fold's initial values and order depend on its number alone, so training it by itself gives the same.

    `epoch_features` gives all pictures' features (N, D) in an epoch's views, on any device; labels (N,) are int64;
    `folds` are the rows (n,) of pictures by the fold's number, equally many in all. Returns weights (F, D, classes) and
    biases (F, 1, classes), in the order of `folds`.
    """
    count = len(next(iter(folds.values())))
    features = epoch_features(0).shape[1]
    initial = [initial_classifier(features, classes, config.seed, fold) for fold in folds]
    W = torch.stack([weights for weights, _ in initial]).to(device).requires_grad_()
    b = torch.stack([biases for _, biases in initial])[:, None].to(device).requires_grad_()
    labels = labels.to(device)
    optimizer = Adam([W, b], config.lr, BETAS)
    for epoch in tqdm(range(config.epochs), desc=f"linear, {len(folds)} folds", unit="epochs"):
        x = epoch_features(epoch).to(device)
        orders = [rows[generator(config.seed, fold, epoch).permutation(count)] for fold, rows in folds.items()]
        for batch in torch.from_numpy(np.stack(orders)).to(device).split(config.batch_size, dim=1):
            logits = torch.baddbmm(b, x[batch].float(), W)
            loss = F.cross_entropy(logits.flatten(0, 1), labels[batch].flatten(), reduction="sum") / batch.shape[1]
            update(optimizer, loss)
    return W.detach(), b.detach()


@torch.inference_mode()
def accuracies(W: Tensor, b: Tensor, features: Tensor, labels: Tensor) -> list[float]:
    """Compute the top-1 accuracy of every classifier on (M, D) features, in percent."""
    features, labels = features.to(W), labels.to(W.device)
    predicted = torch.baddbmm(b, features.expand(len(W), -1, -1), W).argmax(2)
    return (predicted == labels).double().mean(1).mul(100).tolist()
