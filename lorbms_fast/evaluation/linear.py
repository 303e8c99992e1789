"""Table 4.3: linear classification on STL-10, row by row."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from shutil import rmtree

import torch
from torch import nn

from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.features import cached_features, weights_fingerprint
from lorbms_fast.evaluation.pretraining import Sources
from lorbms_fast.evaluation.probe import LinearConfig, accuracies, train_folds
from lorbms_fast.evaluation.results import Result, cached, mean_and_sd, spread
from lorbms_fast.evaluation.supervised import Schedule, WithLinear, epochs, feature_size, predictions, train_supervised


@dataclass(frozen=True)
class Row:
    """A row of Table 4.3."""

    title: str
    thesis: tuple[float, float]
    """Mean and standard deviation of the accuracy, in percent."""
    backbone: Callable[[Sources], nn.Module]
    finetuned: bool = False


def check_needed(name: str, s: Sources) -> None:
    """Raise UserError where a row needs pictures that are not named, or what is named is missing."""
    for option, path in (("voc", s.voc), ("imagenet", s.imagenet), ("alexnet", s.alexnet)):
        if path is not None and not path.exists():
            raise UserError(f"--{option} {path} is missing: check the path")
    if name == "pascal-encoder" and s.voc is None:
        raise UserError(f"row '{name}' needs --voc: the folder of PASCAL VOC, such as VOCdevkit/VOC2007")
    if name == "imagenet-alexnet" and s.imagenet is None and s.alexnet is None:
        raise UserError(f"row '{name}' needs --imagenet, a folder of class folders, or --alexnet, its weights")


ROWS = {
    "random": Row("random encoder", (43.4, 0.4), Sources.random_encoder),
    "random-finetuned": Row("random encoder, finetuned", (56.5, 0.6), Sources.random_encoder, finetuned=True),
    "stl10-encoder": Row("STL-10 encoder", (78.7, 0.1), Sources.stl10_encoder),
    "pascal-encoder": Row("PASCAL encoder", (47.1, 0.2), Sources.pascal_encoder),
    "stl10-alexnet": Row("STL-10 AlexNet", (60.9, 0.1), Sources.stl10_alexnet),
    "imagenet-alexnet": Row("ImageNet AlexNet (conv1-5)", (62.4, 0.3), Sources.imagenet_alexnet),
    "discriminator": Row("LORBMS discriminator", (62.8, 0.3), Sources.discriminator),
    "discriminator-finetuned": Row(
        "LORBMS discriminator, finetuned", (62.6, 0.2), Sources.discriminator, finetuned=True
    ),
    "encoder": Row("LORBMS encoder", (36.5, 0.2), Sources.encoder),
    "encoder-finetuned": Row("LORBMS encoder, finetuned", (54.2, 0.2), Sources.encoder, finetuned=True),
    "knowledge-transfer-discriminator": Row(
        "knowledge transfer, discriminator",
        (42.9, 0.3),
        lambda s: s.knowledge_transfer("discriminator", s.discriminator()),
    ),
    "knowledge-transfer-encoder": Row(
        "knowledge transfer, encoder", (38.5, 0.1), lambda s: s.knowledge_transfer("encoder", s.encoder())
    ),
}


def evaluate_row(name: str, sources: Sources, *, keep_features: bool = False) -> Result:
    """Measure the accuracy of one of `ROWS` over ten folds, or read it; UserError where the row needs more."""
    check_needed(name, sources)
    row, config, stl10 = ROWS[name], sources.config, sources.stl10
    backbone = row.backbone(sources).to(sources.device).eval()
    setting = {
        "row": name,
        "weights": weights_fingerprint(backbone),
        "pictures": [stl10.train.fingerprint(), stl10.test.fingerprint()],
        "folds": list(stl10.folds.shape),
        "config": asdict(config),
    }

    def make() -> Result:
        began = time.perf_counter()
        if row.finetuned:
            folds = _finetuned(name, backbone, sources, setting)
        else:
            folds = _frozen(name, backbone, sources, keep_features)
        mean, sd = mean_and_sd(folds)
        return {
            **{"row": name, "title": row.title, "accuracy": mean, "sd": sd, "folds": folds, "thesis": row.thesis},
            "classifier_parameters": classifier_parameters(backbone, config.side, len(stl10.train.classes)),
            "pictures": stl10.train.source,
            "lengths": in_words(name, config),
            "seconds": round(time.perf_counter() - began, 1),
        }

    return cached(sources.folder / f"{name}.json", setting, make)


def in_columns(result: Result) -> tuple[str, str, str, str]:
    """Write a row of the table: its title, accuracy here and in the thesis, and the classifier's parameters."""
    here, thesis = spread(result["accuracy"], result["sd"]), spread(*result["thesis"])
    return result["title"], here, thesis, f"{result['classifier_parameters']:,}"


