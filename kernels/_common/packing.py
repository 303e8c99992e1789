"""Layers that read their parameters otherwise than they keep them."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lorbms_fast.kernels._common.dispatch import Impl


class Packing(nn.Module):
    """Base of layers that pack their parameters: at every call, or once for several, inside of `passes`."""

    impl: Impl | None = None
    """Form to run; None takes the one in force."""
    packed: Any = None
    """What `pack` made, while `passes` runs the layer; its forward then reads nothing else of its parameters."""

    @classmethod
    def pack(cls, layers: Sequence[Any]) -> Sequence[Any]:
        """Pack the parameters of several layers of this class: on CUDA a launch for all of them and not for each."""
        raise NotImplementedError
