"""Detection of a collapsed classifier or discriminator, which says the same of all and teaches the generator nothing.

The thesis saw this with SqueezeNet as classifier (Appendix D.8). Two numbers judge a classifier: how far its answers
differ between samples, and how much better it predicts than the best constant answer; two judge a discriminator: how
far its answers differ between images, and between real and mixed ones on average.

A classifier that says exactly 0.5 of everything is dead, after its first update as well as later: its logits are all 0.
SqueezeNet's are averages of what a ReLU lets through, so they are all 0 where that whole layer is.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lorbms_fast.engine.iteration import IterationImpl
from lorbms_fast.optimizers import frozen
from lorbms_fast.types import Batch, Networks

WARMED_UP = 1000
"""Iterations after which classifier and discriminator should tell samples apart."""
COLLAPSED = 0.01
"""Standard deviation of a network's probabilities below which it counts as collapsed."""


@torch.no_grad()
def classifier_state(networks: Networks, impl: IterationImpl, I_mix: Tensor, batch: Batch) -> dict[str, float]:
    """Measure the classifier on a batch and its I_mix; its running averages stay.

    Returns `spread`, the standard deviation over samples of the probabilities, averaged over candidates and tiles, 0
    when all samples get the same answer, NaN for a single one; `certainty`, how far the probabilities get from 0.5 at
    most; `gain`, the cross entropy of the best constant answer less the classifier's, in nats a logit, 0 or less when
    it has learned nothing.
    """
    with frozen(networks.cls):
        logits, targets = impl.classifier_logits(networks, I_mix, batch)
    certainty = (logits.float().sigmoid() - 0.5).abs().max()
    return {"spread": spread(logits).item(), "certainty": certainty.item(), "gain": gain(logits, targets).item()}


@torch.no_grad()
def discriminator_state(networks: Networks, I_ref: Tensor, I_mix: Tensor) -> dict[str, float]:
    """Measure the discriminator on real and mixed images, each (N, 3, S, S).

    Returns `spread`, the standard deviation over all images of the probabilities to be real, 0 when all get the same
    answer; `gap`, the mean probability of real images less that of mixed ones.
    """
    logits = networks.dsc(torch.cat([I_ref, I_mix])).flatten(1)
    of_real, of_mixed = logits.float().sigmoid().chunk(2)
    return {"spread": spread(logits[None]).item(), "gap": (of_real.mean() - of_mixed.mean()).item()}


def collapsed(iteration: int, states: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a message for each network, by name, whose state after so many iterations shows that it has collapsed."""
    for name, state in states.items():
        if state.get("certainty") == 0:
            yield f"iteration {iteration:,}: the {name} says 0.5 of everything (all logits are 0): it has collapsed"
        elif iteration >= WARMED_UP and state["spread"] < COLLAPSED:
            yield (
                f"iteration {iteration:,}: the {name} gives all samples the same answer "
                f"(spread {state['spread']:.4f}): it has collapsed"
            )


def spread(logits: Tensor) -> Tensor:
    """Compute the standard deviation over samples of (G, N, tiles) logits' probabilities, averaged over the rest.

    Of one sample nobody can tell, which is NaN.
    """
    return logits.float().sigmoid().std(1, correction=0).mean() if logits.shape[1] > 1 else logits.new_tensor(math.nan)


def gain(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the best constant answer's cross entropy less that of the logits, both (G, N, tiles), in nats a logit."""
    logits, targets = logits.float(), targets.float()
    rate = targets.mean(1)
    constant = (torch.special.entr(rate) + torch.special.entr(1 - rate)).mean()  # autocast on CUDA refuses torch's
    return constant - torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
