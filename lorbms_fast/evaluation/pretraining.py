"""Backbones that rows of Table 4.3 read: a run's networks, and pretrained ones, kept as `<name>.safetensors`."""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from lorbms_fast.atomic_io import atomic_write, write_json
from lorbms_fast.checkpoint import load_weights, save_tensors
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.alexnet import AlexNet, AlexNetConvs
from lorbms_fast.evaluation.backbones import DiscriminatorBackbone, alexnet_backbone, encoder_backbone
from lorbms_fast.evaluation.datasets.labelled import Decoded, Labelled, read_class_folders
from lorbms_fast.evaluation.datasets.stl10 import Stl10
from lorbms_fast.evaluation.datasets.voc import read_voc
from lorbms_fast.evaluation.features import pseudo_labels
from lorbms_fast.evaluation.probe import LinearConfig
from lorbms_fast.evaluation.results import read_result
from lorbms_fast.evaluation.supervised import Schedule, WithLinear, epochs, train_supervised
from lorbms_fast.models import build
from lorbms_fast.models.discriminator import Discriminator
from lorbms_fast.run import Run, load_networks

PASCAL_LR, PASCAL_DECAY, PASCAL_DECAY_EVERY = 1e-3, 0.5, 10_000
"""Rates of Krähenbühl et al. (ICLR 2016) on PASCAL; the thesis gives momentum and 80,000 iterations only."""
ALEXNET_LR, ALEXNET_DECAY, ALEXNET_DECAYS = 1e-2, 0.1, 3
"""Our rates, a tenth after each third; the thesis does not say."""


