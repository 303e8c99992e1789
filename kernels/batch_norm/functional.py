"""Batch normalization (Ioffe and Szegedy, 2015) and an activation as a function."""

from torch import Tensor, nn

from lorbms_fast.kernels._common.activation import named
from lorbms_fast.kernels._common.dispatch import Impl, select_impl
from lorbms_fast.kernels._common.shapes import check_number
from lorbms_fast.kernels.batch_norm import fused, reference


def batch_norm_act(
    x: Tensor,
    activation: str | nn.Module = "relu",
    negative_slope: float | None = None,
    eps: float = 1e-5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    momentum: float = 0.1,
    impl: Impl | None = None,
) -> Tensor:
    """Activate maps normalized over the batch, of which only x is kept for the backward.

    >>> x = torch.randn(4, 3, 8, 8)
    >>> y = batch_norm_act(x, "leaky_relu", 0.2)
    >>> torch.testing.assert_close(y, F.leaky_relu(F.batch_norm(x, None, None, training=True), 0.2))

    Args:
        x: (N, C, *positions), more than one value of a channel.
        activation: `relu`, `leaky_relu`, `silu`, `gelu`, `gelu_tanh` or `identity`; or a layer of torch's that is one.
        negative_slope: of `leaky_relu`, 0.01 unless given; no other takes one.
        eps: added to the variance.
        weight: scale, (C,), or None.
        bias: shift, (C,), or None.
        running_mean: average, (C,), that moves towards the batch's mean by the share `momentum`, or None.
        running_var: the same of the unbiased variance.
        momentum: that share.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape, dtype and memory layout.

    Raises:
        ValueError: there is no such activation, or form; or one value of a channel has no variance.
    """
    check_number("eps", eps)
    form = reference if select_impl(impl, x) == "reference" else fused  # `triton` is torch's own, which calls cuDNN
    how = named(activation, negative_slope)
    return form.batch_norm(x, weight, bias, running_mean, running_var, momentum, eps, how)
