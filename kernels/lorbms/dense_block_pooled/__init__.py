"""A dense block and the transition down behind it, which together keep one copy of the stack for their backward."""

from torch import Tensor

from lorbms_fast.kernels._common.autocast import refuse_integers
from lorbms_fast.kernels._common.operation import is_watched
from lorbms_fast.kernels.dense_block import BlockActivation, PackedLayers, dense_block_activated
from lorbms_fast.kernels.lorbms.dense_block_pooled import fused
from lorbms_fast.kernels.lorbms.pooled_conv import check_pooled, pooled_conv2d


def dense_block_pooled(
    x: Tensor, layers: PackedLayers, weight: Tensor, bias: Tensor, activation: BlockActivation = "relu",
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """`pooled_conv2d(dense_block_activated(x, layers, ...), weight, bias)`: a block and a DenseNet's transition.

    >>> from lorbms_fast.kernels.dense_block import pack_layers
    >>> (packed,) = pack_layers([([torch.randn(4, 8, 3, 3)], [torch.zeros(4)])])
    >>> dense_block_pooled(torch.randn(2, 8, 10, 10), packed, torch.randn(6, 12, 1, 1), torch.zeros(6)).shape
    torch.Size([2, 6, 5, 5])

    Together the two keep one copy of the stack for their backward and not two. `pack_layers` made the layers, whose
    form runs; weight (O, C + L * growth, 1, 1) and bias (O,) are the convolution's.

    Returns (N, O, H // 2, W // 2). Differentiable once. Raises ValueError if a shape, dtype or device does not fit.
    """
    if layers.form == "fused" and not is_watched():  # who watches, means to choose for each of the two
        refuse_integers(x)
        layers.check(x)
        check_pooled(x, weight, bias, layers.maps)
        return fused.dense_block_pooled(x, layers.weights, layers.biases, activation, eps, weight, bias)
    impl = "reference" if layers.form == "reference" else layers.asked
    return pooled_conv2d(dense_block_activated(x, layers, activation=activation, eps=eps), weight, bias, impl)
