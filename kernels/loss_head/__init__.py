"""What an iteration's losses read off images and patch logits, without intermediate tensors."""

from collections.abc import Sequence

from torch import Tensor

from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve
from lorbms_fast.kernels.loss_head import definition, fused

if TRITON:
    from lorbms_fast.kernels.loss_head import triton


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float = 1.0, impl: Impl | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`mean|I_ref - I_hat|`, `mean|I_ref - I_prime|` and `bce(D(I_mix), target)` (thesis, Section 3.4).

    Args:
        I_ref: reference images, (N, 3, S, S).
        I_hat: their reconstructions, as I_ref.
        I_prime: their reconstructions through the mixed scene, as I_ref.
        D_mix: logits of the discriminator, of any shape.
        target: 1 where the discriminator should call them real, 0 where fake.
        impl: form to run; None takes the one in force.

    Returns:
        Three scalars: float32 from Triton, otherwise of the images' and the logits' dtype. Differentiable once.
    """
    form = resolve(impl, I_hat)
    if form == "triton":
        return triton.loss_head(I_ref, I_hat, I_prime, D_mix, target)
    return (definition if form == "reference" else fused).loss_head(I_ref, I_hat, I_prime, D_mix, target)


def classification_loss(logits: Tensor, mask: Tensor, lambdas: Sequence[float], impl: Impl | None = None) -> Tensor:
    """`L_cls = sum_j lambda_j bce(Cls(I_mix, I_qj), y_j)`, y_j one-hot at j where m_j, else zero (thesis, Section 3.4).

    Args:
        logits: (C, N, C): for each candidate j, for each sample, one logit a quadrant.
        mask: (N, C) bool, True where the quadrant was replaced.
        lambdas: the C lambda_j.
        impl: form to run; None takes the one in force. The definition is the fused form.

    Returns:
        A scalar, float32 from Triton, otherwise of the logits' dtype. The Triton form is differentiable once.
    """
    if resolve(impl, logits) == "triton":
        result: Tensor = triton.classification_loss(logits, mask, list(lambdas))
        return result
    return definition.classification_loss(logits, mask, lambdas)
