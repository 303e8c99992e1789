"""The operations and the shapes at which they are checked: what the model runs, and what the library offers beside."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import Impl, lorbms

Outputs = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Case:
    """An operation at a shape, `run(*inputs, impl=...)`, with gradients of all inputs or of none."""

    name: str
    run: Callable[..., Outputs]
    shapes: tuple[tuple[int, ...], ...]
    """Of the inputs, the first of which has channels as neighbours in memory where it has four dimensions."""
    gradients: bool = True

    def inputs(self, device: torch.device, draw: int = 0) -> list[Tensor]:
        """Draw inputs, weights scaled to keep the size of what they act on: float32, exact in half precision too."""
        generator = torch.Generator(device).manual_seed(draw)
        drawn = [torch.randn(shape, generator=generator, device=device) for shape in self.shapes]
        scaled = [x / x[0].numel() ** 0.5 if i and x.dim() > 1 else x for i, x in enumerate(drawn)]
        rounded = [x.bfloat16().float() for x in scaled]
        kept = [x.where(x.abs() >= torch.finfo(torch.float16).tiny, 0.0) for x in rounded]
        layout = torch.channels_last if kept[0].dim() == 4 else torch.contiguous_format
        kept[0] = kept[0].contiguous(memory_format=layout)
        return kept


SMALLEST = 4
"""Side of the smallest maps that are checked; the model's own are no smaller."""


