"""The loss head against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms
from tests.kernels.forms import draw, fast, results, size

WEIGHTS, LAMBDAS = (0.9, 0.2, 0.3), (1, 0, 2, 0.5)


def as_equations(I_ref, I_hat, I_prime, D_mix, logits, mask, gan):
    L_rec_hat, L_rec_prime = ((I_ref - image).abs().mean() for image in (I_hat, I_prime))
    L_adv = -D_mix.mean() if gan == "hinge" else (1 + torch.exp(-D_mix)).log().mean()
    L_cls = 0.0
    for j, weight in enumerate(LAMBDAS):
        y = torch.zeros_like(logits[j])
        y[:, j] = mask[:, j].double()
        p = logits[j].sigmoid()
        L_cls = L_cls - weight * (y * p.log() + (1 - y) * (1 - p).log()).mean()
    w_rec, w_adv, w_cls = WEIGHTS
    return w_rec * (L_rec_hat + L_rec_prime) + w_adv * L_adv + w_cls * L_cls, L_rec_hat, L_rec_prime, L_adv, L_cls


@pytest.mark.parametrize("impl", ["fused", "reference"])
@fast
@given(size, size, st.sampled_from(("cross-entropy", "hinge")))
def test_loss_head(impl, n, side, gan):
    tensors = [draw(n, 3, side, side, seed=i) for i in range(3)] + [draw(n, 4, 4, seed=4), draw(4, n, 4, seed=5)]
    mask = draw(n, 4, seed=6) > 0
    found = results(lorbms.loss_head(*tensors, mask, WEIGHTS, LAMBDAS, gan, impl), tensors)
    for f, e in zip(found, results(as_equations(*tensors, mask, gan), tensors), strict=True):
        torch.testing.assert_close(f, e)


def test_loss_head_is_the_thesis():
    ones, mask = torch.ones(1, 3, 2, 2), torch.zeros(1, 4, dtype=torch.bool)
    L_G, *parts = lorbms.loss_head(
        ones, ones - 0.5, ones + 2, torch.zeros(1, 1, 4, 4), torch.zeros(4, 1, 4), mask, (100, 10, 1), (1,) * 4
    )
    ln2 = 0.6931472
    assert [part.item() for part in parts] == pytest.approx([0.5, 2, ln2, 4 * ln2])
    assert L_G.item() == pytest.approx(100 * 2.5 + 10 * ln2 + 4 * ln2)
