"""`python -m bench.gpu`: on a machine with a GPU, check every kernel there, time it, and write bench/GPU.md."""

import datetime
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.raw import RAW
from lorbms_fast import kernels
from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels._common.dispatch import Impl
from lorbms_fast.measurement.machine import machine

GPU = Path(__file__).parents[1] / "GPU.md"
Operation = Callable[..., Tensor]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@dataclass(frozen=True)
class Case:
    """An operation at a shape: `run(*inputs, impl=...)`."""

    name: str
    run: Operation
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, dtype: torch.dtype, device: str) -> list[Tensor]:
        """Random inputs, weights scaled to keep the size of what they act on."""
        generator = torch.Generator(device).manual_seed(0)
        drawn = [torch.randn(shape, generator=generator, device=device) for shape in self.shapes]
        scaled = [x / x[0].numel() ** 0.5 if i and x.dim() > 1 else x for i, x in enumerate(drawn)]
        layout = torch.channels_last if scaled[0].dim() == 4 else torch.contiguous_format
        scaled[0] = scaled[0].contiguous(memory_format=layout)
        return [x.to(dtype).requires_grad_() for x in scaled]


def dense_block(name: str, n: int, channels: int, layers: int, side: int, activation: Any) -> Case:
    """A dense block of the model (growth 16)."""
    weights = [(16, channels + 16 * i, 3, 3) for i in range(layers)]
    shapes = ((n, channels, side, side), *weights, *[(16,)] * layers)

    def run(x: Tensor, *parameters: Tensor, impl: Impl) -> Tensor:
        return kernels.dense_block_activated(x, parameters[:layers], parameters[layers:], activation, 1e-5, impl)

    return Case(f"dense block, {name} {side}x{side}", run, shapes)


def cases(n: int = 12) -> list[Case]:
    """What the model runs, for n reference images."""
    encoder = [(48, 4, 64), (112, 5, 32), (192, 7, 16), (304, 10, 8), (464, 12, 4)]
    decoder = [(656, 12, 4), (464, 10, 8), (304, 7, 16), (192, 5, 32), (112, 4, 64)]
    return [
        *(dense_block("encoder", 3 * n, *block, "instance_norm_relu") for block in encoder),
        *(dense_block("decoder", 2 * n, *block, "relu") for block in decoder),
        *(
            Case(f"instance norm + ReLU, {c} maps {s}x{s}", _instance_norm_relu, ((3 * n, c, s, s),))
            for c, s in ((112, 64), (304, 16))
        ),
        Case("resize convolution, 160 maps 8x8", _resize_conv, ((2 * n, 160, 8, 8), (304, 160, 3, 3))),
        Case("pooled convolution, 112 maps 64x64", _pooled_conv, ((3 * n, 112, 64, 64), (112, 112, 1, 1), (112,))),
        Case("max pooling, 112 maps 64x64", _max_pool, ((3 * n, 112, 64, 64),)),
        Case("ReLU + grouped batch norm, 96 maps 29x29", _batch_norm, ((4 * n, 96, 29, 29), (96,), (96,))),
        Case("spectral norm of 17 weights", _spectral_norm, tuple((16, 112 + 16 * i, 3, 3) for i in range(17))),
        Case("mixing of chunks", _mix_chunks, ((n, 4, 192), (n, 4, 192))),
        Case("loss head, 64x64", _loss_head, (*[(n, 3, 64, 64)] * 3, (n, 1, 4, 4), (4, n, 4))),
    ]


def _instance_norm_relu(x: Tensor, impl: Impl) -> Tensor:
    return kernels.instance_norm_relu(x, 1e-5, impl)


def _resize_conv(x: Tensor, weight: Tensor, impl: Impl) -> Tensor:
    return kernels.resize_conv(x, weight, impl)


def _pooled_conv(x: Tensor, weight: Tensor, bias: Tensor, impl: Impl) -> Tensor:
    return lorbms.pooled_conv2d(x, weight, bias, impl)


def _max_pool(x: Tensor, impl: Impl) -> Tensor:
    return kernels.max_pool2x2(x, impl)


def _batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, impl: Impl) -> Tensor:
    return kernels.relu_grouped_batch_norm(x, gamma, beta, 4, impl=impl)[0]


def _spectral_norm(*weights: Tensor, impl: Impl) -> Tensor:
    us = [weight.new_ones(1, weight.shape[0]) for weight in weights]
    return torch.cat([W_bar.flatten() for W_bar in kernels.spectral_norm_all(weights, us, impl)])


def _mix_chunks(f_ref: Tensor, f_q: Tensor, impl: Impl) -> Tensor:
    replaced = torch.arange(f_ref.shape[0] * f_ref.shape[1], device=f_ref.device) % 3 == 0
    return lorbms.mix_chunks(f_ref, f_q, replaced.view(f_ref.shape[:2]), impl)


