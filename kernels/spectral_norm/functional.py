"""Spectral normalization (Miyato et al., 2018) of all weights of a network at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels.spectral_norm import fused
from lorbms_fast.kernels.spectral_norm.reference import check_vector, power_step, spectral_norm

if HAS_TRITON:
    from lorbms_fast.kernels.spectral_norm.triton import ops as triton_ops


@operation()
def spectral_norm_all(weights: Sequence[Tensor], us: Sequence[Tensor], impl: Impl | None = None) -> list[Tensor]:
    """Divide every weight by its largest singular value, estimated by one step of the power iteration from its u.

    >>> weights, us = [torch.randn(4, 3, 3, 3), torch.randn(2, 4)], [torch.randn(1, 4), torch.randn(1, 2)]
    >>> first, second = spectral_norm_all(weights, us)
    >>> torch.testing.assert_close(second, spectral_norm(weights[1], us[1])[0])

    u' and v count as constants in the backward. The vectors u are read, not advanced: see `advance_u`.

    Args:
        weights: each (O, ...), read as the matrix (O, everything else), floating point.
        us: each (1, O), of its weight's dtype; Triton takes another one, too.
        impl: form to run; None takes the one in force.

    Returns:
        `W / sigma` of each weight, of its shape and dtype.

    Raises:
        ValueError: there are no weights, or not as many u of their shapes; or there is no such form.
        RuntimeError: torch's own, if a u is of another dtype.
    """
    _check(weights, us)
    form = select_impl(impl, weights[0])
    if form == "triton":
        return triton_ops.spectral_norm_all(weights, us)
    if form == "reference":
        return [spectral_norm(weight, u)[0] for weight, u in zip(weights, us, strict=True)]
    return fused.spectral_norm_all(weights, us)


@operation()
@torch.no_grad()
def advance_u(weights: Sequence[Tensor], us: Sequence[Tensor], impl: Impl | None = None) -> None:
    """Replace every u by u' in place: once an iteration, after all updates of the weights.

    >>> weight, u = torch.randn(4, 3), torch.randn(1, 4)
    >>> for _ in range(200):
    ...     advance_u([weight], [u])
    >>> (W_bar,) = spectral_norm_all([weight], [u])
    >>> torch.testing.assert_close(torch.linalg.matrix_norm(W_bar, 2), torch.tensor(1.0), rtol=1e-3, atol=0)

    Arguments and errors are those of `spectral_norm_all`.
    """
    _check(weights, us)
    form = select_impl(impl, weights[0])
    if form == "triton":
        u_next = triton_ops.next_us(weights, us)
    elif form == "reference":
        u_next = [power_step(weight, u)[0] for weight, u in zip(weights, us, strict=True)]
    else:
        u_next = [u[None] for u in fused.power_iteration(weights, us).u.split([len(weight) for weight in weights])]
    torch._foreach_copy_(list(us), u_next)


def _check(weights: Sequence[Tensor], us: Sequence[Tensor]) -> None:
    if not weights or len(weights) != len(us):
        raise ValueError(f"weights are {len(weights)}, us {len(us)}: expected one at least, and a u for each")
    for weight, u in zip(weights, us, strict=True):
        check_vector(weight, u)
