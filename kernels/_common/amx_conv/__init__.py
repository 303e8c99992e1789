"""3x3 convolutions of channels_last maps in bfloat16 by the processor's tiles (AMX), as Winograd's loops are called.

They go through slices of maps where they lie, among them those of a dense block's stack; channels, in and out, come in
sixteens. What is read is padded by one, and may go through ReLU.
"""

from ctypes import c_int, c_void_p
from pathlib import Path

import torch

from lorbms_fast.kernels._common.cpp import CONVOLUTION, Loops
from lorbms_fast.kernels._common.of_torch import has_amx

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "conv": (2, [*CONVOLUTION, c_int, c_void_p, c_void_p, c_int]),
        "conv_backward_input": (2, [*CONVOLUTION, c_void_p]),
    },
)


def runs(dtype: torch.dtype) -> bool:
    """Do these loops take a dtype on this machine, by this compiler?"""
    return dtype == torch.bfloat16 and has_amx() and LOOPS.built()
