"""Which modules of a model are called where, and whose result goes into which other's call alone.

A module's forward is followed by torch.fx, its children being leaves; in training and in evaluation, with optional
arguments and without. Where that fails (control flow that depends on values), the source of its class must show that it
does nothing with its children but call them. What cannot be shown is `opaque`: nothing below it is known.
"""

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass
class Uses:
    """Calls of a module, over the whole model."""

    before: set[nn.Module | None] = field(default_factory=set)
    """Whose results it takes, straight and alone; None for anything else."""
    after: set[nn.Module | None] = field(default_factory=set)
    """Who takes its result, straight and alone; None for anything else."""
    opaque: str | None = None
    """Name of a module that may use it in ways unknown."""


class _ChildrenAreLeaves(fx.Tracer):
    proxy_buffer_attributes = True  # so that a forward that counts its calls counts none of these

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def uses(model: nn.Module) -> dict[nn.Module, Uses]:
    """Find how each module of a model is used."""
    found = {module: Uses() for module in model.modules()}
    for name, module in model.named_modules():
        children = [child for child in module._modules.values() if child is not None]
        if not children or type(module) in (nn.ModuleList, nn.ModuleDict):
            continue
        if type(module).forward is nn.Sequential.forward and "forward" not in module.__dict__:
            _in_turn(found, children)
        elif graphs := _graphs(module):
            for graph in graphs:
                _in_graph(found, module, graph)
        elif _only_calls_children(module):
            for child in children:
                found[child].before.add(None)
                found[child].after.add(None)
        else:
            for below in module.modules():
                found[below].opaque = found[below].opaque or f"{name or 'the model'} ({type(module).__name__})"
    return found


def _in_turn(found: dict[nn.Module, Uses], members: list[nn.Module]) -> None:
    for before, module, after in zip([None, *members], members, [*members[1:], None], strict=False):
        found[module].before.add(before)
        found[module].after.add(after)


def _in_graph(found: dict[nn.Module, Uses], module: nn.Module, graph: fx.Graph) -> None:
    called = {node: module.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    for node, callee in called.items():
        alone = len(node.args) == 1 and not node.kwargs and node.args[0] in called
        found[callee].before.add(called[node.args[0]] if alone else None)
        users = list(node.users)
        follower = users[0] if len(users) == 1 and users[0].args == (node,) and not users[0].kwargs else None
        found[callee].after.add(called.get(follower))


def _graphs(module: nn.Module) -> list[fx.Graph]:
    """What a module's forward does, in all ways that fx can follow; empty if one of them it cannot."""
    signature = inspect.signature(type(module).forward)
    optional = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
    graphs = []
    for arguments in ({}, optional) if optional else ({},):
        for training in (False, True):
            try:
                with torch.random.fork_rng(devices=[]):
                    graphs.append(_ChildrenAreLeaves().trace(_stand_in(module, training), dict(arguments)))
            except Exception:  # whatever a forward does with what is not a tensor
                return []
    return graphs


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


def _only_calls_children(module: nn.Module) -> bool:
    """Say whether the source of a class shows that its methods do nothing with children but call them."""
    if "forward" in module.__dict__:
        return False
    children = {name for name, child in module._modules.items() if child is not None}
    try:
        classes = [kind for kind in type(module).__mro__ if kind not in (nn.Module, object)]
        trees = [ast.parse(textwrap.dedent(inspect.getsource(kind))) for kind in classes]
    except (OSError, TypeError, SyntaxError):
        return False
    return all(_harmless(method, children) for tree in trees for method in _methods(tree))


def _methods(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            yield node


def _harmless(method: ast.FunctionDef, children: set[str]) -> bool:
    """`self` appears as `self.name` alone, and a child as `self.child(...)` or in a comparison."""
    called: set[Any] = set()
    for node in ast.walk(method):
        if isinstance(node, ast.Call):
            called.add(node.func)
        if isinstance(node, ast.Compare):
            called.update([node.left, *node.comparators])
    of_self = {node.value for node in ast.walk(method) if isinstance(node, ast.Attribute)}
    for node in ast.walk(method):
        if isinstance(node, ast.Name) and node.id == "self" and node not in of_self:
            return False
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            reaches = node.attr in {
                "children",
                "modules",
                "named_children",
                "named_modules",
                "_modules",
                "get_submodule",
            }
            if reaches or (node.attr in children and node not in called):
                return False
    return True
