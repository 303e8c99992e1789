"""Adam as TensorFlow writes it, one for each loss that moves networks."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.config import OptimConfig
from lorbms_fast.models import Networks


class Adam(torch.optim.Adam):
    """torch's Adam with eps where TensorFlow has it: `lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps)`.

    torch divides by `sqrt(v / (1-b2^t)) + eps`, so its eps must be eps / sqrt(1-b2^t) at step t.
    """

    EPS = 1e-8

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        for group in self.param_groups:
            group["t"] = group.get("t", 0) + 1
            group["eps"] = self.EPS / math.sqrt(1 - group["betas"][1] ** group["t"])
        return super().step(closure)


@dataclass(frozen=True)
class Optimizers:
    """The three optimizers of an iteration."""

    generator: Adam
    classifier: Adam
    discriminator: Adam

    @classmethod
    def of(cls, networks: Networks, config: OptimConfig) -> "Optimizers":
        """Fresh optimizers for the networks, where their parameters are now."""
        return cls(
            Adam(networks.generator, config.generator_lr, config.betas, fused=True),
            Adam(networks.cls.parameters(), config.classifier_lr, config.betas, fused=True),
            Adam(networks.dsc.parameters(), config.discriminator_lr, config.betas, fused=True),
        )

    def set_rates(self, config: OptimConfig, iteration: int) -> None:
        """Set the learning rates of an iteration, counted from 0: only the classifier's changes, as a staircase."""
        rate = config.classifier_lr * config.classifier_decay ** (iteration // config.classifier_decay_every)
        for group in self.classifier.param_groups:
            group["lr"] = rate


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Move the optimizer's parameters one step down the loss."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # now, as the classifier's gradients take more memory than many activations
