"""Memory that stays with the process."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_pages() -> None:
    """Have glibc reuse freed memory instead of handing it back; elsewhere do nothing.

    Every block above 32 MiB otherwise comes as fresh pages, which the system must clear, each time it is asked for:
    about a twelfth of an iteration on a CPU. The process then keeps its largest size to its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
