"""The loss head in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels.lorbms.loss_head import reference
from lorbms_fast.kernels.lorbms.loss_head.triton import ops as in_triton

WEIGHTS, LAMBDAS = (0.9, 0.2, 0.3), (1.0, 0.25, 3.0, 0.0)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(in_triton, "BLOCK", 32)
    monkeypatch.setattr(in_triton, "FEW", 16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int = 2, side: int = 3) -> list[Tensor]:
    images = [draw(n, 3, side, side, seed=i) for i in range(3)]
    images[1][0, 0] = images[0][0, 0]  # no difference, no gradient
    return [*images, 3 * draw(n, 1, 4, 4, seed=3), 3 * draw(4, n, 4, seed=4), draw(n, 4, seed=5) > 0]


def in_triton_form(*tensors: Tensor, gan: str = "cross-entropy") -> tuple[Tensor, ...]:
    return lorbms.loss_head(*tensors, WEIGHTS, LAMBDAS, gan, impl="triton")


@pytest.mark.parametrize("gan", ["cross-entropy", "hinge"])
def test_losses_and_gradients(agree, gan):
    agree(
        lambda *tensors: in_triton_form(*tensors, gan=gan),
        lambda *tensors: reference.loss_head(*tensors, WEIGHTS, LAMBDAS, gan),
        *inputs(),
    )


@pytest.mark.parametrize("part", range(5))
def test_each_loss_alone_has_its_gradients(agree, part):
    agree(
        lambda *tensors: in_triton_form(*tensors)[part] + 0 * sum(x.sum() for x in tensors[:5]),
        lambda *tensors: (
            reference.loss_head(*tensors, WEIGHTS, LAMBDAS, "cross-entropy")[part]
            + 0 * sum(x.sum() for x in tensors[:5])
        ),
        *inputs(1, 2),
    )


def test_images_of_other_layouts_and_precisions():
    I_ref, I_hat, I_prime, *logits, mask = inputs(1)
    logits = [tensor.bfloat16().transpose(0, 1).contiguous().transpose(0, 1) for tensor in logits]
    I_hat = I_hat.contiguous(memory_format=torch.channels_last).bfloat16()
    found = in_triton_form(I_ref, I_hat, I_prime, *logits, mask)
    exact = reference.loss_head(
        *(tensor.double() for tensor in (I_ref, I_hat, I_prime, *logits)), mask, WEIGHTS, LAMBDAS, "cross-entropy"
    )
    for f, e in zip(found, exact, strict=True):
        assert f.dtype == torch.float32
        torch.testing.assert_close(f, e.float())


def test_certain_logits_overflow_nothing():
    *images, _, logits, mask = inputs(1)
    D_mix = torch.tensor([[1e4, -1e4]], requires_grad=True)
    L_adv = in_triton_form(*images, D_mix, logits, mask)[3]
    assert L_adv.item() == pytest.approx(5e3)
    L_adv.backward()
    assert D_mix.grad is not None
    assert D_mix.grad.tolist() == [[0, -0.5]]


@pytest.mark.parametrize("gan", ["cross-entropy", "hinge"])
def test_losses_of_what_is_not_a_number_are_none(gan):
    D = torch.zeros(4, 1, 2, 2)
    D[3, 0, 1, 0] = torch.nan
    assert lorbms.discrimination_loss(D, gan, "triton").isnan()
    images_and_logits, mask = inputs(1)[:5], inputs(1)[5]
    for number in range(5):
        tensors = [tensor.clone() for tensor in images_and_logits]
        tensors[number].flatten()[0] = torch.nan
        assert in_triton_form(*tensors, mask, gan=gan)[0].isnan()


def test_opcheck():
    *tensors, mask = inputs(1)
    arguments = (*(tensor.requires_grad_() for tensor in tensors), mask, list(WEIGHTS), list(LAMBDAS), "hinge")
    torch.library.opcheck(in_triton.losses, arguments)


def test_compiles_without_a_break():
    def function(*tensors):
        return sum(in_triton_form(*tensors))

    torch.testing.assert_close(
        torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs(1)), function(*inputs(1))
    )


@pytest.mark.parametrize("gan", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("n", [2, 10])
def test_discrimination(agree, gan, n):
    D = 2 * draw(n, 1, 3, 2)
    agree(
        lambda D: lorbms.discrimination_loss(D, gan, "triton"),
        lambda D: reference.discrimination(*D.chunk(2), gan),
        D,
    )
    torch.library.opcheck(in_triton.discrimination_loss, (D.requires_grad_(), gan))


@pytest.mark.parametrize(("candidates", "n"), [(4, 3), (2, 40), (1, 1)])
def test_classification(agree, candidates, n):
    mask, lambdas = draw(n, candidates, seed=1) > 0, [1.0, 0.25, 3.0, 0.0][:candidates]
    agree(
        lambda logits: lorbms.classification_loss(logits, mask, lambdas, "triton"),
        lambda logits: reference.classification_loss(logits, mask, lambdas),
        3 * draw(candidates, n, candidates),
    )


def test_classification_as_an_operation():
    logits, mask = draw(2, 3, 2).requires_grad_(), draw(3, 2, seed=1) > 0
    torch.library.opcheck(in_triton.classification_loss, (logits, mask, [1.0, 0.5]))
    compiled = torch.compile(
        lambda x: lorbms.classification_loss(x, mask, (1.0, 0.5), "triton"), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(logits), reference.classification_loss(logits, mask, (1.0, 0.5)))
