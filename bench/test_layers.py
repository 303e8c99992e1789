"""Every layer of lorbms_fast.kernels, forward with backward, reference against fast, at sizes of the thesis."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from bench.conftest import Compare
from lorbms_fast import kernels
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import lorbms

BATCH = 12
ROUNDS = 5
MODEL = ModelConfig()
SIDES = (64, 32, 16, 8, 4)


def _blocks(sides: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", range(5), ids=sides)


OF_ENCODER = _blocks([f"{side}x{side}" for side in SIDES])
OF_DECODER = _blocks([f"{side}x{side}" for side in reversed(SIDES)])
OF_UPS = _blocks([f"{side // 2}x{side // 2} to {side}x{side}" for side in reversed(SIDES)])


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape).mul_(0.1).requires_grad_()


def _maps(channels: int, side: int) -> Tensor:
    """Maps as the networks hand them on: channels_last."""
    maps = torch.randn(BATCH, channels, side, side).contiguous(memory_format=torch.channels_last)
    return maps.requires_grad_()


def _there_and_back(operation: Callable[..., Tensor], tensors: Sequence[Tensor], impl: kernels.Impl) -> None:
    y = operation(*tensors, impl=impl)
    torch.autograd.grad(y.square().mean(), tensors)


def _compare(compare: Compare, operation: Callable[..., Tensor], *tensors: Tensor) -> None:
    run = partial(_there_and_back, operation, tensors)
    compare(partial(run, "reference"), partial(run, "fused"), ROUNDS)


def _dense(form: Callable[..., Tensor], activation: str, layers: int, *tensors: Tensor, impl: kernels.Impl) -> Tensor:
    x, *parameters = tensors
    return form(x, parameters[:layers], parameters[layers:], activation, impl=impl)


def _dense_parameters(channels: int, layers: int) -> list[Tensor]:
    weights = [_draw(MODEL.growth, channels + layer * MODEL.growth, 3, 3) for layer in range(layers)]
    return [*weights, *(_draw(MODEL.growth) for _ in range(layers))]


@OF_ENCODER
def test_encoder_dense_block(block: int, compare: Compare) -> None:
    layers, channels = MODEL.layers[block], (MODEL.stem, *MODEL.encoder_widths)[block]
    form = partial(_dense, kernels.dense_block_activated, "instance_norm_relu", layers)
    _compare(compare, form, _maps(channels, SIDES[block]), *_dense_parameters(channels, layers))


@OF_DECODER
def test_decoder_dense_block(block: int, compare: Compare) -> None:
    layers, channels = MODEL.layers[-1 - block], MODEL.decoder_widths[block]
    form = partial(_dense, kernels.dense_block_maps, "relu", layers)
    _compare(compare, form, _maps(channels, SIDES[-1 - block]), *_dense_parameters(channels, layers))


@OF_UPS
def test_resize_conv(block: int, compare: Compare) -> None:
    channels = (MODEL.chunk, *(MODEL.growth * layers for layers in reversed(MODEL.layers)))[block]
    weight = _draw(MODEL.decoder_widths[block], channels, 3, 3)
    _compare(compare, kernels.resize_conv, _maps(channels, 2 << block), weight)


@OF_ENCODER
def test_pooled_conv(block: int, compare: Compare) -> None:
    width = MODEL.encoder_widths[block]
    _compare(compare, lorbms.pooled_conv2d, _maps(width, SIDES[block]), _draw(width, width, 1, 1), _draw(width))


@OF_ENCODER
def test_instance_norm_relu(block: int, compare: Compare) -> None:
    _compare(compare, kernels.instance_norm_relu, _maps(MODEL.encoder_widths[block], SIDES[block]))


def test_paired_conv(compare: Compare) -> None:
    def paired(shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor, impl: kernels.Impl) -> Tensor:
        return lorbms.paired_conv2d(shared, torch.cat(each.chunk(4, 1)), weight, bias, stride=2, impl=impl)

    _compare(compare, paired, _maps(3, 64), _maps(12, 64), _draw(96, 6, 8, 8), _draw(96))


def test_grouped_batch_norm(compare: Compare) -> None:
    form = partial(kernels.relu_grouped_batch_norm, groups=4)
    tensors = _draw(4 * BATCH, 96, 29, 29), _draw(96), _draw(96)
    _compare(compare, lambda *of, impl: form(*of, impl=impl)[0], *tensors)


def test_spectral_norm_of_the_decoder(compare: Compare) -> None:
    shapes = [
        (MODEL.growth, width + layer * MODEL.growth)
        for width, layers in zip(MODEL.decoder_widths, reversed(MODEL.layers), strict=True)
        for layer in range(layers)
    ]
    weights = [_draw(*shape, 3, 3) for shape in shapes]
    us = [torch.randn(1, out) for out, _ in shapes]

    def run(impl: kernels.Impl) -> None:
        normalised = kernels.spectral_norm_all(weights, us, impl)
        torch.autograd.grad([W.square().sum() for W in normalised], weights)

    compare(partial(run, "reference"), partial(run, "fused"), ROUNDS)
