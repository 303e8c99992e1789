"""Choosing a kernel's tile sizes by trial, once a shape, from a handful of stated ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton


class Tuner(triton.runtime.Autotuner):
    """Triton's own, which times no candidate that is the only one.

    Triton before 3.9 does, for a shape not seen before: a capture would fail of it, and nothing is learned.
    """

    tiny: dict[str, int]
    """Tiles for the interpreter."""
    timed = True
    """False, for all, where several processes share a GPU to compile: candidates are run once, none is chosen."""

    def prune_configs(self, kwargs: dict[str, Any]) -> list[triton.Config]:
        """List the candidates."""
        candidates: list[triton.Config] = super().prune_configs(kwargs)
        self.alone = len(candidates) == 1
        return candidates

    def _bench(self, *args: Any, config: triton.Config, **meta: Any) -> Any:
        if self.alone:
            return [0.0] * 3
        if not self.timed:
            self.fn.run(*args, **meta, **config.all_kwargs())
            return [0.0] * 3
        return super()._bench(*args, config=config, **meta)

    def check_disk_cache(self, tuning_key: Any, configs: Any, bench_fn: Callable[[], None]) -> bool:
        """Look up, or find and keep, the fastest candidate; untimed ones are compiled, and nothing is kept."""
        if self.timed:
            return bool(super().check_disk_cache(tuning_key, configs, bench_fn))
        bench_fn()
        return False


def autotune(
    configs: Sequence[triton.Config], tiny: dict[str, int], key: Sequence[str], exact: int = 0,
    likely: Callable[[dict[str, Any]], int] = lambda _: 0,
) -> Callable[[Any], Tuner]:  # fmt: skip
    """Decorate a kernel: the fastest of `configs` for each new value of its arguments `key`.

    Nothing is tried in the interpreter, which takes `tiny` tiles; nor while a CUDA graph is captured, when the one that
    is `likely` to suit the arguments is taken for a shape not seen before (warm up before capturing); nor for float32
    products without TF32 (PRECISION "ieee"), which number `exact` suits. Choices are kept in Triton's cache on disk.
    """

    def candidates(configs: list[triton.Config], arguments: dict[str, Any], **named: Any) -> list[triton.Config]:
        if (arguments | named).get("PRECISION") == "ieee":
            return [configs[exact]]
        first = configs[likely(arguments | named)]
        capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        return [first] if capturing else [first, *(config for config in configs if config is not first)]

    def decorate(kernel: Any) -> Tuner:
        # Where TRITON_INTERPRET was set from the start; the tests interpret single kernels, and take `tiny` then.
        tried = [triton.Config(tiny)] if triton.knobs.runtime.interpret else list(configs)
        tuner = Tuner(
            kernel, kernel.arg_names, tried, list(key), None, None,
            prune_configs_by={"early_config_prune": candidates}, cache_results=True,
        )  # fmt: skip
        tuner.tiny = tiny
        return tuner

    return decorate


@autotune([triton.Config({})], {}, [])
@triton.jit
def nothing() -> None:
    """Fail, as this is imported, in a Triton whose tuner is not as ours takes it: `dispatch.found_triton`."""
