"""Dense blocks: a third of the memory in training, and less time as a rule; torchvision's, and those others wrote."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import fx, nn

from lorbms_fast.kernels.accelerate.joined import BatchNormAct2d
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.source import runs_in_turn
from lorbms_fast.kernels.accelerate.swapping import PassedReLU, become, restored, with_partners
from lorbms_fast.kernels.accelerate.uses import graphs_of, in_one_mode
from lorbms_fast.kernels.densenet_block import (
    DenseNetBlock,
    Plan,
    StackedBlock,
    stacked_kind,
    why_no_densenet_block,
    why_not_stacked,
)
from lorbms_fast.kernels.winograd_conv import WinogradConv2d

_OF_LAYERS = (
    *(nn.BatchNorm2d, BatchNormAct2d, nn.ReLU, PassedReLU, nn.Conv2d, WinogradConv2d),
    *(nn.Dropout, nn.Dropout2d),
)


def dense_blocks(model: nn.Module) -> Iterator[Finding]:
    """Swap those that are as torchvision made them, and those that do the same with layers of their own.

    >>> list(dense_blocks(nn.Sequential(nn.Conv2d(3, 8, 3))))
    []
    """
    found, seen = [], computed_by_blocks(model)
    for name, module in reversed([*model.named_modules()]):
        kind = type(module)
        if f"{kind.__module__}.{kind.__qualname__}" == "torchvision.models.densenet._DenseBlock":
            _part_again(module)
            reason = why_no_densenet_block(module)
            if reason is None:
                become(module, DenseNetBlock)
            found.append(Finding(name, "_DenseBlock -> DenseNetBlock" if reason is None else "_DenseBlock", reason))
        # Not a block in which there is one.
        elif seen.isdisjoint(module.modules()) and (plan := _plan(module)) is not None:
            _part_again(module)
            reason = why_not_stacked(module, plan)
            if reason is None:
                become(module, stacked_kind(kind), plan=plan)
            what = f"{kind.__name__} (dense block)" if reason else f"{kind.__name__} -> {type(module).__name__}"
            found.append(Finding(name, what, reason))
            seen.add(module)
    yield from reversed(found)


def computed_by_blocks(model: nn.Module) -> set[nn.Module]:
    """Find the blocks that were swapped, and all that they compute."""
    blocks = (module for module in model.modules() if isinstance(module, DenseNetBlock | StackedBlock))
    return {module for block in blocks for module in block.modules()}


def _part_again(block: nn.Module) -> None:
    """Undo what joined norms with activations, which the next rule joins again where the block stays."""
    for part in with_partners(m for m in block.modules() if isinstance(m, BatchNormAct2d)):
        restored(part)


_Part = tuple[int, int]
"""Maps that a forward made, or took: the number of a chain, and how many of its modules made them."""
_INPUT = (-1, 0)


class _Chain(NamedTuple):
    """Modules called in turn, the first with maps beside each other."""

    reads: tuple[_Part, ...]
    modules: list[nn.Module]


class _Unlike(Exception):
    """A forward does something else than a dense block."""


def _plan(block: nn.Module) -> Plan | None:
    """Follow a block's forward; None if it is not chains of layers over growing concatenations, and nothing else."""
    layers = [module for module in block.modules() if not module._modules]
    if len(layers) < 6 or any(type(layer) not in _OF_LAYERS for layer in layers):
        return None
    chains: list[_Chain] = []
    try:
        result = _called(block, (_INPUT,), chains)
    except _Unlike:
        return None
    new = tuple((number, len(chain.modules)) for number, chain in enumerate(chains))
    grows = all(chain.reads == (_INPUT, *new[:number]) for number, chain in enumerate(chains))
    called = [module for chain in chains for module in chain.modules]
    if len(chains) < 2 or not grows or result not in ((_INPUT, *new), new) or len({*called}) < len(called):
        return None
    names = {module: name for name, module in block.named_modules()}
    return Plan([[names[module] for module in chain.modules] for chain in chains], result == new)


def _called(module: nn.Module, x: tuple[_Part, ...], chains: list[_Chain]) -> tuple[_Part, ...]:
    """What a module makes of x; chains become more, and longer."""
    if type(module) in _OF_LAYERS:
        last = (len(chains) - 1, len(chains[-1].modules)) if chains else None
        if x == (last,):
            chains[-1].modules.append(module)
        elif isinstance(module, nn.BatchNorm2d):
            chains.append(_Chain(x, [module]))
        else:
            raise _Unlike
        return ((len(chains) - 1, len(chains[-1].modules)),)
    if runs_in_turn(module):
        for child in module.children():
            x = _called(child, x, chains)
        return x
    ways = []
    for graph in graphs_of(module, nothing_else=True):
        longer = [_Chain(chain.reads, [*chain.modules]) for chain in chains]
        ways.append((_followed(graph, module, x, longer), longer))
    if not ways or ways.count(ways[0]) < len(ways):
        raise _Unlike
    result, chains[:] = ways[0]
    return result


def _followed(graph: fx.Graph, module: nn.Module, x: tuple[_Part, ...], chains: list[_Chain]) -> tuple[_Part, ...]:
    """What a graph of a module makes of x."""
    found: dict[fx.Node, tuple[_Part, ...]] = {}
    first, *others = graph.nodes
    for node in (first, *others):
        arguments = [*node.args, *node.kwargs.values()]
        if node.op == "placeholder" and node is first:
            found[node] = x
        elif not in_one_mode(first, node) or not arguments:
            raise _Unlike
        elif node.op == "call_module" and len(arguments) == 1 and arguments[0] in found:
            found[node] = _called(module.get_submodule(str(node.target)), found[arguments[0]], chains)
        elif node.op == "call_function" and node.target in (torch.cat, torch.concat) and arguments[1:] == [1]:
            if not isinstance(arguments[0], list | tuple):
                raise _Unlike
            found[node] = tuple(part for each in arguments[0] for part in found[each])
        elif node.op == "output" and arguments[0] in found:
            return found[arguments[0]]
        else:
            raise _Unlike
    raise _Unlike
