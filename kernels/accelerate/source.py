"""What a forward that cannot be traced does with its module's children, as far as its source tells without doubt."""

import ast
import dis
import gc
import inspect
import textwrap
import weakref
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_ROUNDABOUT = {"super", "locals", "globals", "vars", "eval", "exec", "getattr", "sys", "gc", "inspect"}
_TYPES = ("__class__", "__name__", "__qualname__")
_MOST = 100_000


def calls_as_torch(module: nn.Module) -> bool:
    """Say whether a call of a module is one of its class's forward, and its children are where torch keeps them."""
    kind = type(module)
    own = kind.__getattribute__ is object.__getattribute__ and kind.__getattr__ is nn.Module.__getattr__
    return own and kind.__call__ is nn.Module.__call__ and "forward" not in vars(module)


def only_calls_children(module: nn.Module) -> bool:
    """Say whether a forward, and methods that it calls, only call children of a module and read plain attributes."""
    return calls_as_torch(module) and _harmless(type(module).forward, module, set())


def held(module: nn.Module) -> set[nn.Module] | None:
    """Find modules to which attributes of one lead: through lists, closures, partials and the like; None: too many.

    What the methods of its class name counts too; that it has children does not.
    """
    kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    waiting = [value for name, value in vars(module).items() if name not in _OF_TORCH]
    waiting += [value for kind in kinds for name, value in vars(kind).items() if not name.startswith("__")]
    found, seen = set(), set()
    keep: list[Any] = []  # so that no id is used twice
    while waiting and len(keep) < _MOST:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, type | ModuleType | Tensor | CodeType | str | bytes):
            continue
        seen.add(id(value))
        keep.append(value)
        if isinstance(value, nn.Module):
            found.add(value)
            waiting += [v for name, v in vars(value).items() if name not in _OF_TORCH]
            waiting += value._modules.values()
        elif isinstance(value, FunctionType):
            waiting += [value.__defaults__, value.__kwdefaults__, vars(value), *_named(value)]
            waiting += value.__closure__ or ()
        elif isinstance(value, weakref.ReferenceType):
            waiting.append(value())
        elif gc.is_tracked(value) or isinstance(value, dict | tuple):
            waiting += gc.get_referents(value)
    return None if waiting else found


def asks_for_types(module: nn.Module) -> bool:
    """Say whether a module's forward, or a method that it names, may compare types: those of faster layers differ."""
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        method = getattr(type(module), waiting.pop(), None)
        code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
        codes = [] if code is None else [*_codes(code)]
        steps = [step for inner in codes for step in dis.get_instructions(inner)]
        # x.type(dtype) is another thing, and so is super(), to which Python 3.12 and later hand a __class__.
        named = [step.argval for step in steps if step.opname != "LOAD_DEREF" and step.argval in _TYPES]
        if named or any(step.argval == "type" and step.opname == "LOAD_GLOBAL" for step in steps):
            return True
        names = {name for inner in codes for name in inner.co_names}
        waiting += [name for name in names - seen if not hasattr(nn.Module, name)]
        seen |= names
    return False


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _named(function: FunctionType) -> list[Any]:
    """Values of the globals that a function names."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    return [function.__globals__[name] for name in names if name in function.__globals__]


def _harmless(function: Any, module: nn.Module, seen: set[str]) -> bool:
    """Say whether every mention of a function's first argument is a call of a child, or of a plain attribute."""
    tree = _source(function)
    if tree is None or not tree.args.args or tree.args.posonlyargs:
        return False
    me, children = tree.args.args[0].arg, {name for name, child in module._modules.items() if child is not None}
    plain = ({*vars(module)} - _OF_TORCH) | {*module._parameters} | {*module._buffers}
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name):
            continue
        if node.id in _ROUNDABOUT:
            return False
        if node.id != me:
            continue
        attribute = parents[node]
        if not isinstance(attribute, ast.Attribute):
            return False
        name, user = attribute.attr, parents[attribute]
        called = isinstance(user, ast.Call) and user.func is attribute
        if name in children:
            if not called and not _is_compared_with_none(user, attribute):
                return False
        elif name in plain or (name in module._modules and not called):
            continue
        elif called and name not in seen and isinstance(inspect.getattr_static(type(module), name, None), FunctionType):
            if hasattr(nn.Module, name) or not _harmless(getattr(type(module), name), module, seen | {name}):
                return False
        elif name not in seen:
            return False
    return True


def _is_compared_with_none(user: ast.AST, attribute: ast.AST) -> bool:
    if not isinstance(user, ast.Compare) or user.left is not attribute:
        return False
    nothing = all(isinstance(other, ast.Constant) and other.value is None for other in user.comparators)
    return nothing and all(isinstance(operator, ast.Is | ast.IsNot) for operator in user.ops)


def _source(function: Any) -> ast.FunctionDef | None:
    """The definition of a function; None where it is not certain that this is what runs."""
    if not isinstance(function, FunctionType) or function.__closure__ is not None:
        return None
    code = function.__code__
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
        compiled = compile(ast.Module([tree], []), code.co_filename, "exec", dont_inherit=True)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    (same, *_) = [*(inner for inner in compiled.co_consts if isinstance(inner, CodeType)), None]
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list or same is None or same.co_name != code.co_name:
        return None
    parts = "co_names", "co_varnames", "co_freevars"  # a file may have been edited since; bytes depend on its imports
    return tree if all(getattr(same, part) == getattr(code, part) for part in parts) else None
