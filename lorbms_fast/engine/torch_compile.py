"""The regions of an iteration that torch.compile may take over: the networks made of torch's own operations.

These are the discriminator and the classifier. Encoder and decoder are kernels of ours from end to end, and so are the
losses behind them: between those is nothing to fuse. A region meets a few cases, its parameters trained or frozen, one
batch or two of them, and each is compiled once. Which candidates a mask uses changes none of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend

from lorbms_fast.progress import tqdm
from lorbms_fast.types import Networks

Region = Literal["dsc", "cls"]
CASES = 6
"""Max. number of graphs compiled for a region: two in training, the rest for sheets. Others run as they are."""


class Graphs:
    """A torch.compile backend that compiles, by another one, and counts the graphs of a region."""

    def __init__(self, region: str, backend: str) -> None:
        self.count = 0
        self._region, self._compile = region, lookup_backend(backend)

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """Compile a graph that torch.compile has not met before."""
        self.count += 1
        if self.count <= CASES:
            tqdm.write(f"--compile {self._region}: compiling graph {self.count} of at most {CASES}")
            return self._compile(graph, inputs)
        if self.count == CASES + 1:
            tqdm.write(f"--compile {self._region}: more than {CASES} cases, as sizes change; others are not compiled")
        return graph.forward


def compile_regions(networks: Networks, regions: Sequence[Region], backend: str = "inductor") -> dict[Region, Graphs]:
    """Have regions compiled in place when they are run next; parameters keep their names."""
    found = {region: Graphs(region, backend) for region in regions}
    for name, graphs in found.items():
        region: nn.Module = getattr(networks, name)
        region.compile(backend=graphs, dynamic=False, fullgraph=True)
    return found
