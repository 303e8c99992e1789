"""The losses against their formulas, element by element."""

import math

import pytest
import torch

from lorbms_fast import losses
from lorbms_fast.config import LossConfig
from lorbms_fast.types import Scenes

LAMBDAS = (1.0, 0.5, 0.25, 2.0)


def cross_entropy(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_classification_is_the_weighted_sum_over_candidates():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 4, generator=generator) < 0.5
    expected = 0.0
    for j in range(4):
        terms = [
            cross_entropy(logits[j, n, i].item(), float(i == j and bool(mask[n, j])))
            for n in range(3)
            for i in range(4)
        ]
        expected += LAMBDAS[j] * sum(terms) / len(terms)
    assert losses.classification(logits, mask, LAMBDAS).item() == pytest.approx(expected, rel=1e-12)


def test_discrimination():
    D_ref, D_mix = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.1])
    expected = (
        sum(cross_entropy(a, 1) for a in D_ref.tolist()) / 2 + sum(cross_entropy(a, 0) for a in D_mix.tolist()) / 2
    )
    assert losses.discrimination(D_ref, D_mix).item() == pytest.approx(expected, rel=1e-6)


def test_generator_total_has_the_weights_of_the_thesis():
    code, image = torch.zeros(1, 4, 1), torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    s = Scenes(code, code, code, code, I_hat=image + 1, I_mix=image, I_prime=image - 10)
    D_mix, L_cls = torch.tensor([2.0, 0.1], dtype=torch.float64), torch.tensor(1000.0, dtype=torch.float64)
    L = losses.generation(image, s, D_mix, L_cls, LossConfig())
    assert (L.L_rec_hat, L.L_rec_prime, L.L_adv, L.L_cls) == (1, 10, losses.called_real(D_mix), 1000)
    assert L.L_G.item() == pytest.approx(0.904 * 11 + 0.052 * L.L_adv.item() + 0.044 * 1000, rel=1e-12)


def test_hinge_losses():
    D_ref, D_mix = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert losses.discrimination(D_ref, D_mix, "hinge").item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert losses.deception(D_mix, "hinge").item() == pytest.approx((3 + 0 - 1) / 3)


@pytest.mark.parametrize("compute", [losses.discrimination, lambda D, _, gan: losses.deception(D, gan)])
def test_other_adversarial_losses_are_refused(compute):
    with pytest.raises(ValueError, match="gan 'hing': choose one of cross-entropy, hinge"):
        compute(torch.zeros(2), torch.zeros(2), "hing")


def test_provenance_is_the_mean_over_tiles():
    logits, mask = torch.tensor([[0.3, -2.0], [1.0, 0.1]]), torch.tensor([[True, False], [False, False]])
    terms = [cross_entropy(logits[n, i].item(), float(mask[n, i])) for n in range(2) for i in range(2)]
    assert losses.provenance(logits, mask).item() == pytest.approx(sum(terms) / 4)
