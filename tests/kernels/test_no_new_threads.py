"""Loops work with the threads that are there: parallel ones inside others start new ones at each call."""

import sys
from threading import Thread

import pytest
import torch

from lorbms_fast import kernels
from lorbms_fast.kernels.instance_norm import cpp
from tests.kernels.threads import threads

LAYERS = {
    "instance norm": lambda: kernels.InstanceNormAct2d(32, "silu"),
    "batch norm": lambda: kernels.BatchNormAct2d(32, "relu"),
    "Winograd's convolution": lambda: kernels.WinogradConv2d(32, 32, 3, padding=1, padding_mode="reflect"),
    "upsampled convolution": lambda: kernels.UpsampleConv2d(32, 32),
    "max pool": kernels.MaxPool2x2,
    "dense block": lambda: kernels.DenseBlock(32, num_layers=4, growth_rate=16),
    "DenseNet's block": lambda: kernels.DenseNetBlock(3, num_input_features=32, bn_size=4, growth_rate=16),
}


def last_number() -> int:
    """Linux numbers threads, of all processes, in turn."""
    thread = Thread(target=lambda: None)
    thread.start()
    thread.join()
    return thread.native_id or 0


@pytest.mark.skipif(not cpp.LOOPS.built(), reason="no C++ compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="numbers of threads are Linux's")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_step_starts_no_threads(make, layout):
    layer, steps = make().to(memory_format=layout), 16
    with threads(3):
        for samples in (1, 2):
            x = torch.randn(samples, 32, 64, 64).to(memory_format=layout).requires_grad_()
            for _ in range(12):  # the first brings the pool; others' processes may start some as well
                first = last_number()
                for _ in range(steps):
                    layer(x).sum().backward()
                if abs(last_number() - first) < steps:
                    break
            else:
                pytest.fail("each step starts a thread")
