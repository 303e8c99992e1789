"""What the forward graph of an iteration makes."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scenes:
    """Codes (N, 4, chunk) and images (N, 3, S, S) of the forward graph (thesis, Figure 3.2)."""

    f_ref: Tensor
    f_mix: Tensor
    f_mix_hat: Tensor
    f_ref_hat: Tensor
    I_hat: Tensor
    I_mix: Tensor
    I_prime: Tensor
