"""`python -m bench.norms`: instance norms, alone and with activations, beside torch's own in the same memory layout.

Forward with backward, in turns; in two and three dimensions, float32, bfloat16 and float16, with parameters and
without, contiguous and channels_last; freed memory stays with the process. A number above 1 says how many times faster
ours is. What torch keeps for the backward of a norm and an activation is counted beside what ours keeps. Prints a table
for Markdown, and how many cases take more than 1.05 times torch's own.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from lorbms_fast import kernels
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.measurement.machine import machine
from lorbms_fast.measurement.pairs import Pair, in_turns, seconds

SHAPES: dict[int, list[tuple[int, ...]]] = {
    2: [
        (2, 32, 128, 128),
        (4, 64, 64, 64),
        (8, 256, 16, 16),
        (2, 128, 14, 14),
        (8, 64, 9, 9),
        (2, 64, 10, 10),
        (2, 64, 5, 5),
    ],
    3: [(1, 32, 32, 64, 64), (2, 64, 16, 24, 24)],
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ACTIVATIONS = {
    "none": None,
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
}
SLOWER = 1 / 1.05
LONG = 1 << 18
"""Values of fewer take less than a clock tells from noise: several calls are timed at once."""


def main() -> None:
    """Measure all cases, or those of fewer shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS))
    parser.add_argument("--small", action="store_true", help="one small shape each, to see that it runs")
    parser.add_argument(
        "--busy", action="store_true", help="one thread, and its processor's time: for a machine that does other things"
    )
    asked = parser.parse_args()
    retain_freed_memory()
    if asked.busy:
        torch.set_num_threads(1)
    shapes: dict[int, list[tuple[int, ...]]] = SHAPES
    if asked.small:
        shapes = {2: [(1, 3, 6, 6)], 3: [(1, 3, 4, 4, 4)]}
    clock = " by the processor's time" if asked.busy else ""
    print(f"{machine()}, {torch.get_num_threads()} threads{clock}\n")
    print(f"| shape | dtype | parameters | layout | {' | '.join(asked.activations)} | kept, MB: torch's -> ours |")
    print(f"|---|---|---|---|{'---:|' * (len(asked.activations) + 1)}")
    slower = 0
    for shape, dtype, affine, channels_last in cases(shapes):
        x = _maps(shape, dtype, channels_last)
        cells, kept = [], ("", "")
        for name in asked.activations:
            layers = theirs(shape, affine, name), ours(shape, affine, name)
            ratio = measured(x, layers, asked.rounds, _processor_seconds if asked.busy else seconds)
            slower += ratio < SLOWER
            cells.append(f"**{ratio:.2f}**" if ratio < SLOWER else f"{ratio:.2f}")
            kept = f"{kept_megabytes(x, layers[0]):.1f}", f"{kept_megabytes(x, layers[1]):.1f}"
        layout, parameters = "channels_last" if channels_last else "contiguous", "yes" if affine else "no"
        words = " x ".join(map(str, shape)), str(dtype).removeprefix("torch."), parameters, layout
        print(f"| {' | '.join([*words, *cells])} | {' -> '.join(kept)} |", flush=True)
    print(
        f"\n{slower} of them take more than 1.05 times torch's own." if slower else "\nNone is slower than torch's own."
    )


def cases(shapes: dict[int, list[tuple[int, ...]]]) -> Iterator[tuple[tuple[int, ...], torch.dtype, bool, bool]]:
    """Cases of the grid: shape, dtype, parameters, channels_last."""
    for dimensions in shapes:
        yield from product(shapes[dimensions], DTYPES, (False, True), (False, True))


def theirs(shape: tuple[int, ...], affine: bool, activation: str) -> nn.Module:
    """Torch's norm, and its activation."""
    norm = (nn.InstanceNorm2d if len(shape) == 4 else nn.InstanceNorm3d)(shape[1], affine=affine)
    make = ACTIVATIONS[activation]
    return norm if make is None else nn.Sequential(norm, make())


def ours(shape: tuple[int, ...], affine: bool, activation: str) -> nn.Module:
    """The same in one layer of ours."""
    if activation == "none":
        return (kernels.InstanceNorm2d if len(shape) == 4 else kernels.InstanceNorm3d)(shape[1], affine=affine)
    kind = kernels.InstanceNormAct2d if len(shape) == 4 else kernels.InstanceNormAct3d
    return kind(shape[1], activation, affine=affine)


def measured(
    x: Tensor, layers: tuple[nn.Module, nn.Module], rounds: int, measure: Callable[[Callable[[], object]], float]
) -> float:
    """Factor by which the second is faster."""
    probe = torch.randn_like(x)

    def step(layer: nn.Module) -> Callable[[], None]:
        def run() -> None:
            for _ in range(1 if x.numel() >= LONG else 20):
                layer(x).backward(probe)

        return run

    return Pair(*in_turns([step(layer) for layer in layers], rounds, 2, measure)).ratio


def kept_megabytes(x: Tensor, layer: nn.Module) -> float:
    """Size of what autograd keeps of a layer, without what x's own producer may keep as well."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x * 1)  # held, with all that was kept, while addresses tell them apart
    del y
    return sum(kept.values()) / 1e6


def _maps(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = torch.randn(shape).to(dtype)
    return (x.contiguous(memory_format=layout) if channels_last else x).requires_grad_()


def _processor_seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