def _loss_head(I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, impl: Impl) -> Tensor:
    mask = torch.arange(logits[0].numel(), device=logits.device).view(logits[0].shape) % 3 == 0
    weights, lambdas = (0.904, 0.052, 0.044), (1.0,) * len(logits)
    return torch.stack(lorbms.loss_head(I_ref, I_hat, I_prime, D_mix, logits, mask, weights, lambdas, impl=impl))


def error(case: Case, impl: Impl, dtype: torch.dtype, device: str) -> float:
    """Largest relative error of the output and of the gradients against the definition in float64."""
    inputs = case.inputs(dtype, device)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found, expected = _results(case, inputs, impl), _results(case, exact, "reference")
    scale = max(e.norm().item() / e.numel() ** 0.5 for e in expected)
    errors = []
    for f, e in zip(found, expected, strict=True):
        # Gradients that are 0 but for rounding (biases under a norm) are measured against all others.
        typical = max(e.norm().item(), 1e-2 * scale * e.numel() ** 0.5)
        errors.append((f.double() - e).norm().item() / typical)
    return max(errors)


def _results(case: Case, inputs: list[Tensor], impl: Impl) -> list[Tensor]:
    y = case.run(*inputs, impl=impl)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad((y * probe).sum(), inputs)]


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call on the GPU, its cache flushed before each."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=100, rep=300, return_mode="median"))


def timed(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of forward and backward: definition, the same compiled, fused torch, Triton."""
    inputs = case.inputs(dtype, "cuda")
    grad = torch.randn_like(case.run(*inputs, impl="reference"))
    times = {}

    def step(run: Operation, impl: Impl) -> Callable[[], object]:
        return lambda: torch.autograd.grad(run(*inputs, impl=impl), inputs, grad)

    torch._dynamo.reset()
    times["definition"] = milliseconds(step(case.run, "reference"))
    times["definition, compiled"] = milliseconds(step(torch.compile(case.run), "reference"))
    times["fused torch"] = milliseconds(step(case.run, "fused"))
    times["Triton"] = milliseconds(step(case.run, "triton"))
    return times


def main() -> int:
    """Check, time, write; returns the exit status: 1 if a kernel is wrong."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing checked, nothing measured, bench/GPU.md stays as it is")
        return 0
    wrong = 0
    lines = [f"| operation | error float32 | error bfloat16 | {' | '.join(_COLUMNS)} |"]
    lines.append("|---|---:|---:|" + "---:|" * len(_COLUMNS))
    for case in cases():
        try:
            with exact_products():
                errors = {torch.float32: error(case, "triton", torch.float32, "cuda")}
            errors[torch.bfloat16] = error(case, "triton", torch.bfloat16, "cuda")
            times = timed(case, torch.bfloat16)
        except Exception as problem:  # one kernel that fails must not hide what the others do
            wrong += 1
            lines.append(f"| {case.name} | **{type(problem).__name__}: {str(problem).splitlines()[0][:120]}** |")
            print(lines[-1], flush=True)
            continue
        good = all(errors[dtype] <= TOLERANCES[dtype] for dtype in errors)
        wrong += not good
        shown = " | ".join(f"{value:.1e}" + ("" if good else " **wrong**") for value in errors.values())
        lines.append(f"| {case.name} | {shown} | {' | '.join(f'{times[column]:.3f}' for column in _COLUMNS)} |")
        print(lines[-1], flush=True)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = [
        "# Kernels on a GPU",
        "",
        f"Written by `python -m bench.gpu`, {date}, {machine()}.",
        "Errors against the definition in float64, outputs and all gradients. Times in milliseconds, forward and",
        "backward, bfloat16, median.",
        "",
        *lines,
        "",
        *raw_lines(),
    ]
    with atomic_write(GPU) as partial:
        partial.write_text("\n".join(text) + "\n")
    print(f"{GPU} is new")
    return 1 if wrong else 0


_COLUMNS = ("definition", "definition, compiled", "fused torch", "Triton")


def exact_products() -> Any:
    """float32 products without TF32."""
    return torch.backends.cudnn.flags(allow_tf32=False) if torch.backends.cudnn.is_available() else nullcontext()


def raw_lines() -> list[str]:
    """Two operations, forward only, against plain CUDA kernels through CuPy, if it is here."""
    try:
        import cupy
    except ImportError:
        return ["CuPy is not installed: no comparison with raw CUDA kernels."]
    lines = ["| forward, float32 | CUDA through CuPy, ms | ours, ms | largest difference |", "|---|---:|---:|---:|"]
    for name, raw in RAW.items():
        theirs, ours = raw(cupy)
        apart = (theirs() - ours()).abs().max().item()
        lines.append(f"| {name} | {milliseconds(theirs):.3f} | {milliseconds(ours):.3f} | {apart:.1e} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
