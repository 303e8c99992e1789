"""Uses of a model's modules: which are called where, and whose result goes into which other's call alone.

A module's forward is followed by torch.fx, its children being leaves; in training and in evaluation, with optional
arguments and without. Nothing goes straight from one side of a `no_grad`'s or an `autocast`'s border to the other.
Where that fails (control flow that depends on values), the forward's source must show that it does nothing with its
children but call them, and no attribute may lead to modules by another way (`source`). What cannot be shown is
`opaque`: nothing below it is known. Of a module that others outside of the model have as well, as those have whose
classes share a default argument, nobody knows what comes before and after it there; they are found among the objects
that Python may collect, which those that `gc.freeze` put aside are not.
"""

import copy
import gc
import inspect
import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from lorbms_fast.kernels.accelerate.source import (
    OF_TORCH,
    calls_as_torch,
    held,
    is_container,
    only_calls_children,
    runs_in_turn,
)
from lorbms_fast.kernels.accelerate.swapping import Passed

_MODES = "modes"
_LEFT_ALONE = OF_TORCH - {"_parameters", "_buffers", "_modules"}
"""Attributes of torch's that a forward does not change."""


@dataclass
class _Known:
    """What is known of a model inside `traced_once`."""

    model: nn.Module
    elsewhere: set[nn.Module]
    """Modules that others outside of the model have as well."""
    traced: dict[tuple[nn.Module, bool], tuple[list[type], list[fx.Graph]]] = field(default_factory=dict)
    """Modules and what they are followed for, their classes and what was found."""


_known: ContextVar[_Known | None] = ContextVar("_known", default=None)


@dataclass
class Uses:
    """Calls of a module, over the whole model."""

    before: set[nn.Module | None] = field(default_factory=set)
    """Whose results it takes, straight and alone; None for anything else."""
    after: set[nn.Module | None] = field(default_factory=set)
    """Who takes its result, straight and alone; None for anything else."""
    opaque: str | None = None
    """Name of a module that may use it in ways unknown."""
    elsewhere: bool = False
    """Whether a module outside of the model has it, too."""


class _ChildrenAreLeaves(fx.Tracer):
    proxy_buffer_attributes = True  # so that a forward that counts its calls counts none of these

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta[_MODES] = _modes()
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def uses(model: nn.Module) -> dict[nn.Module, Uses]:
    """Find how each module of a model is used."""
    found, known = {module: Uses() for module in model.modules()}, _known.get()
    for module in known.elsewhere if known is not None and known.model is model else _also_elsewhere(model):
        found[module] = Uses({None}, {None}, elsewhere=True)
    for name, module in model.named_modules():
        children = [*_called(module)]
        unknown: set[nn.Module] = set()
        if runs_in_turn(module):
            _in_turn(found, children)
        elif graphs := graphs_of(module):
            for graph in graphs:
                _in_graph(found, module, graph)
        elif not is_container(module) and not _is_known(module):
            elsewhere = held(module)
            unknown = set(found) if elsewhere is None else elsewhere & found.keys()
            if unknown or not only_calls_children(module, those_of_sequences=True):
                unknown |= set(module.modules())
            elif not only_calls_children(module):
                children += [each for child in children if runs_in_turn(child) for each in _called(child)]
            for child in children:
                found[child].before.add(None)
                found[child].after.add(None)
        kind = "torch.fx's GraphModule" if isinstance(module, fx.GraphModule) else type(module).__name__
        for below in unknown:
            found[below].opaque = found[below].opaque or f"{name or 'the model'} ({kind})"
    return found


def _also_elsewhere(model: nn.Module) -> set[nn.Module]:
    """Find the modules inside of a model that are children of one which is not there."""
    found = _children_of_others(model)
    if found:  # by one that is dead and waits to be collected, perhaps
        gc.collect()
        found = _children_of_others(model)
    return found


def _children_of_others(model: nn.Module) -> set[nn.Module]:
    modules = {id(module): module for module in model.modules()}  # somebody else's may not be hashable
    inside = {id(module._modules) for module in modules.values()}  # `copy.copy` of a module has the same
    # Nobody's `__class__` is asked for: objects that are made when first used would be.
    others = (m for m in gc.get_objects() if issubclass(type(m), nn.Module) and id(m) not in modules)
    children = (vars(module).get("_modules", {}) for module in others)
    found = {id(child) for of in children if id(of) not in inside for child in of.values()}
    return {modules[child] for child in found & modules.keys() - {id(model)}}  # of a part its model is no other


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """Children of a module, those in lists and dictionaries as well."""
    for child in module._modules.values():
        if child is not None and is_container(child):
            yield from _called(child)
        elif child is not None:
            yield child


