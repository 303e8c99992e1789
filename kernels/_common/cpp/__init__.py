"""Loops in C++ for the CPU: compiled by the machine's own compiler when first needed, and kept.

torch's loops over 16 neighbouring channels of a wider stack have no vector instructions, and every step of a chain of
them is a pass over memory. A folder's `loops.cpp` holds such chains as one loop each; `cpp.py` registers them as
operations. Where there is no compiler the same steps run as operations of torch's: slower, and otherwise the same.
"""

from lorbms_fast.cpp import native_loops
from lorbms_fast.kernels._common.cpp.lines import line_stride, plain
from lorbms_fast.kernels._common.cpp.loops import CONVOLUTION, NORM, Loops, address, cpp_op

__all__ = ["CONVOLUTION", "NORM", "Loops", "address", "cpp_op", "line_stride", "native_loops", "plain"]
