"""The GPU script's logic, on a CPU with the torch form in Triton's place."""

import pytest
import torch

from bench.gpu import __main__ as gpu
from lorbms_fast import kernels

SMALL = [
    gpu.dense_block("encoder", 2, 8, 2, 4, "instance_norm_relu"),
    gpu.dense_block("decoder", 2, 8, 2, 4, "relu"),
    gpu.Case("instance norm + ReLU", gpu._instance_norm_relu, ((2, 3, 4, 4),)),
    gpu.Case("resize convolution", gpu._resize_conv, ((2, 3, 4, 4), (5, 3, 3, 3))),
    gpu.Case("pooled convolution", gpu._pooled_conv, ((2, 3, 4, 4), (5, 3, 1, 1), (5,))),
    gpu.Case("max pooling", gpu._max_pool, ((2, 3, 4, 4),)),
    gpu.Case("grouped batch norm", gpu._batch_norm, ((8, 3, 4, 4), (3,), (3,))),
    gpu.Case("spectral norm", gpu._spectral_norm, ((3, 4, 3, 3), (3, 7, 3, 3))),
    gpu.Case("mixing", gpu._mix_chunks, ((2, 4, 3), (2, 4, 3))),
    gpu.Case("loss head", gpu._loss_head, (*[(2, 3, 4, 4)] * 3, (2, 1, 2, 2), (4, 2, 4))),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_right_results_pass(case):
    assert gpu.error(case, "fused", torch.float32, "cpu") < gpu.TOLERANCES[torch.float32]


@pytest.mark.parametrize("wrong", [lambda y: 1.001 * y, lambda y: y.detach() + (1.001 * y - 1.001 * y.detach())])
def test_wrong_results_and_wrong_gradients_do_not(wrong):
    def run(x, impl):
        y = kernels.instance_norm_relu(x, 1e-5, impl)
        return y if impl == "reference" else wrong(y)

    assert gpu.error(gpu.Case("", run, ((2, 3, 4, 4),)), "fused", torch.float32, "cpu") > gpu.TOLERANCES[torch.float32]


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 0
    assert "no GPU here" in capsys.readouterr().out


def test_the_model_is_covered():
    names = [case.name for case in gpu.cases()]
    assert len(names) == len(set(names)) == 19