def classifier_parameters(backbone: nn.Module, side: int, classes: int) -> int:
    """Count a linear classifier's parameters: 17,290 for the encoder, 120,970 and 40,970 for the others."""
    return (feature_size(backbone, side) + 1) * classes


def in_words(name: str, config: LinearConfig) -> str:
    """Compare the lengths of a row with the thesis's, in words."""
    full = LinearConfig()
    lengths = {"epochs": (config.probe.epochs, full.probe.epochs)}
    if not ROWS[name].finetuned:
        lengths["views"] = (config.views or config.probe.epochs, full.probe.epochs)
    if name.startswith("stl10"):
        lengths["epochs of pretraining"] = (config.stl10_epochs, full.stl10_epochs)
    if name.startswith("pascal"):
        lengths["iterations of pretraining"] = (config.pascal_iterations, full.pascal_iterations)
    if name.startswith(("imagenet", "knowledge")):
        lengths["epochs of pretraining"] = (config.alexnet_epochs, full.alexnet_epochs)
    if name.startswith("knowledge"):
        lengths["clusters"] = (config.clusters, full.clusters)
    return ", ".join(
        f"{here:,} {what}" if here == thesis else f"{here:,} of {thesis:,} {what}"
        for what, (here, thesis) in lengths.items()
    )


def _frozen(name: str, backbone: nn.Module, s: Sources, keep_features: bool) -> list[float]:
    config, data = s.config, s.stl10
    pictures = f"{data.train.fingerprint()[:8]}-{data.test.fingerprint()[:8]}"
    of = f"{name}-{weights_fingerprint(backbone)}-{pictures}-{config.side}-{config.probe.seed}"
    folder = s.folder / "features" / of
    cache = cached_features(folder, backbone, data, config, s.device)
    folds = dict(enumerate(data.folds))
    labels = torch.from_numpy(data.train.labels)
    W, b = train_folds(cache.epoch, labels, folds, len(data.train.classes), config.probe, s.device)
    found = accuracies(W, b, cache.test(), torch.from_numpy(data.test.labels))
    if not keep_features:
        rmtree(folder)
    return found


def _finetuned(name: str, backbone: nn.Module, s: Sources, setting: Result) -> list[float]:
    """Train backbone and classifier together, fold by fold; each fold's accuracy is kept until all are there."""
    config, data, probe = s.config, s.stl10, s.config.probe
    iterations = epochs(probe.epochs, data.folds.shape[1], config.finetune_batch)
    schedule = Schedule(iterations, config.finetune_batch, config.side, probe.lr, probe.seed)

    def of_fold(fold: int) -> Result:
        network = WithLinear(copy.deepcopy(backbone), config.side, len(data.train.classes), fold).to(s.device)
        title, own = f"{name}, fold {fold + 1} of {len(data.folds)}", replace(schedule, seed=schedule.seed + fold)
        state = s.folder / f"{name}-{setting['weights']}-fold{fold}.state"
        train_supervised(network, data.train, data.folds[fold], own, s.device, title=title, state=state)
        right = predictions(network, data.test, config.side, s.device) == torch.from_numpy(data.test.labels)
        return {"accuracy": float(right.double().mean() * 100)}

    paths = [s.folder / "folds" / f"{name}-{fold}.json" for fold in range(len(data.folds))]
    found = [cached(path, setting, partial(of_fold, fold))["accuracy"] for fold, path in enumerate(paths)]
    for path in paths:
        path.unlink()
    return found