@dataclass(frozen=True)
class Sources:
    """Sources that backbones are made from, each by a method."""

    run: Path
    stl10: Stl10
    config: LinearConfig
    device: torch.device
    voc: Path | None = None
    imagenet: Path | None = None
    alexnet: Path | None = None

    def random_encoder(self) -> nn.Module:
        """Build an encoder of the run's sizes with initial values."""
        return encoder_backbone(self._fresh_encoder(self.config.side))

    def encoder(self) -> nn.Module:
        """Load the run's encoder."""
        return encoder_backbone(_reading(load_networks(self.run).enc, self.config.side))

    def discriminator(self) -> nn.Module:
        """Load the run's discriminator."""
        return DiscriminatorBackbone(cast(Discriminator, load_networks(self.run).dsc))

    def stl10_encoder(self) -> nn.Module:
        """Train encoder and linear classifier on STL-10's training set: 150 epochs of Adam."""
        return self._encoder("stl10-encoder", self.stl10.train, self._stl10_schedule())

    def pascal_encoder(self) -> nn.Module:
        """Train encoder and linear classifier on PASCAL: sigmoid cross entropy, momentum, 80,000 iterations, 224 px."""
        assert self.voc is not None
        config = self.config
        lengths = config.pascal_iterations, config.pascal_batch, config.large_side
        schedule = Schedule(*lengths, PASCAL_LR, config.probe.seed, (PASCAL_DECAY, PASCAL_DECAY_EVERY))
        return self._encoder("pascal-encoder", read_voc(self.voc), schedule)

    def stl10_alexnet(self) -> nn.Module:
        """Train AlexNet on STL-10's training set as the encoder is."""
        return self._alexnet("stl10-alexnet", self.stl10.train, self._stl10_schedule())

    def imagenet_alexnet(self) -> nn.Module:
        """Train AlexNet on ImageNet's classes, or load conv1-5 of one that an earlier evaluation kept."""
        if self.alexnet is not None:
            backbone = alexnet_backbone(AlexNetConvs(self.config.alexnet_widths))
            load_weights(backbone, self.alexnet)
            return backbone
        assert self.imagenet is not None
        return self._large_alexnet("imagenet-alexnet", read_class_folders(self.imagenet))

    def knowledge_transfer(self, of: str, backbone: nn.Module) -> nn.Module:
        """Cluster a network's features of all images, and teach AlexNet the clusters (Noroozi et al., CVPR 2018)."""
        store, config = Run.open(self.run).open_store(), self.config
        backbone = backbone.to(self.device).eval()
        labels = pseudo_labels(self._kept_in, backbone, store, config.clusters, config.probe.seed, self.device)
        classes = tuple(f"cluster {i}" for i in range(labels.max() + 1))
        squares = Decoded(partial(store.square, side=config.large_side), range(len(store)))
        data = Labelled(squares, labels, classes, f"clusters of {store.path.name}")
        return self._large_alexnet(f"knowledge-transfer-{of}", data)

    @property
    def folder(self) -> Path:
        """The folder for results of the linear probes."""
        return self.run / "evaluation" / "linear"

    @property
    def _kept_in(self) -> Path:
        return self.run / "evaluation" / "pretrained"

    def _fresh_encoder(self, side: int) -> nn.Module:
        config = Run.open(self.run).config
        return _reading(build(config.model, config.impl, self.config.probe.seed).enc, side)

    def _stl10_schedule(self) -> Schedule:
        config, probe = self.config, self.config.probe
        iterations = epochs(config.stl10_epochs, len(self.stl10.train), config.stl10_batch)
        return Schedule(iterations, config.stl10_batch, config.side, probe.lr, probe.seed)

    def _encoder(self, name: str, data: Labelled, schedule: Schedule) -> nn.Module:
        backbone = encoder_backbone(self._fresh_encoder(schedule.side)).to(self.device)
        network = WithLinear(backbone, schedule.side, len(data.classes), schedule.seed).to(self.device)
        return self._kept(name, backbone, network, data, schedule)

    def _large_alexnet(self, name: str, data: Labelled) -> nn.Module:
        """Train AlexNet on ImageNet's classes or on clusters: 224 px, batch 128, 60 epochs."""
        config = self.config
        iterations = epochs(config.alexnet_epochs, len(data), config.alexnet_batch)
        falls = ALEXNET_DECAY, max(1, iterations // ALEXNET_DECAYS)
        lengths = iterations, config.alexnet_batch, config.large_side
        return self._alexnet(name, data, Schedule(*lengths, ALEXNET_LR, config.probe.seed, falls))

    def _alexnet(self, name: str, data: Labelled, schedule: Schedule) -> nn.Module:
        sizes = self.config.alexnet_widths, self.config.alexnet_hidden
        network = AlexNet(len(data.classes), schedule.side, schedule.seed, *sizes).to(self.device)
        return self._kept(name, alexnet_backbone(network.convs), network, data, schedule)

    def _kept(
        self, name: str, backbone: nn.Module, network: nn.Module, data: Labelled, schedule: Schedule
    ) -> nn.Module:
        """Train the backbone as a part of the network, or load what the same training left before."""
        weights, facts = self._kept_in / f"{name}.safetensors", self._kept_in / f"{name}.json"
        setting: dict[str, Any] = {"pictures": data.source, "count": len(data), "fingerprint": data.fingerprint()}
        setting |= {"parameters": sum(parameter.numel() for parameter in network.parameters())} | asdict(schedule)
        setting = json.loads(json.dumps(setting))
        found = read_result(facts)  # earlier versions noted less
        if found is not None and found["setting"].items() <= setting.items() and weights.exists():
            load_weights(backbone, weights)
            return backbone.eval()
        state = self._kept_in / f"{name}-{data.fingerprint()}-{schedule.iterations}.state"
        loss = train_supervised(
            network, data, np.arange(len(data)), schedule, self.device, title=f"pretraining {name}", state=state
        )
        facts.unlink(missing_ok=True)  # which are of the weights that were there
        with atomic_write(weights) as partial:
            save_tensors(backbone.state_dict(), partial)
        write_json(facts, {"setting": setting, "last_loss": loss})
        return backbone.eval()


def _reading(encoder: nn.Module, side: int) -> nn.Module:
    """Refuse an encoder with a fully connected layer for pictures of another side."""
    if (own := getattr(encoder, "image_size", side)) != side:
        raise UserError(f"this run's encoder reads pictures of {own} px, not of {side}: use --side {own}")
    return encoder
