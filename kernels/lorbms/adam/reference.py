"""Step size of Adam, as the equations read."""

from torch import Tensor


def step_size(
    loss: Tensor, overflow: Tensor, t: Tensor, flawed: Tensor, lr: Tensor, factor: Tensor, betas: tuple[float, float],
    expected: bool,
) -> Tensor:  # fmt: skip
    """The step's rate; documented at the package's function of this name."""
    flawed[0].add_(~loss.isfinite())
    if not expected:
        flawed[1].add_(overflow)
    t.add_(1 - overflow)
    beta1, beta2 = betas
    return factor * lr * (1 - beta2**t).sqrt() / (1 - beta1**t)
