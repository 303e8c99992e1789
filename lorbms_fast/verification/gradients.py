"""Gradients of the three losses against the golden numbers, in both conventions of spectral norm."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast import losses
from lorbms_fast.config import Impl, LossConfig
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm, spectral_norm_through
from lorbms_fast.types import Networks
from lorbms_fast.verification.check import Check, hwio
from lorbms_fast.verification.golden import Golden

# Three times the differences seen between the golden numbers and a float64 model. They are not rounding-sized, as
# float32 flips a few ReLU, max-pool and absolute-value kinks.
WORST_OF_G, MEDIAN_OF_G, WORST_OF_CLS, WORST_OF_D = 7.5e-2, 1.8e-2, 3e-3, 8e-3
ZERO_GRADIENT = 1e-6

CONVENTIONS = {"const": spectral_norm, "through": spectral_norm_through}
LAMBDAS = {"one": (1.0, 1.0, 1.0, 1.0), "quarter": (0.25, 0.25, 0.25, 0.25)}


def gradient_checks(golden: Golden, impl: Impl) -> Iterator[Check]:
    """Check norm, mean, probe and largest entry of every parameter's gradient; reported is the worst of the four."""
    computed_by = IMPLS[impl]
    batch = golden.batch()
    for convention, normalize in CONVENTIONS.items():
        networks = golden.networks(impl, normalize)
        for which, lambdas in LAMBDAS.items():
            if (key := f"L_G_{which}_{convention}") in golden.gradients:
                L_G = computed_by.generator_losses(networks, batch, LossConfig(lambdas=lambdas))[0].L_G
                yield from _generator_checks(golden, networks, L_G, key)

        with torch.no_grad():
            I_mix = computed_by.generator_losses(networks, batch, LossConfig())[1].I_mix
        for which, lambdas in LAMBDAS.items():
            if (key := f"L_cls_{which}_{convention}") in golden.gradients:
                logits, _ = computed_by.classifier_logits(networks, I_mix, batch)
                L_cls = losses.classification(logits, batch.mask, lambdas)
                worst = _worst(_errors(golden, networks, L_cls, key, "names_cls"))
                yield Check(f"grad {key}: worst", worst, WORST_OF_CLS)
        if (key := f"L_D_{convention}") in golden.gradients:
            L_D = losses.discrimination(networks.dsc(batch.I_ref), networks.dsc(I_mix))
            worst = _worst(_errors(golden, networks, L_D, key, "names_dsc"))
            yield Check(f"grad {key}: worst", worst, WORST_OF_D)


def _generator_checks(golden: Golden, networks: Networks, L_G: Tensor, key: str) -> Iterator[Check]:
    names = golden.gradients["names_gen"]
    gradients = _gradients(networks, L_G, names)
    # A bias before an instance norm changes nothing: its true gradient is 0, and relative errors mean nothing.
    without_effect = np.array([n.startswith("enc.") and n.endswith(".bias") for n in names])
    without_effect &= ~np.isin(names, ("enc.down5.bias", "enc.last.bias"))
    largest = [g.abs().max().item() for g, without in zip(gradients, without_effect, strict=True) if without]
    yield Check(f"grad {key}: of biases before a norm", _worst(np.array(largest)), ZERO_GRADIENT)
    errors = _relative_errors(golden, gradients, key, names)[~without_effect]
    yield Check(f"grad {key}: worst", _worst(errors), WORST_OF_G)
    yield Check(f"grad {key}: median", float(np.median(errors)), MEDIAN_OF_G)


def _worst(errors: NDArray[np.float64]) -> float:
    """Largest of some errors, NaN where one is: Python's own `max` passes over a NaN that does not come first."""
    return float(errors.max())


def _errors(golden: Golden, networks: Networks, loss: Tensor, key: str, names_key: str) -> NDArray[np.float64]:
    names = golden.gradients[names_key]
    return _relative_errors(golden, _gradients(networks, loss, names), key, names)


def _gradients(networks: Networks, loss: Tensor, names: NDArray[np.str_]) -> list[Tensor]:
    """Gradients of the named parameters, in TensorFlow's layout."""
    parameters = dict(networks.named_parameters())
    return [hwio(g) for g in torch.autograd.grad(loss, [parameters[name] for name in names])]


def _relative_errors(golden: Golden, gradients: list[Tensor], key: str, names: NDArray[np.str_]) -> NDArray[np.float64]:
    """Worst error of norm, mean, probe and largest entry for each parameter, (P,), relative to the golden norm.

    The mean is compared on the scale a gradient of that norm gives it: norm / sqrt(size).
    """
    errors = []
    for g, name, (norm, mean, probe, largest) in zip(gradients, names, golden.gradients[key].tolist(), strict=True):
        computed_probe = (g * golden.fill(f"probe.{name}", tuple(g.shape))).sum().item()
        errors.append(
            max(
                abs(g.norm().item() - norm),
                abs(g.mean().item() - mean) * math.sqrt(g.numel()),
                abs(computed_probe - probe),
                abs(g.abs().max().item() - largest),
            )
            / norm
        )
    return np.array(errors)