def cases(model: ModelConfig, n: int, side: int) -> list[Case]:
    """Everything, for n reference images of a side."""
    stem, widths, growth = model.stem, model.encoder_widths, model.growth
    sides = [side >> level for level in range(5) if side >> level >= SMALLEST]
    encoder = list(zip((stem, *widths), model.layers, sides, strict=False))
    decoder = list(zip(model.decoder_widths[::-1], model.layers, sides, strict=False))
    batch_norm = partial(kernels.relu_grouped_batch_norm, groups=4)
    below = (*(growth * layers for layers in model.layers[1:]), model.chunk)
    chunks, chunk, c1 = model.chunks if side == model.image_size else 4, model.chunk, model.classifier_widths[0]
    last, new = model.decoder_widths[-1], growth * model.layers[0]
    normalised = [(growth, width + layer * growth, 3, 3) for width, layers, _ in decoder for layer in range(layers)]
    return [
        *(_dense("encoder", 3 * n, *block, growth, "instance_norm_relu") for block in encoder),
        *(_dense("decoder", 2 * n, *block, growth, "relu") for block in decoder),
        *(
            _of_maps("instance norm + ReLU", kernels.instance_norm_relu, 3 * n, c, s)
            for c, s in zip(widths, sides, strict=False)
        ),
        *(
            Case(f"resize convolution, {c} to {o} maps {s}x{s}", kernels.resize_conv, ((2 * n, c, s, s), (o, c, 3, 3)))
            for c, (o, _, s) in zip(below, [(o, layers, s // 2) for o, layers, s in decoder], strict=False)
        ),
        *(
            Case(f"pooled convolution, {c} maps {s}x{s}", lorbms.pooled_conv2d, ((3 * n, c, s, s), (c, c, 1, 1), (c,)))
            for c, s in zip(widths, sides, strict=False)
        ),
        _of_maps("max pooling", kernels.max_pool2x2, 3 * n, widths[0], sides[0]),
        Case(f"CoordConv, {side}x{side}", kernels.coord_conv2d, ((3 * n, 3, side, side), (stem, 5, 3, 3), (stem,))),
        Case(
            f"output convolution, {last} + {new} maps {side}x{side}",
            lorbms.output_conv2d,
            ((2 * n, last, side, side), (2 * n, new, side, side), (3, last + new, 1, 1), (3,)),
        ),
        Case(f"ReLU + grouped batch norm, {c1} maps", batch_norm, ((4 * n, c1, *_halved(side)), (c1,), (c1,))),
        Case(f"spectral norm of {len(normalised)} weights", _spectral_norm, tuple(normalised)),
        Case(f"advance of {len(normalised)} u", _advance_u, tuple(normalised), gradients=False),
        Case("mixing of chunks", _mix_chunks, ((n, chunks, chunk), (n, chunks, chunk))),
        Case("mixing of the chunks in use", _mix_used, ((n + int(_mask((n, chunks), "cpu").sum()), chunks, chunk),)),
        Case("loss head", _loss_head, (*[(n, 3, side, side)] * 3, (n, 1, 4, 4), (4, n, 4))),
        Case("classification loss", _classification, ((4, n, 4),)),
        Case("discrimination loss", lorbms.discrimination_loss, ((2 * n, 1, 4, 4),)),
        Case("discrimination loss, hinge", partial(lorbms.discrimination_loss, gan="hinge"), ((2 * n, 1, 4, 4),)),
        Case(f"batch assembly, {side}x{side}", partial(_assemble, n=n, side=side), ((1,),), gradients=False),
        Case("step of Adam", _adam, ((),), gradients=False),
    ]  # fmt: skip


def _dense(network: str, n: int, channels: int, layers: int, side: int, growth: int, activation: Any) -> Case:
    weights = [(growth, channels + growth * i, 3, 3) for i in range(layers)]
    shapes = ((n, channels, side, side), *weights, *[(growth,)] * layers)

    def run(x: Tensor, *parameters: Tensor, impl: Impl) -> Tensor:
        operation = kernels.dense_block_activated if network == "encoder" else kernels.dense_block_maps
        return operation(x, parameters[:layers], parameters[layers:], activation, impl=impl)

    return Case(f"dense block, {network} {side}x{side}", run, shapes)


def _of_maps(name: str, run: Callable[..., Outputs], n: int, channels: int, side: int) -> Case:
    return Case(f"{name}, {channels} maps {side}x{side}", run, ((n, channels, side, side),))


def _halved(side: int) -> tuple[int, int]:
    """Sides of the classifier's first maps."""
    return ((side - 8) // 2 + 1,) * 2 if side >= 8 else (side, side)


def _mask(shape: Sequence[int], device: torch.device | str) -> Tensor:
    """(N, chunks): every third."""
    return (torch.arange(math.prod(shape), device=device) % 3 == 0).view(*shape)


def _spectral_norm(*weights: Tensor, impl: Impl) -> Outputs:
    return kernels.spectral_norm_all(weights, _us(weights), impl)


def _advance_u(*weights: Tensor, impl: Impl) -> Outputs:
    us = _us(weights)
    kernels.advance_u(weights, us, impl)
    return us


def _us(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.new_ones(1, weight.shape[0]) for weight in weights]


def _mix_chunks(f_ref: Tensor, f_q: Tensor, impl: Impl) -> Tensor:
    return lorbms.mix_chunks(f_ref, f_q, _mask(f_ref.shape[:2], f_ref.device), impl)


def _mix_used(codes: Tensor, impl: Impl) -> Tensor:
    chunks = codes.shape[1]
    # Of N images' chunks every third is replaced: N + ceil(N chunks / 3) codes.
    n = next(n for n in range(len(codes), 0, -1) if n + -(-n * chunks // 3) == len(codes))
    return lorbms.mix_used(codes, _mask((n, chunks), codes.device), impl)


def _loss_head(I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, impl: Impl) -> Outputs:
    weights, lambdas = (0.904, 0.052, 0.044), (1.0,) * len(logits)
    mask = _mask(logits.shape[1:], logits.device)
    return lorbms.loss_head(I_ref, I_hat, I_prime, D_mix, logits, mask, weights, lambdas, impl=impl)[:1]


def _classification(logits: Tensor, impl: Impl) -> Tensor:
    return lorbms.classification_loss(logits, _mask(logits.shape[1:], logits.device), (1.0, 0.9, 0.8, 0.7), impl)


def _assemble(x: Tensor, impl: Impl, n: int, side: int) -> Tensor:
    images, rows = _images(n, side, x.device)
    return lorbms.assemble_batch(images, rows, x.dtype, channels_last=True, impl=impl)


@lru_cache(maxsize=1)
def _images(n: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(256, (10 * n, side, side, 3), dtype=torch.uint8, generator=generator, device=device)
    rows = torch.randint(10 * n, (5, n), generator=generator, device=device)
    return images, rows


def _adam(loss: Tensor, impl: Impl) -> Outputs:
    """The seventh step, and one that overflowed."""
    found = []
    for overflowed in (0.0, 1.0):
        overflow = torch.full((), overflowed, device=loss.device)
        t, lr, factor = (torch.full((), value, dtype=torch.float64, device=loss.device) for value in (6, 4e-4, 0.5))
        flawed = torch.zeros(2, device=loss.device)
        rate = lorbms.step_size(loss, overflow, t, flawed, lr, factor, (0.5, 0.999), impl=impl)
        found += [rate, t, flawed]
    return found
