"""Whole iterations of the fast form against the reference's in float64, for settings drawn at random."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorbms_fast.config import LossConfig, ModelConfig, OptimConfig
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.kernels import spectral_norm, spectral_norm_through
from lorbms_fast.mixing import mixing_mask
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Batch

RTOL = 1e-9
ITERATIONS = 2


@dataclass(frozen=True)
class Case:
    """What decides a few iterations."""

    number: int
    batch_size: int
    fresh: bool
    model: ModelConfig
    loss: LossConfig
    optim: OptimConfig


def case(number: int) -> Case:
    """Settings number `number`: everything that the thesis's system can be told, at sizes that take a second."""
    draw = np.random.Generator(np.random.Philox(number))

    def whole(low: int, high: int) -> int:
        return int(draw.integers(low, high + 1))

    def weight(high: float) -> float:
        return 0.0 if draw.random() < 0.15 else float(draw.uniform(0, high))

    model = ModelConfig(
        stem=whole(1, 5),
        growth=whole(2, 4),  # torch has no float64 gradient of one channels_last map
        layers=tuple(whole(1, 3) for _ in range(5)),
        chunk=whole(1, 9),
        discriminator_width=whole(1, 4),
        classifier_widths=tuple(2 * whole(1, 3) for _ in range(5)),
        classifier_hidden=whole(1, 9),
    )
    loss = LossConfig(
        rec=weight(1.0) + 0.01,
        adv=weight(0.2),
        cls=weight(0.2),
        lambdas=tuple(weight(1.0) for _ in range(4)),
        gan=("cross-entropy", "hinge")[whole(0, 1)],
    )
    optim = OptimConfig(
        generator_lr=float(10 ** draw.uniform(-4, -2.5)),
        discriminator_lr=float(10 ** draw.uniform(-4, -2.5)),
        classifier_lr=float(10 ** draw.uniform(-4, -2.5)),
        classifier_decay=float(draw.uniform(0.3, 1)),
        classifier_decay_every=whole(1, 2),
        betas=(float(draw.uniform(0, 0.9)), float(draw.uniform(0.9, 0.999))),
        sn_power_iterations=(whole(1, 9), whole(1, 3)),
        sn_gradient=("constant", "through")[whole(0, 1)],
    )
    return Case(number, whole(1, 5), bool(whole(0, 1)), model, loss, optim)


def batch(of: Case, number: int) -> Batch:
    """Noise, and masks as Algorithm 1 makes them, from one quadrant of each sample to three."""
    draw = np.random.Generator(np.random.Philox((of.number, number)))
    n = of.batch_size
    images = torch.from_numpy(draw.uniform(-1, 1, (5, n, 3, 64, 64)))
    tau = float(draw.choice([0.0, 0.3, 0.6, 1.0]))
    return Batch(images[0], images[1:], mixing_mask(torch.from_numpy(draw.random((n, 4))), tau))


def trained(of: Case, impl: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of some iterations, and parameters and moments after them."""
    normalize = {"constant": spectral_norm, "through": spectral_norm_through}[of.optim.sn_gradient]
    networks = build(of.model, impl, of.number, normalize).double().train()
    optimizers = Optimizers.of(networks, of.optim)
    losses = []
    for i in range(ITERATIONS):
        optimizers.set_rates(of.optim, i)
        batches = [batch(of, 4 * i + k) for k in range(4 if of.fresh else 1)]
        losses.append(iterate(IMPLS[impl], networks, optimizers, batches, of.loss, of.optim).stacked())
    return torch.stack(losses), networks.state_dict()


def difference(of: Case, found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """|found - expected| / |expected| of every tensor whose gradient is not 0 but for rounding."""
    return {
        name: ((found[name] - tensor).norm() / tensor.norm().clamp(min=1e-2)).item()
        for name, tensor in expected.items()
        if not _moved_by_noise(of, name)
    }


def _moved_by_noise(of: Case, name: str) -> bool:
    """Whether a parameter's gradient is 0, of which Adam makes steps of rounding noise.

    Biases before a norm are such; and with hinge losses the discriminator's last, as long as no sample is beyond its
    margin: real ones drive it by -1, mixed ones by 1.
    """
    return (name.startswith("enc.") and name.endswith(".bias")) or (of.loss.gan == "hinge" and name == "dsc.conv5.bias")


def check(number: int) -> None:
    of = case(number)
    expected_losses, expected = trained(of, "reference")
    losses, found = trained(of, "fast")
    assert torch.isfinite(expected_losses).all()
    torch.testing.assert_close(losses, expected_losses, rtol=RTOL, atol=1e-13, msg=lambda text: f"{of}: {text}")
    worst = max((value, name) for name, value in difference(of, found, expected).items())
    assert worst[0] <= RTOL, f"{worst} in {of}"


@pytest.mark.parametrize("number", range(8))
def test_random_settings_agree(number):
    check(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(8, 112))
def test_many_random_settings_agree(number):
    check(number)


def _loss(name: str, **changed: Any) -> Any:
    return pytest.param(lambda of: replace(of, loss=replace(of.loss, **changed)), id=name)


@pytest.mark.parametrize(
    "wrong",
    [
        _loss("rec 1 ppm larger", rec=0.904 * (1 + 1e-6)),
        _loss("adv 1 ppm larger", adv=0.052 * (1 + 1e-6)),
        _loss("cls 1 ppm larger", cls=0.044 * (1 + 1e-6)),
        pytest.param(
            lambda of: replace(of, optim=replace(of.optim, sn_power_iterations=(1, 2))), id="u once too often"
        ),
        pytest.param(lambda of: replace(of, optim=replace(of.optim, betas=(0.5, 0.9989999))), id="beta2"),
    ],
)
def test_a_slightly_wrong_form_is_noticed(wrong):
    of = replace(case(3), loss=LossConfig(), optim=OptimConfig(), fresh=False, batch_size=2)
    expected_losses, expected = trained(of, "reference")
    losses, found = trained(wrong(of), "fast")
    assert (
        not torch.allclose(losses, expected_losses, rtol=RTOL, atol=1e-13)
        or max(difference(of, found, expected).values()) > RTOL
    )
