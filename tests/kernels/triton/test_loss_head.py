"""The loss head in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels.loss_head import definition
from lorbms_fast.kernels.loss_head import triton as in_triton


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(in_triton, "BLOCK", 32)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int = 2, side: int = 3) -> list[Tensor]:
    images = [draw(n, 3, side, side, seed=i) for i in range(3)]
    images[1][0, 0] = images[0][0, 0]  # no difference, no gradient
    return [*images, 3 * draw(n, 1, 4, 4, seed=3)]


@pytest.mark.parametrize("target", [1.0, 0.0])
def test_losses_and_gradients(agree, target):
    agree(
        lambda *tensors: kernels.loss_head(*tensors, target=target, impl="triton"),
        lambda *tensors: definition.loss_head(*tensors, target),
        *inputs(),
    )


def test_images_of_other_layouts_and_precisions():
    I_ref, I_hat, I_prime, D_mix = inputs(1)
    I_hat, D_mix = I_hat.contiguous(memory_format=torch.channels_last).bfloat16(), D_mix.bfloat16()
    found = kernels.loss_head(I_ref, I_hat, I_prime, D_mix, impl="triton")
    exact = definition.loss_head(*(tensor.double() for tensor in (I_ref, I_hat, I_prime, D_mix)), 1.0)
    for f, e in zip(found, exact, strict=True):
        assert f.dtype == torch.float32
        torch.testing.assert_close(f, e.float())


def test_certain_logits_overflow_nothing():
    *images, _ = inputs(1)
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    L_adv = kernels.loss_head(*images, logits, impl="triton")[2]
    assert L_adv.item() == pytest.approx(5e3)
    L_adv.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, -0.5]]


def test_opcheck():
    images = [image.requires_grad_() for image in inputs(1)]
    torch.library.opcheck(in_triton.losses, (*images, 1.0))


def test_compiles_without_a_break():
    def function(*tensors):
        return sum(kernels.loss_head(*tensors, impl="triton"))

    torch.testing.assert_close(
        torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs(1)), function(*inputs(1))
    )


@pytest.mark.parametrize(("candidates", "n"), [(4, 3), (2, 40), (1, 1)])
def test_classification(agree, candidates, n):
    mask, lambdas = draw(n, candidates, seed=1) > 0, [1.0, 0.25, 3.0, 0.0][:candidates]
    agree(
        lambda logits: kernels.classification_loss(logits, mask, lambdas, "triton"),
        lambda logits: definition.classification_loss(logits, mask, lambdas),
        3 * draw(candidates, n, candidates),
    )


def test_classification_as_an_operation():
    logits, mask = draw(2, 3, 2).requires_grad_(), draw(3, 2, seed=1) > 0
    torch.library.opcheck(in_triton.classification_loss, (logits, mask, [1.0, 0.5]))
    compiled = torch.compile(
        lambda x: kernels.classification_loss(x, mask, (1.0, 0.5), "triton"), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(logits), definition.classification_loss(logits, mask, (1.0, 0.5)))
