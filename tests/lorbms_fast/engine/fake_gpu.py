"""`python fake_gpu.py ARITHMETIC FORM`: an iteration, and a look at samples, of tensors without values on a GPU.

Everything is dispatched as on CUDA, autocast's rules with it, and no kernel runs. What would copy to or from the host
inside the iteration is an error, and so is a number that the host asks for, and tensors on two devices.
"""

import sys
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorbms_fast import models
from lorbms_fast.engine import fast, precision
from lorbms_fast.engine.collapse import classifier_state, discriminator_state
from lorbms_fast.engine.cuda_graph import CapturedIteration
from lorbms_fast.engine.fast import Fast
from lorbms_fast.kernels import use_impl
from lorbms_fast.kernels.lorbms.adam.triton import ops as adam
from lorbms_fast.kernels.resize_conv import fused as resize_conv
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Batch, BatchIndices
from tests.conftest import TINY

GPU = torch.device("cuda", 0)


class OnTheGpu(TorchDispatchMode):
    """Refuses operations on tensors of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        assert all(leaf.device == GPU for leaf in leaves), f"{func} on the host"
        return result


def fused_adam(*lists: list[torch.Tensor], lr: torch.Tensor, found_inf: torch.Tensor, **options: Any) -> None:
    """Check what torch's kernel is given: it reads all lists as memory that lies in one way."""
    for tensors in lists[:4]:
        for parameter, tensor in zip(lists[0], tensors, strict=True):
            assert (tensor.stride(), tensor.device) == (parameter.stride(), GPU)
    assert (lr.device, lr.dtype, found_inf.device) == (GPU, torch.float32, GPU)


def moved(network: nn.Module) -> nn.Module:
    """Put a network's parameters and buffers on the GPU."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(parameter.detach().to(GPU))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(GPU)
    return network


def draw(numbers: range) -> BatchIndices:
    """Draw nothing: an iteration is rehearsed only."""
    raise NotImplementedError


def iterate_and_look(arithmetic: Any) -> None:
    """Rehearse the largest iteration twice, the second time refusing what a graph cannot hold; look at a batch."""
    networks: Any = moved(models.build(TINY.model, "fast")).train()
    optimizers = Optimizers.of(networks, TINY.optim, arithmetic)
    images = torch.zeros(100, 64, 64, 3, dtype=torch.uint8, device=GPU)
    iteration = CapturedIteration(networks, optimizers, images, draw, TINY, arithmetic, None)
    for size in iteration.sizes:
        iteration.rehearse(size)
    with OnTheGpu():
        iteration._work(iteration.sizes[-1])

    I_ref, mask = torch.zeros(3, 3, 64, 64, device=GPU), torch.zeros(3, 4, dtype=torch.bool, device=GPU)
    batch = Batch(I_ref, I_ref.expand(4, -1, -1, -1, -1), mask, torch.zeros(2, 6, dtype=torch.int64, device=GPU))
    with torch.no_grad(), precision.precision(GPU, arithmetic), patch.object(torch.Tensor, "item", lambda x: 0.5):
        scenes = Fast().scenes(networks, batch)
        classifier_state(networks, Fast(), scenes.I_mix, batch)
        discriminator_state(networks, batch.I_ref, scenes.I_mix)


def main() -> None:
    """Stand in for what no tensor without values goes through: Triton's and torch's own kernels, streams, draws."""
    _, arithmetic, form = sys.argv
    with (
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda *_, **__: True),
        patch.object(torch, "_fused_adam_", fused_adam),
        patch.object(adam, "step_size", lambda loss, overflow, *_: torch.empty_like(overflow)),
        patch.object(fast, "concurrently", lambda here, aside, device: (here(), aside())),
        patch.object(models, "initialize", lambda *_: None),
        patch.object(resize_conv, "beside", lambda x, table: x.new_empty(len(table), len(table[0]))),
        FakeTensorMode(),
        use_impl(form),  # type: ignore[arg-type]
    ):
        iterate_and_look(arithmetic)
    print("done")


if __name__ == "__main__":
    main()
