"""Losses of an iteration from images, patch logits and the classifier's; in Triton without intermediate tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check, check_dtype, misfit
from lorbms_fast.kernels.lorbms.loss_head import reference
from lorbms_fast.kernels.lorbms.loss_head.reference import Gan

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.loss_head.triton import ops as triton_ops


@operation()
def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, mask: Tensor,
    weights: tuple[float, float, float], lambdas: Sequence[float], gan: Gan = "cross-entropy",
    impl: Impl | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`L_G = w_rec (L_rec_hat + L_rec_prime) + w_adv L_adv + w_cls L_cls` and its parts (thesis, Section 3.4).

    >>> I_ref, D_mix = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 4, 4)
    >>> logits, mask = torch.zeros(4, 1, 4), torch.zeros(1, 4, dtype=torch.bool)
    >>> L_G, *parts = loss_head(I_ref, I_ref + 0.5, I_ref, D_mix, logits, mask, (100, 10, 1), (1, 1, 1, 1))
    >>> parts[0]
    tensor(0.5000)

    The parts are `mean|I_ref - I_hat|`, `mean|I_ref - I_prime|`, `deception` and `classification_loss`. Images are (N,
    3, S, S), the discriminator's logits D_mix of any shape, the classifier's (C, N, C); the mask (N, C) bool is True
    where the quadrant was replaced; the weights are w_rec, w_adv and w_cls.

    The definition is the fused form. Returns L_G, L_rec_hat, L_rec_prime, L_adv, L_cls, scalars: float32 from Triton,
    otherwise of the images' and the logits' dtype. The Triton form is differentiable once.
    Raises ValueError if a shape does not fit, or the mask is not bool.
    """
    for name, image in (("I_ref", I_ref), ("I_prime", I_prime)):
        check(name, image, *I_hat.shape)
    _check_classified(logits, mask, lambdas)
    form = triton_ops if select_impl(impl, I_hat) == "triton" else reference
    return form.loss_head(I_ref, I_hat, I_prime, D_mix, logits, mask, weights, lambdas, gan)


@operation()
def classification_loss(logits: Tensor, mask: Tensor, lambdas: Sequence[float], impl: Impl | None = None) -> Tensor:
    """`L_cls = sum_j lambda_j bce(Cls(I_mix, I_qj), y_j)`, y_j one-hot at j where m_j, else zero (thesis, Section 3.4).

    >>> logits, mask = torch.zeros(4, 1, 4), torch.zeros(1, 4, dtype=torch.bool)
    >>> classification_loss(logits, mask, (1, 1, 1, 1))  # four times ln 2
    tensor(2.7726)

    Logits are (C, N, C): for each candidate j, for each sample, one logit a quadrant; the mask is (N, C) bool, True
    where the quadrant was replaced. The definition is the fused form.

    Returns a scalar, float32 from Triton, otherwise of the logits' dtype. The Triton form is differentiable once.
    Raises ValueError if a shape does not fit, or the mask is not bool.
    """
    _check_classified(logits, mask, lambdas)
    if select_impl(impl, logits) == "triton":
        return triton_ops.classification_loss(logits, mask, list(lambdas))
    return reference.classification_loss(logits, mask, lambdas)


@operation()
def discrimination_loss(D: Tensor, gan: Gan = "cross-entropy", impl: Impl | None = None) -> Tensor:
    """`L_D = bce(D(I_ref), 1) + bce(D(I_mix), 0)`, or with hinge losses `max(0, 1 - D(I_ref)) + max(0, 1 + D(I_mix))`.

    >>> discrimination_loss(torch.zeros(2, 1, 4, 4))  # twice ln 2
    tensor(1.3863)

    D are the discriminator's logits, those of I_ref before as many of I_mix. The definition is the fused form.

    Returns a scalar, float32 from Triton, otherwise of the logits' dtype. The Triton form is differentiable once.
    Raises ValueError if there are not as many of each.
    """
    if not D.dim() or not len(D) or len(D) % 2:
        raise misfit("D", D, "(2 N, ...)")
    if select_impl(impl, D) == "triton":
        return triton_ops.discrimination_loss(D, gan)
    D_ref, D_mix = D.chunk(2)
    return reference.discrimination(D_ref, D_mix, gan)


def _check_classified(logits: Tensor, mask: Tensor, lambdas: Sequence[float]) -> None:
    if mask.dim() != 2 or mask.shape[1] != len(lambdas):
        raise misfit("mask", mask, f"(N, {len(lambdas)}), by the lambdas")
    N, C = mask.shape
    check("logits", logits, C, N, C)
    check_dtype("mask", mask, torch.bool)