def flows(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Write down what each module does, nothing if it cannot be traced, to see whether it is the same with others."""
    found = {}
    for module in model.modules():
        if module._modules and not is_container(module) and not runs_in_turn(module):
            graphs = graphs_of(module)
            nodes = (node for graph in graphs for node in graph.nodes)
            found[module] = [f"{n.op} {n.name} {_written(n.target)} {n.args} {n.kwargs}" for n in nodes]
    return found


def _written(value: object) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def _modes() -> tuple[object, ...]:
    """Modes of torch which decide what a call computes, or what its backward does."""
    autocast = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast


def _is_known(module: nn.Module) -> bool:
    """Say whether it is a layer of torch's or of this package, which leads to no other module."""
    known = type(module).__module__.startswith(("torch.", "lorbms_fast."))
    leaf = all(type(child) is nn.Identity or isinstance(child, Passed) for child in module._modules.values())
    return known and leaf and "forward" not in vars(module)


def _in_turn(found: dict[nn.Module, Uses], members: list[nn.Module]) -> None:
    for before, module, after in zip([None, *members], members, [*members[1:], None], strict=False):
        found[module].before.add(before)
        found[module].after.add(after)


def _in_graph(found: dict[nn.Module, Uses], module: nn.Module, graph: fx.Graph) -> None:
    called = {node: module.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    for node, callee in called.items():
        alone = len(node.args) == 1 and not node.kwargs and node.args[0] in called
        found[callee].before.add(called[node.args[0]] if alone and in_one_mode(node.args[0], node) else None)
        users = list(node.users)
        follower = users[0] if len(users) == 1 and users[0].args == (node,) and not users[0].kwargs else None
        found[callee].after.add(called.get(follower) if in_one_mode(node, follower) else None)


def in_one_mode(node: fx.Node, follower: fx.Node | None) -> bool:
    """Say whether there is no border of `no_grad`, `autocast` or the like between two calls."""
    return follower is not None and node.meta[_MODES] == follower.meta[_MODES]


def graphs_of(module: nn.Module, nothing_else: bool = False) -> list[fx.Graph]:
    """What a module's forward does, in all ways that fx can follow; empty if one of them it cannot, or no children.

    `nothing_else`: also if it leaves something in the module, which another one in its place would not.
    """
    known = _known.get()
    if known is None:
        return _graphs_of(module, nothing_else)
    kinds = [type(below) for below in module.modules()]
    before, graphs = known.traced.get((module, nothing_else), (None, []))
    if before != kinds:
        graphs = _graphs_of(module, nothing_else)
        known.traced[module, nothing_else] = kinds, graphs
    return graphs


@contextmanager
def traced_once(model: nn.Module) -> Iterator[None]:
    """Trace a module once inside, as long as it and all below it keep their classes, all that may change there."""
    token = _known.set(_Known(model, _also_elsewhere(model)))
    try:
        yield
    finally:
        _known.reset(token)


def _graphs_of(module: nn.Module, nothing_else: bool) -> list[fx.Graph]:
    if not any(child is not None for child in module._modules.values()) or is_container(module):
        return []
    if not calls_as_torch(module):
        return []
    signature = inspect.signature(type(module).forward)
    optional = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
    graphs = []
    for arguments in ({}, optional) if optional else ({},):
        for training in (False, True):
            try:
                other = _stand_in(module, training)
                before = _contents(other)
                with torch.random.fork_rng(devices=[]), _quietly(), _as_they_were(module):
                    graphs.append(_ChildrenAreLeaves().trace(other, dict(arguments)))
            except Exception:  # whatever a forward does with what is not a tensor; parametrized modules are not copied
                return []
            after = _contents(other)
            if nothing_else and not (len(before) == len(after) and all(map(operator.is_, before, after))):
                return []
    return graphs


@contextmanager
def _quietly() -> Iterator[None]:
    """What a forward warns of, or prints, when it gets no tensors is nobody's concern."""
    disabled, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _as_they_were(module: nn.Module) -> Iterator[None]:
    """What a forward that is followed leaves in modules below is gone afterwards: it had no tensors to leave."""
    owned = [vars(below) for below in module.modules()]
    kept: list[Any] = [*owned, *(value for own in owned for value in _collections(own))]
    before = [type(each)(each) for each in kept]
    try:
        yield
    finally:
        for each, content in zip(kept, before, strict=True):
            if not _same(each, content):
                each.clear()
                (each.extend if isinstance(each, list) else each.update)(content)


def _collections(own: dict[str, Any]) -> Iterator[Any]:
    """Lists and the like in a module's attributes; of torch's own, those of parameters, buffers and children."""
    return (own[name] for name in own.keys() - _LEFT_ALONE if type(own[name]) in (list, dict, set))


def _same(found: Any, content: Any) -> bool:
    """Say whether a collection still has the same objects."""
    if len(found) != len(content):
        return False
    if isinstance(found, dict):
        return all(map(operator.is_, found, content)) and all(map(operator.is_, found.values(), content.values()))
    return all(map(operator.is_, found, content))


def _contents(module: nn.Module) -> list[Any]:
    """All that is in a module's attributes, and in collections there."""
    found: list[Any] = []
    for name, value in vars(module).items():
        found += name, value
        if isinstance(value, dict):
            found += *value.keys(), *value.values()
        elif isinstance(value, list | set):
            found += value
        elif isinstance(value, Tensor):
            found.append(value._version)  # a small number, always the same object
    return found


def _stand_in(module: nn.Module, training: bool) -> nn.Module:
    """A module whose forward may leave what it likes in it, with the same children."""
    other = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, list | dict | set):
            other.__dict__[name] = copy.copy(value)
        elif isinstance(value, Tensor):
            other.__dict__[name] = value.clone()
    other.__dict__["training"] = training
    return other
