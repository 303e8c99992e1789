"""The loss head against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms
from tests.kernels.forms import draw, fast, results, size


@fast
@given(size, size, st.sampled_from(("cross-entropy", "hinge")))
def test_loss_head(n, side, gan):
    tensors = [draw(n, 3, side, side, seed=i) for i in range(3)] + [draw(n, 4, 4, seed=4), draw(4, n, 4, seed=5)]
    mask = draw(n, 4, seed=6) > 0
    found, expected = (
        results(lorbms.loss_head(*tensors, mask, (0.9, 0.2, 0.3), (1, 0, 2, 0.5), gan, impl), tensors)
        for impl in ("fused", "reference")
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


def test_loss_head_is_the_thesis():
    ones, mask = torch.ones(1, 3, 2, 2), torch.zeros(1, 4, dtype=torch.bool)
    L_G, *parts = lorbms.loss_head(
        ones, ones - 0.5, ones + 2, torch.zeros(1, 1, 4, 4), torch.zeros(4, 1, 4), mask, (100, 10, 1), (1,) * 4
    )
    ln2 = 0.6931472
    assert [part.item() for part in parts] == pytest.approx([0.5, 2, ln2, 4 * ln2])
    assert L_G.item() == pytest.approx(100 * 2.5 + 10 * ln2 + 4 * ln2)
