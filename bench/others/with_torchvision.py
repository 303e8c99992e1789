"""Torchvision beside a torch without CUDA."""

import importlib
from types import ModuleType

from torch.library import Library

_LIBRARY = Library("torchvision", "FRAGMENT")


def densenet() -> ModuleType:
    """Import `torchvision.models.densenet`.

    The package index's torchvision is built for CUDA and cannot load its operators beside a CPU build of torch: its
    import fails for want of two of them. The models need none; so the two are declared, and compute nothing.

    Raises:
        ImportError: it is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.models.densenet")
