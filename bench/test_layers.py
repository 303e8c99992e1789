"""Layers of lorbms_fast.kernels, forward with backward, reference against fast, at sizes of the thesis."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from bench.conftest import Compare
from bench.gpu.cases import Case, cases
from bench.gpu.judging import results
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import Impl, lorbms

BATCH, ROUNDS = 12, 5


def _layers() -> Iterator[Case]:
    """Cases of the GPU's kit, those of single layers on a batch of maps."""
    for case in cases(ModelConfig(), BATCH, 64):
        maps, *parameters = case.shapes
        if case.name.startswith(("dense block", "resize", "pooled", "instance norm")):
            yield replace(case, shapes=((BATCH, *maps[1:]), *parameters))
        elif case.name.startswith(("ReLU + grouped", "spectral norm")):
            yield case
    yield Case("paired convolution, 96 maps", _paired, ((5 * BATCH, 3, 64, 64), (96, 6, 8, 8), (96,)))


def _paired(images: Tensor, weight: Tensor, bias: Tensor, impl: Impl) -> Tensor:
    shared, each = images.split((BATCH, 4 * BATCH))
    return lorbms.paired_conv2d(shared, each, weight, bias, stride=2, impl=impl)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in _layers()])
def test_layer(case: Case, compare: Compare) -> None:
    run = partial(results, case, case.inputs(torch.device("cpu")), torch.float32)
    compare(partial(run, "reference"), partial(run, "fused"), ROUNDS)
