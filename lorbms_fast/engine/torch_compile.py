"""The regions of an iteration that torch.compile may take over: the networks made of torch's own operations.

These are the discriminator and the classifier. Encoder and decoder are kernels of ours from end to end, and so are the
losses behind them: between those is nothing to fuse. A region meets a few cases, its parameters trained or frozen, one
batch or two of them, and each is compiled once. Which candidates a mask uses changes none of them.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
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
    """A torch.compile backend that compiles, by another one, and tells of each graph: all take minutes to an hour.

    It compiles so many graphs of a network at most; the others run as they are.
    """

    def __init__(self, network: str, backend: str = "inductor", at_most: int | None = None) -> None:
        self.count = 0
        self._network, self._compile, self._at_most = network, lookup_backend(backend), at_most

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """Compile a graph that torch.compile has not met before."""
        self.count += 1
        if self._at_most is None or self.count <= self._at_most:
            steps = sum(node.op.startswith("call") for node in graph.graph.nodes)
            of = "" if self._at_most is None else f" of at most {self._at_most}"
            self._tell(f"graph {self.count}{of}, {steps} operations")
            return self._compile(graph, inputs)
        if self.count == self._at_most + 1:
            self._tell(f"more than {self._at_most} cases, as sizes change; others are not compiled")
        return graph.forward

    def _tell(self, what: str) -> None:
        now = datetime.now().strftime("%H:%M:%S")
        tqdm.write(f"{now} torch.compile: {self._network}, {what}", file=sys.stderr)


def compile_regions(networks: Networks, regions: Sequence[Region], backend: str = "inductor") -> dict[Region, Graphs]:
    """Have regions compiled in place when they are run next; parameters keep their names."""
    found = {region: Graphs(region, backend, CASES) for region in regions}
    for name, graphs in found.items():
        region: nn.Module = getattr(networks, name)
        region.compile(backend=graphs, dynamic=False, fullgraph=True)
    return found
