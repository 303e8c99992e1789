"""The initial values of the thesis, by parameter name."""

import math
import re
from collections.abc import Callable
from zlib import crc32

import torch
from torch import Generator, Tensor, nn

Rule = Callable[[Tensor, Generator], Tensor]


def normal(mean: float, std: float) -> Rule:
    """A normal distribution."""
    return lambda values, generator: values.normal_(mean, std, generator=generator)


def truncated(std: float) -> Rule:
    """A normal distribution cut off at two standard deviations, as TensorFlow has it."""
    return lambda values, generator: nn.init.trunc_normal_(values, 0, std, -2 * std, 2 * std, generator)


def constant(value: float) -> Rule:
    """A fill with the same value everywhere."""
    return lambda values, _: values.fill_(value)


def glorot(values: Tensor, generator: Generator) -> Tensor:
    """Uniform, as wide as fan in and fan out ask for (Glorot and Bengio, 2010)."""
    if values.dim() > 1:
        return nn.init.xavier_uniform_(values, generator=generator)
    limit = math.sqrt(3 / values.numel())  # TensorFlow takes a vector's length for fan in and fan out
    return values.uniform_(-limit, limit, generator=generator)


def he(values: Tensor, generator: Generator) -> Tensor:
    """Normal, as wide as keeps the size of maps behind a ReLU (He et al., 2015)."""
    return values.normal_(0, math.sqrt(2 / values[0].numel()), generator=generator)


HE: dict[str, Rule] = {r"(enc|dec)\.(?!up).*\.weight": he}
"""Rules for all weights of encoder and decoder, also those that variants add without rules of their own, which come
before these. The thesis's make the first pictures of all images the same to 0.001, and weights of 0.01 turn round in
ten steps of 1e-3, the demo's rate; those of transitions up, known by their names, are of size 1 and keep theirs."""

_RULES: dict[str, Rule] = {
    r".*\.u": truncated(1.0),
    r"enc\..*\.weight": normal(0, 0.02),
    r"dec\.up\d\.weight": normal(0, 1.0),
    r"(dec|dsc)\..*\.weight": truncated(0.01),
    r"(enc|dec|dsc)\..*\.bias": constant(0.01),
    r"cls\.conv\d\.(weight|bias)": glorot,
    r"cls\.bn\d\.gamma": normal(1, 0.02),
    r"cls\.bn\d\.beta": constant(0),
    r"cls\.fc\d\.weight": normal(0, 0.02),
    r"cls\.fc\d\.bias": constant(0.02),
    r"cls\.bn\d\.running_mean": constant(0),
    r"cls\.bn\d\.running_var": constant(1),
}


@torch.no_grad()
def initialize(networks: nn.Module, seed: int, rules: dict[str, Rule] | None = None) -> None:
    """Fill every parameter and buffer in place; a tensor's values depend on the seed and its name alone.

    `rules`, by patterns of names, come before the thesis's, and the first that fits counts. Raises KeyError if none
    speaks of a tensor.
    """
    known = (rules or {}) | _RULES
    for name, values in networks.state_dict().items():
        rule = next((rule for pattern, rule in known.items() if re.fullmatch(pattern, name)), None)
        if rule is None:
            raise KeyError(f"no rule of initial values knows {name}: give its variant one")
        rule(values, Generator().manual_seed(crc32(f"{seed}/{name}".encode())))
