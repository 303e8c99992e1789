"""Choosing a kernel's tile sizes by trial, once a shape, from a handful of stated ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton

from lorbms_fast.kernels._common.dispatch import INTERPRETED


def autotune(
    configs: Sequence[triton.Config], tiny: dict[str, int], key: Sequence[str], exact: int = 0
) -> Callable[[Any], triton.runtime.Autotuner]:
    """Decorate a kernel: the fastest of `configs` for each new value of its arguments `key`.

    Nothing is tried in the interpreter, which takes `tiny` tiles; nor while a CUDA graph is captured, when the first of
    `configs` is taken for a shape not seen before (warm up before capturing); nor for float32 products without TF32
    (PRECISION "ieee"), which number `exact` suits. Choices are kept in Triton's cache on disk.
    """

    def candidates(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
        if arguments.get("PRECISION") == "ieee":
            return [configs[exact]]
        capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        return configs[:1] if capturing else configs

    def decorate(kernel: Any) -> triton.runtime.Autotuner:
        # Triton before 3.9 times even a single candidate, for which the interpreter has no clock.
        tried = [triton.Config(tiny)] if INTERPRETED else list(configs)
        tuner: triton.runtime.Autotuner = triton.autotune(
            tried, list(key), prune_configs_by={"early_config_prune": candidates}, cache_results=True
        )(kernel)
        return tuner

    return decorate
