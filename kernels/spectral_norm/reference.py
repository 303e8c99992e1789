"""Spectral normalization of one weight, with one step of the power iteration."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.shapes import check_floating, misfit, unless_traced


def power_step(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the power iteration for the largest singular value of a weight.

    Args:
        weight: (O, ...); read as the matrix W of shape (everything else, O).
        u: (1, O), the persistent estimate of the right singular vector.

    Returns:
        u' (1, O) and v (1, everything else): `v = normalize(u W^T)`, `u' = normalize(v W)`.
    """
    W = weight.flatten(1).T
    v = _normalize(u @ W.T)
    return _normalize(v @ W), v


def spectral_norm(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """`W / sigma` and sigma, where u' and v count as constants in the backward (Miyato et al., 2018).

    >>> weight, u = torch.randn(4, 3, 3, 3), torch.randn(1, 4)
    >>> W_bar, sigma = spectral_norm(weight, u)
    >>> torch.testing.assert_close(W_bar, weight / sigma)

    Args:
        weight: (O, ...), floating point.
        u: (1, O), of the same dtype. It is read, not advanced.

    Returns:
        The normalized weight, of weight's shape and dtype, and the scalar `sigma = v W u'^T`.

    Raises:
        ValueError: u has another shape, or one of both is of whole numbers.
        RuntimeError: torch's own, if they are of two dtypes.
    """
    check_vector(weight, u)
    with torch.no_grad():
        u_next, v = power_step(weight, u)
    return _divide(weight, u_next, v)


def spectral_norm_through(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `spectral_norm` where u' and v are functions of the weight in the backward, as in the author's program.

    Arguments, results and errors are its own.

    >>> weight, u = torch.randn(4, 3, 3, 3), torch.randn(1, 4)
    >>> torch.equal(spectral_norm_through(weight, u)[0], spectral_norm(weight, u)[0])
    True
    """
    check_vector(weight, u)
    return _divide(weight, *power_step(weight, u))


@unless_traced
def check_vector(weight: Tensor, u: Tensor) -> None:
    """Raise ValueError unless u belongs to the weight."""
    if weight.dim() < 2:
        raise misfit("weight", weight, "(O, ...), two dimensions at least")
    if u.shape != (1, weight.shape[0]) or not u.is_floating_point():
        check_floating("u", u)
        raise misfit("u", u, f"(1, {weight.shape[0]})")


def _divide(weight: Tensor, u_next: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    sigma = (v @ weight.flatten(1).T @ u_next.T).squeeze()
    return weight / sigma, sigma


def _normalize(a: Tensor) -> Tensor:
    return a / (torch.linalg.vector_norm(a) + 1e-12)
