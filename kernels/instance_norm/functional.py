"""Instance normalization (Ulyanov et al., 2016) as functions, alone or followed by an activation."""

from torch import Tensor, nn

from lorbms_fast.kernels._common.activation import IDENTITY, RELU, Activation, named
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Form, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_number, check_of_maps, misfit
from lorbms_fast.kernels.instance_norm import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels.instance_norm.triton import ops as triton_ops


@operation(kernels="_common.normalization")
def instance_norm(x: Tensor, eps: float = 1e-5, impl: Impl | None = None) -> Tensor:
    """Normalize each map of each sample: `(x - mean) / sqrt(var + eps)`, with the biased variance.

    >>> x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    >>> y = instance_norm(x)
    >>> torch.testing.assert_close(y, F.instance_norm(x))
    >>> y.is_contiguous(memory_format=torch.channels_last)
    True

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape, dtype and memory layout.

    Raises:
        ValueError: x has fewer dimensions, or there is no such form.
    """
    _refuse_no_maps(x)
    return run(select_impl(impl, x), x, eps)


@operation(kernels="_common.normalization")
def instance_norm_relu(x: Tensor, eps: float = 1e-5, impl: Impl | None = None) -> Tensor:
    """`ReLU(instance_norm(x))`, of which only x is kept for the backward; arguments and result as `instance_norm`'s.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.testing.assert_close(instance_norm_relu(x), F.instance_norm(x).relu())
    """
    _refuse_no_maps(x)
    return run(select_impl(impl, x), x, eps, activation=RELU)


@operation(kernels="_common.normalization")
def instance_norm_act(
    x: Tensor,
    activation: str | nn.Module | Activation = "relu",
    negative_slope: float | None = None,
    eps: float = 1e-5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Activate normalized maps, of which only x is kept for the backward.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> y = instance_norm_act(x, "leaky_relu", 0.2)
    >>> torch.testing.assert_close(y, F.leaky_relu(F.instance_norm(x), 0.2))

    Args:
        x: (N, C, *positions).
        activation: `relu`, `leaky_relu`, `silu`, `gelu`, `gelu_tanh` or `identity`; or a layer of torch's that is one.
        negative_slope: of `leaky_relu`, 0.01 unless given; no other takes one.
        eps: added to the variance.
        weight: scale, (C,), or None.
        bias: shift, (C,), or None.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape, dtype and memory layout.

    Raises:
        ValueError: there is no such activation, or form; or weight or bias has another shape.
    """
    _refuse_no_maps(x)
    if weight is not None or bias is not None:
        check_of_maps(x, ("weight", "bias"), weight, bias)
    return run(select_impl(impl, x), x, eps, weight, bias, named(activation, negative_slope))


def _refuse_no_maps(x: Tensor) -> None:
    if x.dim() < 3:
        raise misfit("x", x, "(N, C, *positions)")


def run(
    form: Form,
    x: Tensor,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: Activation = IDENTITY,
) -> Tensor:
    """Normalize and activate in one form."""
    check_number("eps", eps)
    if form == "reference":
        return reference.instance_norm(x, eps, weight, bias, activation)
    return (triton_ops if form == "triton" else fused).instance_norm(x, eps, weight, bias, activation)
